"""The process of one of several experiments that run side by side: `python -m autotuner.cli.experiment_process RUN`.

It finishes the run and prints its result as JSON. When its standard input is closed, however the process at the other
end ended, the run is interrupted: its servers are stopped, and finished trials are kept.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from autotuner.cli import app


def _interrupt_at_end_of_input() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a thread that waits would hold while the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    app(["run", "--resume", sys.argv[1], "--fail-on", "none", "--json"], prog_name="autotune")
