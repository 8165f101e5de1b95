"""Set up what the tests marked `docker` need, from nothing on a bare Debian, as root: `setup_docker.py FOLDER`.

Installs Docker and Compose where they are missing, starts a daemon where none answers, and makes
an image of a minimal Debian without a registry. Ends with an error when the daemon cannot start.
`--vllm FOLDER` sets a real vLLM up there meanwhile: the one waits for packages, the other computes. `--stop`
ends the daemon that an earlier call started in FOLDER. A second call does only what is still missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.real import setup_vllm

IMAGE = os.environ.get("AUTOTUNE_TEST_IMAGE", "autotune-test/base:1")
SUITE = "bookworm"
# what a real vLLM loads at run time, beside an interpreter
PACKAGES = "python3,libnuma1,libgomp1,libstdc++6"
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
}
SYSTEM = "/usr/sbin:/sbin:/usr/bin:/bin"
WAIT = 60
"""Seconds a daemon gets to answer."""


def say(text: str) -> None:
    """Write one line for whoever reads the build's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(*command: str | Path) -> None:
    """Run a command, shown first; a failure ends the set-up."""
    say("+ " + " ".join(map(str, command)))
    subprocess.run([str(part) for part in command], check=True)


def install() -> None:
    """Install the programs that are missing."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def answers() -> bool:
    """Whether a daemon answers."""
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


def start(folder: Path) -> None:
    """Start a daemon with all its files in `folder`, unless one answers."""
    if answers():
        return
    log = folder / "dockerd.log"
    with log.open("ab") as output:
        options = ("--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "docker.pid")
        daemon = subprocess.Popen(
            ["dockerd", *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + WAIT
    while not answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"Docker cannot start on this machine, so the docker tests cannot run.\n{tail}")
        time.sleep(0.2)
    say(f"dockerd runs as process {daemon.pid}; its log is {log}")


def stop(folder: Path) -> None:
    """End the daemon that was started in `folder`."""
    file = folder / "docker.pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    os.kill(pid, signal.SIGTERM)
    while file.exists():
        time.sleep(0.1)
    say(f"dockerd, process {pid}, ended")


def make_image(folder: Path) -> None:
    """Import a minimal Debian as an image, unless there is one."""
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode == 0:
        return
    root = folder / "rootfs"
    if not (root / "usr" / "bin" / "python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root)
    say(f"+ tar -C {root} -c . | docker import - {IMAGE}")
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", IMAGE], stdin=tar.stdout, check=True)
    if tar.returncode != 0:
        raise SystemExit("The image's files could not be read.")


def main() -> None:
    """Read the folder from the command line and set up in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vllm", type=Path, metavar="FOLDER")
    parser.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    os.environ["PATH"] = f"{os.environ['PATH']}:{SYSTEM}"
    if options.stop:
        stop(folder)
        return
    if os.geteuid() != 0:
        raise SystemExit("Setting Docker up needs root.")
    folder.mkdir(parents=True, exist_ok=True)
    install()
    if options.vllm:
        setup_vllm.install_system_packages()  # apt cannot run twice at once
    with ThreadPoolExecutor() as pool:
        vllm = pool.submit(set_up_vllm, options.vllm.resolve()) if options.vllm else None
        start(folder)
        make_image(folder)
        if vllm is not None:
            vllm.result()
    say(f"AUTOTUNE_TEST_IMAGE={IMAGE}")


def set_up_vllm(folder: Path) -> None:
    """Make vLLM and its model in a folder, where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    setup_vllm.set_up(folder)


if __name__ == "__main__":
    main()
