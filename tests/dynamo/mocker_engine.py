#!/usr/bin/env python3
"""Dynamo's mocker in the place of the simulated engine's Python, so that `autotune sla run` launches it by mapping.

Called with the arguments of the simulated server, it serves the profile of --tp-size on --port. The environment says
where everything is: MOCKER_ENVIRONMENT, MOCKER_MODEL, MOCKER_PROFILES with tp1.npz, tp2.npz, ..., MOCKER_BLOCKS, the
KV blocks of 64 tokens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.dynamo.serve_and_run import frontend_command, mocker_command, serving_settings

BLOCK_TOKENS = 64


def main() -> int:
    """The exit status of the mocker."""
    arguments = dict(zip(sys.argv, sys.argv[1:], strict=False))
    environment, model = os.environ["MOCKER_ENVIRONMENT"], os.environ["MOCKER_MODEL"]
    profile = Path(os.environ["MOCKER_PROFILES"], f"tp{arguments.get('--tp-size', '1')}.npz")
    blocks = os.environ["MOCKER_BLOCKS"]
    name = arguments.get("--served-model-name") or arguments["--model"]
    mocker = ["--planner-profile-data", str(profile), "--block-size", str(BLOCK_TOKENS)]
    mocker += ["--num-gpu-blocks-override", blocks, "--max-num-batched-tokens", "32768"]
    sys.stdout.write(f"KV cache size: {int(blocks) * BLOCK_TOKENS} tokens\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        settings = serving_settings(folder)
        frontend = subprocess.Popen(frontend_command(environment, arguments["--port"]), env=settings)
        try:
            return subprocess.run(
                mocker_command(environment, model, name, mocker), env=settings, check=False
            ).returncode
        finally:
            frontend.terminate()
            frontend.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
