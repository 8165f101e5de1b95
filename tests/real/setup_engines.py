"""Set a real vLLM and a real SGLang up from nothing, both at once: `python setup_engines.py FOLDER`.

Two installations keep two cores busy. A second run in the same folder does nothing.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.real import setup_sglang, setup_vllm


def main() -> None:
    """Read the folder from the command line and set up in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # first, and for both: apt cannot run twice
    setup_vllm.install_system_packages(setup_sglang.LIBRARIES)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(set_up, folder) for set_up in (setup_vllm.set_up, setup_sglang.set_up)]:
            done.result()


if __name__ == "__main__":
    main()
