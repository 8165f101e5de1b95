from __future__ import annotations

import subprocess
import sys

import pytest

from autotuner.core import LoadPoint, RequestForm, Workload
from autotuner.endpoints.address import Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.endpoints.tls import TlsTrust
from autotuner.errors import ConfigError
from autotuner.load.job import Job, request_head


def test_a_job_survives_the_way_to_its_worker():
    point = LoadPoint("D(5,5)", rate=2.5)
    tls = TlsTrust("/ca.pem", insecure=True)
    endpoint = Endpoint("http://h:1", "m", {"Authorization": "Bearer é"}, 999, tls=tls)
    form = RequestForm("text", "max_completion_tokens", ("ignore_eos",), {"a": {"b": [1, None]}})
    workload = Workload(
        (LoadPoint("D(9,9)", concurrency=1), point),
        duration=3.0,
        max_requests=7,
        endpoint="chat",
        max_in_flight=4,
        request_form=form,
    )
    fit = ChatTokenFit(1.0, 2.0, 3.0, ("a", "b"))
    job = Job(endpoint, workload.for_load_point(point), "s", "/f", worker_index=1, worker_count=2, token_fit=fit)
    assert Job.from_json(job.to_json()) == job
    assert job.load_point == point
    assert "\n" not in job.to_json()


def test_the_request_head_has_the_route_the_host_and_the_users_headers():
    head = request_head(Endpoint("http://h:81/x/v1", "m", {"Authorization": "Bearer k"}), "chat").decode()
    assert head.startswith("POST /x/v1/chat/completions HTTP/1.1\r\n")
    assert "\r\nHost: h:81\r\n" in head
    assert "\r\nAuthorization: Bearer k\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert head.endswith("\r\nContent-Length: ")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", "/v1/chat/completions"),
        ("http://h/v3?api-version=2", "/v3/chat/completions?api-version=2"),
        ("http://h/api/paas/v4/", "/api/paas/v4/chat/completions"),
        ("http://h/v1/chat/completions?a=b", "/v1/chat/completions?a=b"),
        ("http://h/chat/completions", "/chat/completions"),
    ],
)
def test_the_request_goes_to_the_path_of_the_address_with_its_query(url: str, target: str) -> None:
    assert request_head(Endpoint(url, "m"), "chat").decode().startswith(f"POST {target} HTTP/1.1\r\n")


def test_a_header_with_a_line_break_is_refused():
    with pytest.raises(ConfigError, match="line break"):
        request_head(Endpoint("http://h", "m", {"X": "a\r\nY: b"}), "completions")


@pytest.mark.processes
def test_the_worker_imports_nothing_heavy():
    heavy = "numpy pandas pydantic rich typer httpx docker matplotlib statistics email autotuner.traces.reader"
    code = f"import sys, autotuner.load.worker; print(*(set({heavy.split()!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
