"""`autotune trace` of servers that write files when their profiler stops."""

import json
from pathlib import Path

import pytest

from tests.servers import complete, status

TRACE = "1-TP-0.trace.json.gz"


class ProfiledServer:
    """Answers completions and the routes of a profiler, which writes to `folder`, or where it is asked to."""

    def __init__(self, folder: Path | None = None, *, answers=complete) -> None:
        self.folder, self.answers = folder, answers
        self.events: list[str] = []

    async def behave(self, request, writer) -> None:
        name = request.path.rpartition("/")[2]
        if not name.endswith("_profile"):
            self.events.append("request")
            await self.answers(request, writer)
            return
        self.events.append(name)
        if name == "start_profile":
            self.folder = self.folder or Path(request.body["output_dir"])
        elif self.folder is not None:
            (self.folder / TRACE).write_bytes(b"trace")
            (self.folder / "unrelated.log").write_bytes(b"")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def traced(autotune, serve):
    """Trace a scripted server; what the command ended with."""

    def run(server: ProfiledServer, *arguments: str):
        url = serve(server.behave).url
        return autotune("trace", url, "--model", "m", "--requests", "3", "--isl", "8", "--osl", "2", *arguments)

    return run


def test_the_profiler_is_on_while_the_load_runs_and_its_file_is_collected(traced, tmp_path):
    server = ProfiledServer()
    ended = traced(server)
    assert ended.code == 0, ended.err
    start, stop = server.events.index("start_profile"), server.events.index("stop_profile")
    assert server.events[start + 1 : stop] == ["request"] * 3
    assert ended.out.split() == [f"trace/{TRACE}"]
    assert (tmp_path / "trace" / TRACE).read_bytes() == b"trace"
    assert "ui.perfetto.dev" in ended.err


def test_new_files_of_the_servers_own_folder_are_copied(traced, tmp_path):
    folder = tmp_path / "of-the-server"
    folder.mkdir()
    (folder / "0-TP-0.trace.json.gz").write_bytes(b"of another day")
    ended = traced(ProfiledServer(folder), "--server-folder", str(folder), "-o", "here", "--json")
    assert ended.data == {"files": [f"here/{TRACE}"], "requests": 3}
    assert [path.name for path in (tmp_path / "here").iterdir()] == [TRACE]


def test_a_folder_without_a_trace_says_where_engines_write(traced, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    ended = traced(ProfiledServer(tmp_path / "elsewhere"), "--timeout", "1")
    assert ended.code == 3
    error = " ".join(ended.err.split())
    assert "wrote no trace to trace" in error
    assert "--server-folder" in error


def test_a_load_that_fails_is_an_error_and_the_profiler_is_stopped(traced, tmp_path):
    server = ProfiledServer(tmp_path, answers=status(503, "overloaded"))
    ended = traced(server)
    assert ended.code == 3
    assert "overloaded" in ended.err or "503" in ended.err
    assert server.events.count("start_profile") == server.events.count("stop_profile")


def test_the_workers_behind_a_router_are_profiled_and_all_are_stopped_if_one_cannot_be(autotune, serve, tmp_path):
    router, first = ProfiledServer(tmp_path), ProfiledServer(tmp_path)
    workers = ("--worker", serve(first.behave).url, "--worker", serve(status(404)).url)
    ended = autotune("trace", serve(router.behave).url, "--model", "m", *workers)
    assert ended.code == 3
    assert "not started for it" in ended.err
    assert first.events == ["start_profile", "stop_profile"]
    assert "start_profile" not in router.events
    both = ("--worker", serve(first.behave).url, "--worker", serve(ProfiledServer(tmp_path).behave).url)
    ended = autotune("trace", serve(router.behave).url, "--model", "m", *both, "--server-folder", str(tmp_path))
    assert ended.code == 0, ended.err
    assert json.dumps(TRACE)[1:-1] in ended.out
