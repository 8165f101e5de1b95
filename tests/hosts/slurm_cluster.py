"""A real Slurm of one node on loopback: its controller and its node's daemon, as processes of the tests."""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

HOME_VARIABLE = "AUTOTUNE_TEST_SLURM"
"""Names the folder that setup_slurm.py has made."""

NODE = "localhost"
GPUS = 4
START_SECONDS = 60.0
STOP_SECONDS = 30.0

CONFIGURATION = """\
ClusterName=autotune-tests
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000
MpiDefault=none
SwitchType=switch/none
ReturnToService=0
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=10
OverTimeLimit=0
MinJobAge=300
Licenses=gpu:{gpus}
NodeName={node} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=gpu Nodes={node} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class SlurmCluster:
    """Debian's Slurm from `home`, with its files in `folder`; GPUs are licences, of which a job asks for some."""

    def __init__(self, home: Path, folder: Path, ctld_port: int, slurmd_port: int) -> None:
        self.root = home / "root"
        self.folder = folder
        self.ports = ctld_port, slurmd_port
        self._daemons: list[tuple[str, subprocess.Popen[bytes]]] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to use this Slurm."""
        libraries = self.root / "usr" / "lib" / "x86_64-linux-gnu"
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
            "PATH": f"{self.root}/usr/bin:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start both daemons, and wait until the node takes jobs; RuntimeError with their words if it does not."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(
            node=NODE,
            folder=self.folder,
            ctld_port=self.ports[0],
            slurmd_port=self.ports[1],
            user="root" if os.geteuid() == 0 else os.environ.get("USER", "root"),
            plugins=self.root / "usr" / "lib" / "x86_64-linux-gnu" / "slurm-wlm",
            gpus=GPUS,
        )
        (self.folder / "slurm.conf").write_text(text)
        programs = self.root / "usr" / "sbin"
        self._start("slurmctld", str(programs / "slurmctld-wlm"), "-D", "-c")
        self._start("slurmd", str(programs / "slurmd-wlm"), "-D", "-N", NODE, "-d", str(programs / "slurmstepd-wlm"))
        deadline = time.monotonic() + START_SECONDS
        while self.node_state() != "idle":
            ended = [name for name, daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.*")))
                self.stop()
                raise RuntimeError(f"Slurm did not start; ended: {ended}\n{logs}")
            time.sleep(0.2)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **self.environment}
            )
        self._daemons.append((name, daemon))

    def stop(self) -> None:
        """Cancel all jobs and end both daemons."""
        if all(daemon.poll() is None for _, daemon in self._daemons):
            self.restore()
        for _, daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def restore(self) -> None:
        """Cancel all jobs, and let the node take jobs again."""
        self.command("scancel", "--me", check=False)
        self.wait_for_end_of_jobs()
        deadline = time.monotonic() + STOP_SECONDS
        while self.node_state() != "idle" and time.monotonic() < deadline:
            self.command("scontrol", "update", f"nodename={NODE}", "state=resume", check=False)
            time.sleep(0.5)

    def wait_for_end_of_jobs(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until no job waits or runs: one that has left its result takes a moment to end."""
        deadline = time.monotonic() + seconds
        while self.active_jobs() and time.monotonic() < deadline:
            time.sleep(0.2)

    def update_node(self, state: str, reason: str = "") -> None:
        """Drain, end or resume the node, as an administrator does."""
        self.command(
            "scontrol", "update", f"nodename={NODE}", f"state={state}", *([f"reason={reason}"] if reason else [])
        )

    def command(self, *command: str, check: bool = True) -> str:
        """The output of one of Slurm's commands."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=check, timeout=60
        ).stdout.strip()

    def node_state(self) -> str:
        return self.command("sinfo", "--noheader", "--format=%T", check=False)

    def all_jobs(self) -> list[dict[str, str]]:
        """What the controller knows of each job, ended ones included."""
        output = self.command("scontrol", "--oneliner", "show", "job", check=False)
        return [dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line)) for line in output.splitlines() if "JobId=" in line]

    def active_jobs(self) -> list[str]:
        """The ids of the jobs that wait or run."""
        return self.command("squeue", "--noheader", "--format=%i", check=False).split()


def is_set_up() -> bool:
    """Whether the tests are given a real Slurm."""
    return HOME_VARIABLE in os.environ


@contextmanager
def shared() -> Iterator[SlurmCluster]:
    """The one Slurm of these tests, which starts once; in the block its commands are those of this process."""
    cluster = _shared_cluster()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster


@cache
def _shared_cluster() -> SlurmCluster:
    home = Path(os.environ.get(HOME_VARIABLE, ""))
    if not (home / "root").is_dir():
        pytest.fail(f"{HOME_VARIABLE} must name the folder of setup_slurm.py; `nox -s hosts` makes and sets it")
    with ExitStack() as on_exit:
        folder = on_exit.enter_context(tempfile.TemporaryDirectory(prefix="autotune-slurm-"))
        cluster = SlurmCluster(home, Path(folder), *_free_ports(2))
        on_exit.callback(cluster.stop)
        cluster.start()
        atexit.register(on_exit.pop_all().close)
    return cluster


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
