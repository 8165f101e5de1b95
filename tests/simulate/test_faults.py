from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from autotuner.simulate.faults import FaultPlan, Faults

FAST = ("--model", "qwen3-0.6b", "--fixed-step-ms", "1")
BODY = {"prompt": [1, 2, 3], "max_tokens": 6}


def post(server, stream: bool = False) -> httpx.Response:
    response: httpx.Response = server.client.post("/v1/completions", json={**BODY, "stream": stream})
    return response


def test_it_dies_in_the_middle_of_the_request_after_n(serve):
    with serve(*FAST, "--fault-crash-after", "2") as server:
        assert [post(server).status_code for _ in range(2)] == [200, 200]
        with pytest.raises(httpx.HTTPError):
            post(server, stream=True)
        assert server.process.wait(60) == 139
        assert "Segmentation fault" in server.log.read_text()


def test_it_hangs_on_the_request_after_n_and_still_answers_health(serve):
    with serve(*FAST, "--fault-hang-after", "1") as server:
        assert post(server).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/completions", json=BODY, timeout=0.3)
        assert server.client.get("/health").status_code == 200


@pytest.mark.parametrize(("flag", "status"), [("rate-limited", 429), ("server-error", 500)])
def test_it_rejects_requests_with_a_status(serve, flag, status):
    with serve(*FAST, f"--fault-{flag}", "1") as server:
        response = post(server)
        assert response.status_code == status
        assert response.json()["error"]["code"] == status
        assert server.client.get("/health").status_code == 200


def test_a_malformed_stream_has_one_event_that_is_not_json(serve):
    with serve(*FAST, "--fault-malformed", "1") as server:
        blocks = [block.removeprefix("data: ") for block in post(server, stream=True).text.split("\n\n")[:-2]]
        malformed_events = 0
        for block in blocks:
            try:
                json.loads(block)
            except ValueError:
                malformed_events += 1
        assert (len(blocks), malformed_events) == (6, 1)
        with pytest.raises(ValueError):
            post(server).json()


def test_an_early_stop_is_shorter_and_says_stop(serve):
    with serve(*FAST, "--fault-early-stop", "1") as server:
        for _ in range(5):
            response = post(server).json()
            assert 1 <= response["usage"]["completion_tokens"] < 6
            assert response["choices"][0]["finish_reason"] == "stop"


def test_faults_are_drawn_from_the_seed_with_their_probabilities():
    def faults(seed: int, **rates: Any):
        plan = FaultPlan(Faults(**rates), seed)
        return [plan.draw(100) for _ in range(2000)]

    assert faults(1, rate_limited=0.3, malformed=0.2) == faults(1, rate_limited=0.3, malformed=0.2)
    assert faults(1, rate_limited=0.3) != faults(2, rate_limited=0.3)
    is_limited = [fault.status == 429 for fault in faults(3, rate_limited=0.3)]
    assert 0.26 < sum(is_limited) / 2000 < 0.34
    assert is_limited == [fault.status == 429 for fault in faults(3, rate_limited=0.3, early_stop=0.5)]


def test_rejected_requests_do_not_count_towards_a_crash():
    plan = FaultPlan(Faults(rate_limited=0.5, crash_after=3), seed=0)
    served = [fault for fault in (plan.draw(10) for _ in range(40)) if fault.status is None]
    assert [fault.crash for fault in served[:5]] == [False, False, False, True, True]


def test_an_early_stop_is_never_at_the_full_length():
    plan = FaultPlan(Faults(early_stop=1.0), seed=0)
    assert {plan.draw(4).stop_length for _ in range(200)} == {1, 2, 3}
    assert plan.draw(1).stop_length == 1
