"""Set up the Slurm of the tests marked `hosts`, from nothing on a bare Debian: `setup_slurm.py HOME`.

Debian's packages are downloaded and unpacked under HOME, not installed, so that no service of theirs starts. Libraries
that this machine lacks are unpacked beside them. A second call does nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins")
LIBRARIES = (
    "libdbus-1-3",
    "libhwloc15",
    "libjson-c5",
    "liblua5.1-0",
    "liblz4-1",
    "libmunge2",
    "libnuma1",
    "libpam0g",
    "libreadline8",
    "libyaml-0-2",
)
COMPLETE = "complete"


def run(*command: str, folder: Path) -> None:
    sys.stdout.write("+ " + " ".join(command) + "\n")
    sys.stdout.flush()
    subprocess.run(command, check=True, cwd=folder, timeout=300)


def main(home: Path) -> None:
    """Download and unpack what is missing."""
    if (home / COMPLETE).exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    packages = home / "packages"
    packages.mkdir(parents=True)
    run("apt-get", "update", "-qq", folder=packages)
    run("apt-get", "download", "-qq", *PACKAGES, *LIBRARIES, folder=packages)
    for package in sorted(packages.glob("*.deb")):
        run("dpkg", "-x", str(package), str(home / "root"), folder=packages)
    shutil.rmtree(packages)
    (home / COMPLETE).touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
