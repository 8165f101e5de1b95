"""Servers as processes: nothing is left, whatever ends, and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.core import ServerSpec
from autotuner.launchers.process import ProcessLauncher, server_environment

pytestmark = pytest.mark.processes

Wait = Callable[[Callable[[], bool]], None]

SLEEP = "import time; time.sleep(600)"
FAMILY = """
import os, subprocess, sys, time
detached = {detached}
child = subprocess.Popen([sys.executable, "-S", "-c", {code!r}], start_new_session=detached)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def spec(*argv: str, port: int = 1, env: dict[str, str] | None = None) -> ServerSpec:
    return ServerSpec(None, argv, env or {}, (), port, "/health", "a-model")


def python(code: str) -> ServerSpec:
    return spec(sys.executable, "-S", "-c", code)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def family(*, detached: bool, code: str = SLEEP) -> str:
    return FAMILY.format(detached=detached, code=code)


def pids(log: Path, wait: Wait) -> list[int]:
    """The process ids a family wrote."""
    wait(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(word) for word in log.read_text().split()]


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("code", [SLEEP, IGNORES_TERM])
def test_children_and_runaways_end_with_the_server(log: Path, wait: Wait, detached: bool, code: str) -> None:
    with ProcessLauncher(grace=0.3).launch(python(family(detached=detached, code=code)), log) as server:
        family_pids = pids(log, wait)
        assert all(map(alive, family_pids))
        assert server.exit_status() is None
    assert not any(map(alive, family_pids))
    assert server.exit_status() == -signal.SIGTERM


def test_a_server_that_ignores_term_is_killed(log: Path, wait: Wait) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    with ProcessLauncher(grace=0.2).launch(python(code), log) as server:
        wait(lambda: log.read_text() == "1\n")
    assert server.exit_status() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("code", "exit_status"),
    [
        ("raise SystemExit(3)", 3),
        ("pass", 0),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
    ],
)
def test_the_end_of_a_server_is_seen_while_its_block_runs(log: Path, wait: Wait, code: str, exit_status: int) -> None:
    with ProcessLauncher().launch(python(code), log) as server:
        wait(lambda: server.exit_status() is not None)
        assert server.exit_status() == exit_status
    assert server.exit_status() == exit_status


def test_what_a_crashed_server_leaves_is_ended(log: Path, wait: Wait) -> None:
    with ProcessLauncher().launch(python(family(detached=False)), log):
        parent, child = pids(log, wait)
        os.kill(parent, signal.SIGKILL)
        wait(lambda: not alive(child))


def test_both_outputs_go_to_the_log(log: Path, wait: Wait) -> None:
    code = "import sys; print('said', flush=True); print('complained', file=sys.stderr)"
    with ProcessLauncher().launch(python(code), log) as server:
        wait(lambda: server.exit_status() is not None)
    assert log.read_text() == "said\ncomplained\n"


def test_a_command_that_is_not_there_says_so_in_the_log(log: Path, wait: Wait) -> None:
    with ProcessLauncher().launch(spec("/no/such/engine"), log) as server:
        wait(lambda: server.exit_status() is not None)
        assert server.exit_status() == 127
    assert log.read_text() == "/no/such/engine: No such file or directory\n"


def test_a_server_gets_its_own_settings_and_the_callers_environment(
    log: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_THE_CALLER", "1")
    code = "import os; print(os.environ['FROM_THE_CALLER'], os.environ['OF_THE_SERVER'])"
    with ProcessLauncher().launch(spec(sys.executable, "-c", code, env={"OF_THE_SERVER": "2"}), log) as server:
        wait(lambda: server.exit_status() is not None)
    assert log.read_text() == "1 2\n"


def test_a_server_is_out_of_reach_of_the_terminals_signals(log: Path, wait: Wait) -> None:
    code = "import os; print(os.getpid(), os.getsid(0), os.getpgid(0), flush=True); import time; time.sleep(600)"
    with ProcessLauncher().launch(python(code), log):
        pid, session, group = pids(log, wait)
    assert pid == session == group != os.getsid(0)


def test_a_server_runs_at_the_priority_that_the_printed_command_would_have(log: Path, wait: Wait) -> None:
    code = "import os; print(os.nice(0), os.sched_getscheduler(0), *open('/proc/self/autogroup').read().split()[1:])"
    with ProcessLauncher().launch(python(code), log) as server:
        wait(lambda: server.exit_status() is not None)
    nice, scheduler, *session = log.read_text().split()
    assert int(nice) == os.nice(0)
    assert int(scheduler) == os.sched_getscheduler(0)
    assert session in ([], ["nice", "0"])


TOOL = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background passes an ignored one on
from pathlib import Path
from autotuner.core import ServerSpec
from autotuner.launchers.process import ProcessLauncher
spec = ServerSpec(None, (sys.executable, "-S", "-c", {code!r}), {{}}, (), 1, "/health", "m")
with ProcessLauncher(grace=1).launch(spec, Path({log!r})):
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_tool_that_is_killed(log: Path, wait: Wait, number: signal.Signals) -> None:
    code = TOOL.format(code=family(detached=True), log=str(log))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as tool:
        family_pids = pids(log, wait)
        tool.send_signal(number)
        tool.wait()
    wait(lambda: not any(map(alive, family_pids)))


def test_a_server_whose_keeper_is_killed_ends_too(log: Path, wait: Wait) -> None:
    with ProcessLauncher().launch(python(family(detached=False)), log) as server:
        parent, child = pids(log, wait)
        keeper = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        wait(lambda: server.exit_status() is not None)
        assert server.exit_status() == -signal.SIGKILL
    wait(lambda: not alive(parent) and not alive(child))


def test_no_file_descriptor_is_left_open(log: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with ProcessLauncher().launch(python(SLEEP), log):
            pass
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert server_environment({})["no_proxy"] == "example.org"
    env = server_environment({"HTTPS_PROXY": "http://proxy:3128"})
    assert env["no_proxy"] == "example.org,localhost,127.0.0.1,::1"
    assert env["NO_PROXY"] == "localhost,127.0.0.1,::1"
