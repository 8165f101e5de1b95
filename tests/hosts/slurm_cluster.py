"""A real Slurm of one node on loopback: its controller and its node's daemon, as processes of the tests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

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
ReturnToService=2
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
            self.command("scancel", "--me", check=False)
            deadline = time.monotonic() + STOP_SECONDS
            while self.active_jobs() and time.monotonic() < deadline:
                time.sleep(0.2)
        for _, daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def command(self, *command: str, check: bool = True) -> str:
        """The output of one of Slurm's commands."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=check, timeout=60
        ).stdout.strip()

    def node_state(self) -> str:
        return self.command("sinfo", "--noheader", "--format=%T", check=False)

    def active_jobs(self) -> list[str]:
        """The ids of the jobs that wait or run."""
        return self.command("squeue", "--noheader", "--format=%i", check=False).split()
