"""The client's decisions at a load point, and that real time and virtual time make the same ones."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable

import pytest

from autotuner.core import LoadPoint, LoadStep, Observation, Workload
from autotuner.endpoints.address import Endpoint
from autotuner.load import measure
from autotuner.simulate.faults import FaultPlan, RequestFault
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.started_engine import start_engine
from autotuner.simulate.virtual_time import VirtualServer
from autotuner.workload.client_policy import ClientPolicy, complete_until, retry_pause, start_offset
from tests.servers import ReceivedRequest, Server, complete, status

POINT = LoadPoint("D(20,5)", concurrency=2)


def policy(window: float = 10.0, max_requests: float = math.inf, users: int = 2, warmup: float = 1.0) -> ClientPolicy:
    begun = ClientPolicy(Workload((POINT,), warmup=warmup), window, max_requests, users)
    begun.begin(100.0)
    return begun


def failing(policy: ClientPolicy, count: int, *, since: float = 101.0, error: str = "http-500") -> ClientPolicy:
    for number in range(count):
        policy.finish(error, since + number, counted=False)
    return policy


def test_requests_count_from_the_end_of_the_warm_up_to_the_end_of_the_window():
    client = policy()
    assert [client.issue(due) for due in (100.0, 100.99, 101.0, 110.99)] == [False, False, True, True]
    assert client.issue(111.0) is False  # keeps the load up until those of the window have ended
    for _ in range(2):
        client.finish(None, 111.5, counted=True)
    assert client.issue(111.6) is None
    assert client.window(112.0, ended_early=False, gave_up=False) == (101.0, 111.0)


def test_a_window_of_a_number_of_requests_ends_with_the_last_of_them():
    client = policy(max_requests=2)
    assert [client.issue(due) for due in (101.0, 102.0, 103.0)] == [True, True, False]
    client.finish(None, 104.0, counted=True)
    assert not client.is_complete(104.0)
    client.finish(None, 105.0, counted=True)
    assert client.is_complete(105.0)
    assert client.window(106.0, ended_early=False, gave_up=False) == (101.0, 105.0)


@pytest.mark.parametrize(("now", "window"), [(100.5, (100.0, 100.5)), (104.0, (101.0, 104.0)), (200.0, (101.0, 111.0))])
def test_a_load_point_that_ends_early_has_the_window_until_then(now, window):
    assert policy().window(now, ended_early=True, gave_up=False) == window
    assert policy().window(now, ended_early=False, gave_up=True) == window


@pytest.mark.parametrize(
    ("failures", "users", "in_flight", "gives_up"),
    [
        (4, 2, [], False),
        (5, 2, [], True),
        (5, 8, [], False),
        (8, 8, [], True),
        (5, 2, [104.5], True),  # nothing in flight is older than a second, after two seconds of failures
        (5, 2, [101.0], False),  # an older one may still succeed
    ],
)
def test_it_gives_up_when_only_failures_come_back(failures, users, in_flight, gives_up):
    assert failing(policy(users=users), failures).gives_up("http-500", 105.0, in_flight) is gives_up


@pytest.mark.parametrize(("error", "gives_up"), [("http-500", False), ("malformed", False), ("reset", True)])
def test_after_a_success_it_gives_up_only_on_a_server_that_cannot_be_reached(error, gives_up):
    client = policy()
    client.finish(None, 101.0, counted=False)
    assert failing(client, 5, error=error).gives_up(error, 106.0, []) is gives_up


def test_users_start_over_half_the_warm_up_and_pause_longer_after_each_failure():
    assert [start_offset(user, 4, Workload((POINT,), warmup=2.0)) for user in range(4)] == [0, 0.25, 0.5, 0.75]
    assert start_offset(3, 4, Workload((POINT,), warmup=100.0)) == 1.5
    assert [retry_pause(failures) for failures in (0, 1, 2, 50)] == [0.05, 0.1, 0.2, 1.0]


def test_outcomes_are_complete_up_to_the_first_unfinished_request():
    assert complete_until(10.0, []) == 10.0
    assert complete_until(10.0, [7.0, 5.0]) == math.nextafter(5.0, 0.0)


class ScriptedFaults(FaultPlan):
    """Fails the requests that `fails` names, by the order of arrival."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.fails, self.arrived = fails, 0

    def draw(self, output_tokens: int) -> RequestFault:
        self.arrived += 1
        return RequestFault(status=500 if self.fails(self.arrived - 1) else None)


def in_virtual_time(workload: Workload, fails: Callable[[int], bool]) -> Observation:
    settings = parse_settings(["--model", "qwen3-0.6b"])
    server = VirtualServer(settings, start_engine(settings))
    server.faults = ScriptedFaults(fails)
    return server.drive(LoadStep(workload))


def in_real_time(serve: Callable[..., Server], workload: Workload, fails: Callable[[int], bool]) -> Observation:
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (status(500) if fails(request.number) else complete)(request, writer)

    return measure(Endpoint(serve(behave).url, "m"), POINT, workload, salt="s", on_phase=lambda phase: None)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fails", "reason", "errors"),
    [
        (lambda number: True, r"The last [56] requests failed: http-500\.", {"http-500": 5}),
        (lambda number: 2 < number < 12, None, {None: 11, "http-500": 9}),
        (lambda number: number % 3 == 0, None, {None: 13, "http-500": 7}),
    ],
    ids=["always", "for a while", "every third"],
)
def test_real_and_virtual_time_decide_alike(serve, fails, reason, errors):
    workload = Workload((POINT,), duration=30.0, warmup=0.0, max_requests=20, request_timeout=5.0)
    for observed in (in_virtual_time(workload, fails), in_real_time(serve, workload, fails)):
        counted = Counter(record.error for record in observed.records if record.index >= 0)
        if reason is None:
            assert (observed.abort_reason, counted) == (None, errors)
        else:  # the second user's request may fail in the same instant
            assert re.match(reason, observed.abort_reason or "")
            assert counted.keys() == errors.keys()
