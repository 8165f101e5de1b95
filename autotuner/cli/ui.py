"""`autotune ui`: the page of a run, live in a browser, or of an SLA profile, to pick its workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.report.page.loopback_server import LoopbackServer


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
    """Serve the page of a run, or of an SLA profile to pick workers, to browsers on this machine."""
    from autotuner.errors import UsageError
    from autotuner.report.page.server import PageServer
    from autotuner.runs.store import RunStore, find_run

    if run is not None and is_profile_folder(Path(run)):
        serve_pick(Path(run), port or 0, open_browser=open_browser)
        return
    store = RunStore.open(find_run(run, output))
    if store.kind == "load-test":
        raise UsageError(
            f"'{store.path}' is a load test, which has no page.",
            remedy="Name a run of `autotune run`; `autotune report` shows a load test.",
        )
    with PageServer(store, port or 0) as server:
        serve(server, f"the page of {store.path}", open_browser=open_browser)


def is_profile_folder(path: Path) -> bool:
    """Whether a folder is one of `autotune sla run`, and not of a run."""
    from autotuner.profiling.record import REQUEST_FILE
    from autotuner.runs.store import EXPERIMENT_FILE

    return (path / REQUEST_FILE).is_file() and not (path / EXPERIMENT_FILE).exists()


def serve_pick(
    folder: Path, port: int, *, open_browser: bool = False, ends_with_pick: bool = False, on_stdout: bool = True
) -> None:
    """Serve the page on which workers of a profile are picked, until Ctrl-C or, if asked, the pick."""
    from autotuner.cli import display
    from autotuner.profiling.pick_server import PickServer

    with PickServer(folder, port, ends_with_pick=ends_with_pick) as server:
        serve(server, f"the page to pick workers of {folder}", open_browser=open_browser, on_stdout=on_stdout)
        if server.picked:
            display.note(f"picked: {', '.join(str(path) for path in server.picked)}")
        else:
            display.note("nothing was picked")


def serve(server: LoopbackServer, what: str, *, open_browser: bool = False, on_stdout: bool = True) -> None:
    """Print the address of a page and answer browsers until Ctrl-C."""
    from autotuner.cli import display
    from autotuner.cli.signals import terminated_as_interrupted

    (display.line_at_once if on_stdout else display.note)(server.url)
    display.note(f"{what}, on this machine only; Ctrl-C ends it")
    display.note(f"from another machine: ssh -L {server.server_port}:127.0.0.1:{server.server_port} HOST")
    if open_browser:
        import webbrowser

        webbrowser.open(server.url)
    try:
        with terminated_as_interrupted():
            server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        server.stopping.set()
