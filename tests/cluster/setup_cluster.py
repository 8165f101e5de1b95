"""Build a real Kubernetes control plane from nothing on Debian 12, as root: `python setup_cluster.py FOLDER`.

Debian's own source package of Kubernetes 1.20.2, the last one that is whole, is built with Debian's Go 1.15, with
which that release was made: newer ones build it, and it crashes. All packages are unpacked in FOLDER and none is
installed. A second call with the same folder does nothing. Exits with 3 where the mirror that apt is configured with
lacks one of the packages, and with 1 where the build fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VERSION = "1.20.2"
SUITES = ("bookworm", "bullseye")
"""Kubernetes and etcd are in the first, Go 1.15 in the second."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("etcd-server", "rsync", "libpopt0", "libxxhash0", "jq", "libjq1", "libonig5")
GO_PACKAGES = ("golang-1.15-go", "golang-1.15-src")
PROGRAMS = ("kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubectl")
UNAVAILABLE_STATUS = 3
LOG_LINES = 40


class UnavailableError(Exception):
    """The mirror does not have what a control plane is built from."""


def say(text: str) -> None:
    """Write one line for whoever reads the build's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def mirror() -> str:
    """The address of the Debian archive that this machine's apt is configured with."""
    fields = "$(SITE)|$(RELEASE)|$(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        site, release, component = line.split("|")
        if (release, component) == (SUITES[0], "main"):
            return site
    raise UnavailableError(f"apt is not configured for Debian {SUITES[0]}.")


class Apt:
    """apt with a configuration of its own, so that the machine's stays as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site = mirror()
        for name in ("state/lists/partial", "cache/archives/partial", "downloads"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        option = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
        entries = [*(("deb", suite) for suite in SUITES), ("deb-src", SUITES[0])]
        sources = [f"{kind} {option}{site} {suite} main\n" for kind, suite in entries]
        (folder / "sources.list").write_text("".join(sources))
        (folder / "state" / "status").touch()
        self.options = [
            f"-oDir::Etc::sourcelist={folder / 'sources.list'}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State={folder / 'state'}",
            f"-oDir::State::status={folder / 'state' / 'status'}",
            f"-oDir::Cache={folder / 'cache'}",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Retries=3",
            "-qq",
        ]

    def get(self, *arguments: str) -> Path:
        """Run apt-get in the folder of downloads, and return that folder; UnavailableError if it fails."""
        say(f"+ apt-get {' '.join(arguments)}")
        downloads = self.folder / "downloads"
        done = subprocess.run(
            ["apt-get", *self.options, *arguments], cwd=downloads, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UnavailableError(done.stderr.strip() or f"apt-get ended with {done.returncode}.")
        return downloads


def fetch(home: Path) -> None:
    """Unpack the packages into `home/root` and the source into `home/source`; UnavailableError without them."""
    apt = Apt(home / "apt")
    apt.get("update")
    downloads = apt.get("download", *(f"{name}/{SUITES[0]}" for name in PACKAGES), *GO_PACKAGES)
    apt.get("source", "--download-only", f"kubernetes/{SUITES[0]}")
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, home / "root"], check=True)
    source = home / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    [archive] = downloads.glob("kubernetes_*.orig.tar.*")
    subprocess.run(["tar", "-xf", archive, "-C", source, "--strip-components=1"], check=True)


def build_environment(home: Path) -> Mapping[str, str]:
    """The environment of the build: Go 1.15, no module downloads, and the version that the programs tell."""
    root, source = home / "root", home / "source"
    go = root / "usr" / "lib" / "go-1.15"
    version = home / "version.sh"
    major, minor, _ = VERSION.split(".")
    version.write_text(
        f"KUBE_GIT_COMMIT=debian\nKUBE_GIT_TREE_STATE=archive\nKUBE_GIT_VERSION=v{VERSION}\n"
        f"KUBE_GIT_MAJOR={major}\nKUBE_GIT_MINOR={minor}\n"
    )
    return {
        "PATH": f"{go / 'bin'}:{root / 'usr' / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH": str(root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"),
        "HOME": str(home),
        "GOROOT": str(go),
        "GOPATH": str(source / ".go"),
        "GOCACHE": str(home / "go-cache"),
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOFLAGS": f"-p={os.cpu_count() or 1}",
        "KUBE_GIT_VERSION_FILE": str(version),
    }


def build(home: Path) -> None:
    """Build the programs into `home/bin`; the output of the build is `home/build.log`."""
    source = home / "source"
    link = source / ".go" / "src" / "k8s.io" / "kubernetes"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../..")
    (home / "bin").mkdir(exist_ok=True)
    environment = build_environment(home)
    log = home / "build.log"
    with log.open("ab") as output:
        for name in PROGRAMS:
            say(f"+ make WHAT=cmd/{name}")
            command = ["make", f"WHAT=cmd/{name}"]
            done = subprocess.run(command, cwd=source, env=environment, stdout=output, stderr=output, check=False)
            if done.returncode != 0:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
                raise SystemExit(f"{tail}\n{name} {VERSION} cannot be built; the whole log is {log}.")
            built = source / "_output" / "local" / "go" / "bin" / name
            shutil.copy2(built, home / "bin" / name)
    etcd = home / "root" / "usr" / "bin" / "etcd"
    shutil.copy2(etcd, home / "bin" / "etcd")


def set_up(home: Path) -> None:
    """Make what is missing in `home`, and leave only the programs."""
    finished = home / f"built-{VERSION}"
    if finished.exists():
        return
    fetch(home)
    build(home)
    for name in ("apt", "root", "source", "go-cache"):
        shutil.rmtree(home / name, ignore_errors=True)
    finished.touch()


def main() -> int:
    """Read the folder from the command line and set up in it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    home = parser.parse_args().folder.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        set_up(home)
    except UnavailableError as error:
        say(f"A real Kubernetes control plane cannot be had here: {error}")
        return UNAVAILABLE_STATUS
    say(f"AUTOTUNE_TEST_CLUSTER={home}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
