"""`autotune ui`: the page of a run, live in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option


def ui(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    port: Annotated[
        int | None,
        option("--port", metavar="N", help="Port of the page.", panel=OUTPUT, default="a free one", min=1, max=65535),
    ] = None,
    open_browser: Annotated[
        bool, option("--open", help="Open the page in this machine's browser.", panel=OUTPUT)
    ] = False,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
) -> None:
    """Serve the page of a run, finished or going on, to browsers on this machine."""
    from autotuner.cli import display
    from autotuner.cli.signals import terminated_as_interrupted
    from autotuner.errors import UsageError
    from autotuner.report.page.server import PageServer
    from autotuner.runs.store import RunStore, find_run

    store = RunStore.open(find_run(run, output))
    if store.kind == "load-test":
        raise UsageError(
            f"'{store.path}' is a load test, which has no page.",
            remedy="Name a run of `autotune run`; `autotune report` shows a load test.",
        )
    with PageServer(store, port or 0) as server:
        display.line_at_once(server.url)
        display.note(f"the page of {store.path}, on this machine only; Ctrl-C ends it")
        display.note(f"from another machine: ssh -L {server.server_port}:127.0.0.1:{server.server_port} HOST")
        if open_browser:
            import webbrowser

            webbrowser.open(server.url)
        try:
            with terminated_as_interrupted():
                server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            server.stopping.set()
