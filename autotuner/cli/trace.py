"""`autotune trace`: a profiler trace of a running engine under a small load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from autotuner.cli.bench import SERVER_OPTIONS, parse_headers, server_option
from autotuner.cli.load_options import JSON_OPTION, LOAD, OUTPUT, api_key_option, option
from autotuner.cli.signals import terminated_as_interrupted

DEFAULT_FOLDER = Path("trace")
VIEWER = "https://ui.perfetto.dev"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def trace(
    url: Annotated[str, typer.Argument(metavar="URL", help="Server address, such as http://127.0.0.1:8000.")],
    worker: Annotated[
        list[str] | None,
        server_option(
            "--worker",
            metavar="URL",
            help="Address of a worker behind that server, of Dynamo with its DYN_SYSTEM_PORT; repeatable.",
            default="the server itself",
        ),
    ] = None,
    model: Annotated[
        str | None,
        server_option(
            "--model", "-m", metavar="NAME", help="Model name on the server.", default="the one the server lists"
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        server_option(
            "--header", metavar="NAME:VALUE", help="HTTP header sent with every request; repeatable.", default="none"
        ),
    ] = None,
    api_key_env: Annotated[str | None, api_key_option(SERVER_OPTIONS, "none")] = None,
    requests: Annotated[
        int, option("--requests", metavar="N", min=1, help="Requests while the profiler is on.", panel=LOAD)
    ] = 8,
    concurrency: Annotated[
        int, option("--concurrency", metavar="N", min=1, help="Requests in flight at most.", panel=LOAD)
    ] = 4,
    isl: Annotated[
        int, option("--isl", metavar="TOKENS", min=1, help="Input sequence length, about.", panel=LOAD)
    ] = 256,
    osl: Annotated[int, option("--osl", metavar="TOKENS", min=1, help="Output sequence length.", panel=LOAD)] = 16,
    server_folder: Annotated[
        Path | None,
        option(
            "--server-folder",
            metavar="FOLDER",
            help="Folder that the servers write to, as this machine sees it; of vLLM its torch_profiler_dir.",
            panel=OUTPUT,
            default="--output, for servers on this machine",
        ),
    ] = None,
    timeout: Annotated[
        float,
        option("--timeout", metavar="SECONDS", min=1, help="Time for a server to write its trace.", panel=OUTPUT),
    ] = 600,
    output: Annotated[
        Path, option("--output", "-o", metavar="FOLDER", help="Folder for the files.", panel=OUTPUT)
    ] = DEFAULT_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Record a profiler trace of a running vLLM, SGLang or Dynamo worker while it answers a few requests."""
    from autotuner.cli import display
    from autotuner.endpoints.headers import request_headers
    from autotuner.endpoints.models import find_served_model
    from autotuner.engine_trace import EngineTracer, TraceLoad
    from autotuner.experiment import Deployment

    deployment = Deployment(mode="external", headers=parse_headers(header or []), api_key_env=api_key_env)
    display.relay_log()
    headers = request_headers(deployment)
    workers = tuple(worker or [url])
    is_local = all(urlsplit(address).hostname in LOOPBACK for address in workers)
    tracer = EngineTracer(
        served=find_served_model(url, headers, model=model, must_answer=True),
        workers=workers,
        load=TraceLoad(requests, concurrency, isl, osl),
        server_folder=server_folder or (output if is_local else None),
        is_folder_agreed=server_folder is not None,
        timeout=timeout,
        headers=headers,
    )
    with terminated_as_interrupted():
        recorded = tracer.record(output)
    if recorded.first_error is not None:
        display.warning(f"{requests - recorded.answered} of {requests} requests failed: {recorded.first_error}")
    if as_json:
        display.json({"files": [str(file) for file in recorded.files], "requests": recorded.answered})
        return
    for file in recorded.files:
        display.line(str(file))
    if recorded.files:
        display.note(f"Open a trace at {VIEWER}, which computes in the browser and uploads nothing.")
    else:
        display.note(
            "The trace is on the server's machine: in torch_profiler_dir of vLLM, in SGLANG_TORCH_PROFILER_DIR or /tmp "
            f"of SGLang. Copy it from there, and open it at {VIEWER}."
        )
