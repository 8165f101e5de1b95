"""Set the real packages of Dynamo up from nothing: `python setup_dynamo.py FOLDER`.

FOLDER/planner-0.9.1 has the planner that interpolates profiles, FOLDER/serving-1.6.1 the frontend, the
mocker, and the planner that fits lines.
A second run in the same folder does nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON = shutil.which("python3.11") or sys.executable
PLANNER = ["ai-dynamo==0.9.1", "scipy"]
REPLICAS = ["pandas", "pmdarima", "filterpy", "prometheus-api-client", "prophet"]
"""What only the computation of replicas imports, and no dependency of the package names."""
SERVING = ["aiohttp<4", "certifi", "msgspec", "prometheus-client<1", "pyzmq", "redis<9", "tqdm", "transformers>=4.56"]
SERVING += ["zstandard<1", "numpy", "scipy", "pydantic>=2.10.6,<=2.13.5", "uvloop", "pyyaml", "psutil", "jinja2"]
SERVING += ["kubernetes>=32.0.1,<33", "pandas", "matplotlib", "plotext<6", "prettytable", "aiofiles"]
SERVING += ["scikit-learn"]
RUNTIME = ["ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"]
"""Without their dependencies: one of them is a stub that needs another host, and only the profiler imports it."""


def run(*command: str | Path) -> None:
    """Run a command, shown first; a failure ends the set-up."""
    sys.stdout.write("+ " + " ".join(map(str, command)) + "\n")
    sys.stdout.flush()
    subprocess.run([str(part) for part in command], check=True)


def make_environment(folder: Path, *installs: list[str]) -> None:
    """A virtual environment with packages, installed in turns; nothing where one is complete."""
    complete = folder / "complete"
    if complete.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    run(PYTHON, "-m", "venv", folder)
    pip = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for packages in installs:
        run(*pip, *packages)
    complete.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    only_binary = ["--only-binary", ":all:"]
    make_environment(folder / "planner-0.9.1", [*only_binary, *PLANNER], REPLICAS)
    make_environment(folder / "serving-1.6.1", [*only_binary, *SERVING], ["--no-deps", *RUNTIME])
    sys.stdout.write(f"AUTOTUNE_TEST_DYNAMO={folder}\n")


if __name__ == "__main__":
    main()
