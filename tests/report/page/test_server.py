"""The page served on loopback: who is answered, what is served, and news of a run that goes on."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest

from autotuner.errors import MachineError
from autotuner.report.page.live_page import LivePage
from autotuner.report.page.loopback_server import TOKEN_HEADER
from autotuner.report.page.run_files import is_locked, run_state
from autotuner.report.page.server import PageServer
from tests.pages import make_run_folder, run_trials, write_trial


@contextmanager
def served(store):
    with PageServer(store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def server(run_folder):
    with served(run_folder) as running:
        yield running


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    return answer, answer.read().decode()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_page_is_answered_under_its_own_names(server, name):
    answer, text = ask(server, Host=f"{name}:{server.server_port}")
    assert (answer.status, text.startswith("<!DOCTYPE html>")) == (200, True)


@pytest.mark.parametrize("path", ["/", "/events", "/launches/1"])
@pytest.mark.parametrize("host", ["evil.invalid", "evil.invalid:80", "127.0.0.1", "127.0.0.1.evil.invalid:80", ""])
def test_a_foreign_host_is_refused(server, path, host):
    answer, text = ask(server, path, Host=host)
    assert answer.status == 403
    assert "tiny-model" not in text


@pytest.mark.parametrize(
    "headers", [{}, {"token": "wrong"}, {"Origin": "http://evil.invalid"}, {"Host": "evil.invalid"}]
)
def test_a_post_that_is_not_from_the_page_is_refused(server, headers):
    token = headers.pop("token", None) if "token" in headers else server.token if headers else None
    given = dict(headers) | ({TOKEN_HEADER: token} if token else {})
    assert ask(server, "/", "POST", **given)[0].status == 403


def test_a_post_of_the_page_passes_and_finds_nothing_to_change(server):
    own = {TOKEN_HEADER: server.token, "Origin": f"http://127.0.0.1:{server.server_port}"}
    assert ask(server, "/anything", "POST", **own)[0].status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/experiment.yaml",
        "/../experiment.yaml",
        "/launches/",
        "/launches/..%2f1",
        "/launches/99",
        "/launches/%C2%B2",
        "/launches/-1",
    ],
)
def test_paths_name_no_files(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest("GET", path)
    connection.endheaders()
    assert connection.getresponse().status in (400, 404)


def test_answers_forbid_frames_foreign_scripts_and_caching(server):
    answer, _ = ask(server)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_launch_has_the_checks_it_refers_to_and_a_long_log(server):
    launch = json.loads(ask(server, "/launches/2")[1])
    detail = launch["trials"]["2"]
    assert len(detail["log"]) == 60
    assert all(limit < len(launch["limits"]) for point in detail["points"] for limit, _, _ in point["checks"])
    assert detail["timelines"]


def events(server, version=""):
    """The versions and data of events, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("GET", f"/events?version={version}")
    answer = connection.getresponse()
    fields: dict[str, str] = {}
    while True:
        line = answer.readline().decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield fields["id"], json.loads(fields["data"])
            fields = {}


def test_events_tell_each_change_of_the_folder_once(tmp_path):
    store = make_run_folder(tmp_path, candidates=1, finished=False)
    with served(store) as server:
        stream = events(server, LivePage(store).version())
        trial = run_trials(store.experiment, 3)[3]
        write_trial(store, type(trial)(9, trial.candidate, trial.measurement, trial.started, trial.ended))
        _, news = next(stream)
        assert len(news["content"]["candidates"]) == 3
        store.save_search("every candidate was tried", [], 3)
        version, news = next(stream)
        assert news["content"]["state"] == "finished"
        assert version == LivePage(store).version()
        assert "every candidate was tried" in json.dumps(news["sections"]["not-launched"])


def test_a_file_that_is_being_written_keeps_the_last_page(tmp_path):
    store = make_run_folder(tmp_path, candidates=1)
    live = LivePage(store)
    before = live.current()
    (store.path / "search.json").write_text('{"stopped"')
    assert live.current() is before
    store.save_search("patience", [], 1)
    assert live.current() is not before


def test_a_port_in_use_is_said(server, run_folder):
    with pytest.raises(MachineError, match="Address already in use"):
        PageServer(run_folder, server.server_port)


def test_a_run_is_running_while_a_process_holds_its_lock(tmp_path):
    store = make_run_folder(tmp_path, candidates=0, finished=False)
    assert run_state(store.path) == "interrupted"
    with store.lock():
        assert run_state(store.path) == "running"
    assert not is_locked(store.path / ".lock")
    store.save_search(None, [], 1)
    assert run_state(store.path) == "finished"
