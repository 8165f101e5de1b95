"""The page to pick workers, as browsers and others ask for it."""

import http.client
import json
import threading

import pytest

from autotuner.errors import RunStoreError
from autotuner.profiling.pick import chosen_pair
from autotuner.profiling.pick_server import PickServer
from autotuner.profiling.session import open_profile, prepare, profile
from autotuner.report.page.loopback_server import TOKEN_HEADER
from tests.profiling.points import sla_request

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A predicted profile whose folder has a hostile name."""
    path = tmp_path_factory.mktemp("picks") / HOSTILE.replace("/", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
        profile(prepare(sla_request()), path)
    return path


@pytest.fixture
def server(folder):
    with PickServer(folder) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.stop()
        thread.join()


def ask(server, path="/", method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(
        method, path, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    answer = connection.getresponse()
    return answer, answer.read().decode()


def chosen(folder):
    pair = chosen_pair(open_profile(folder))
    requests = pair.decode.point.concurrency
    return {"prefill": pair.prefill.mapping.name, "decode": pair.decode.mapping.name, "requests": requests}


def query(values):
    return "&".join(f"{name}={value}" for name, value in values.items())


def test_the_page_is_complete_without_scripts_and_hostile_names_are_text(server):
    answer, text = ask(server)
    assert answer.status == 200
    assert "PREDICTED, NOT MEASURED" in text
    assert "Nothing is picked yet." in text
    assert "kind: DynamoGraphDeployment" in text
    assert "<img" not in text
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/pair", "/manifest", "/pick"])
def test_a_foreign_host_is_refused(server, path):
    assert ask(server, path, Host="evil.invalid")[0].status == 403


def test_a_pair_is_shown_and_its_manifest_downloaded_and_neither_picks(server, folder):
    shown = json.loads(ask(server, f"/pair?{query(chosen(folder))}")[1])
    assert shown[1]["id"] == "pair"
    answer, text = ask(server, f"/manifest?{query(chosen(folder))}")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="picked_deployment.yaml"'
    assert "DynamoGraphDeployment" in text
    assert not (folder / "picked.json").exists()


@pytest.mark.parametrize(
    "path", ["/pair", "/pair?prefill=a&decode=b&requests=1", "/request.json", "/manifest?requests=-1"]
)
def test_what_the_profile_has_not_is_not_found(server, path):
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize("headers", [{}, {TOKEN_HEADER: "wrong"}, {"Origin": "http://evil.invalid"}])
def test_a_pick_that_is_not_from_the_page_is_refused(server, folder, headers):
    given = dict(headers) if TOKEN_HEADER in headers or not headers else {**headers, TOKEN_HEADER: server.token}
    assert ask(server, "/pick", "POST", json.dumps(chosen(folder)), **given)[0].status == 403
    assert not (folder / "picked.json").exists()


@pytest.mark.parametrize("body", ["", "[1]", "{", '{"prefill": 1}', "[" * 9000, "x" * 20_000])
def test_a_damaged_pick_changes_nothing(server, folder, body):
    answer, _ = ask(server, "/pick", "POST", body, **{TOKEN_HEADER: server.token})
    assert answer.status in (400, 404, 413)
    assert not (folder / "picked.json").exists()


def test_a_confirmed_pick_is_written_and_said(server, folder):
    try:
        answer, text = ask(server, "/pick", "POST", json.dumps(chosen(folder)), **{TOKEN_HEADER: server.token})
        assert answer.status == 200
        assert json.loads(text)["files"] == ["picked.json", "picked_deployment.yaml"]
        assert [path.name for path in server.picked] == json.loads(text)["files"]
        assert "Picked at" in ask(server)[1]
    finally:
        (folder / "picked.json").unlink(missing_ok=True)


def test_a_server_that_ends_with_the_pick_ends(folder):
    with PickServer(folder, ends_with_pick=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        ask(server, "/pick", "POST", json.dumps(chosen(folder)), **{TOKEN_HEADER: server.token})
        thread.join(60)
        assert not thread.is_alive()
    (folder / "picked.json").unlink()


def test_a_folder_without_a_profile_has_no_page(tmp_path):
    with pytest.raises(RunStoreError, match="not the folder of an SLA profile"):
        PickServer(tmp_path)
