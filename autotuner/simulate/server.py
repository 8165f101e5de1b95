"""The simulated engine as a server process: `python -m autotuner.simulate.server`."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from autotuner import __version__
from autotuner.predict.memory import GIB
from autotuner.simulate.api import Api
from autotuner.simulate.http import HttpConnection
from autotuner.simulate.realtime import RealtimeEngine
from autotuner.simulate.settings import BAD_FLAG_STATUS, SettingsError, SimulationSettings, parse_settings
from autotuner.simulate.started_engine import START_FAILED_STATUS, StartedEngine, StartError, start_engine

LOG = logging.getLogger("autotune-sim")
LISTEN_BACKLOG = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    0 after a signal, 1 if the model cannot be served with these settings, 2 for an invalid flag, and the
    system's errno if the address cannot be bound (98: in use).
    """
    try:
        settings = parse_settings(argv)
    except SettingsError as error:
        sys.stderr.write(str(error))
        return BAD_FLAG_STATUS
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
    LOG.info("autotune-sim %s, simulated: no GPU is used, step times are computed", __version__)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        LOG.error("[Errno %s] cannot listen on %s:%d: %s", error.errno, settings.host, settings.port, error.strerror)
        return error.errno or START_FAILED_STATUS
    with listener:
        try:
            started_engine = start_engine(settings)
        except StartError as error:
            LOG.error("%s", error)
            return START_FAILED_STATUS
        _log_settings(settings, started_engine)
        run(_serve(settings, started_engine, listener))
    LOG.info("stopped")
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; OSError if it cannot be bound."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"{error.strerror}") from error
    listener = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address[4])
        listener.listen(LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _log_settings(settings: SimulationSettings, started_engine: StartedEngine) -> None:
    shape, memory_plan, limits = started_engine.shape, started_engine.memory_plan, started_engine.limits
    LOG.info(
        "model %s: %.2fB parameters (%.2fB active), weights %s, KV cache %s",
        shape.name,
        shape.parameters / 1e9,
        shape.active_parameters / 1e9,
        settings.quantization or shape.weight_dtype,
        settings.kv_cache_dtype,
    )
    LOG.info(
        "simulated GPUs: %d x %s (tp %d, pp %d)",
        settings.tp_size * settings.pp_size,
        settings.gpu.name,
        settings.tp_size,
        settings.pp_size,
    )
    if settings.skew.sd:
        LOG.info("costs distorted: sd %g, seed %d", settings.skew.sd, settings.skew.seed)
    LOG.info("Loading weights: %.1f GiB per GPU", memory_plan.weights / GIB)
    LOG.info("KV cache size: %d tokens", started_engine.kv_tokens)
    LOG.info(
        "Maximum concurrency for %d tokens per request: %.2fx",
        limits.max_model_len,
        started_engine.kv_tokens / limits.max_model_len,
    )


def run(main_task: Coroutine[Any, Any, None]) -> None:
    """Run a server until it ends, on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main_task)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main_task)


async def _serve(settings: SimulationSettings, started_engine: StartedEngine, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop_event = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop_event.set)
    engine = RealtimeEngine(started_engine.create_scheduler(), loop)
    api = Api(settings, started_engine, engine)
    server = await loop.create_server(lambda: HttpConnection(api.handle), sock=listener)
    try:
        if not await _wait_while_loading(started_engine.start_seconds, stop_event):
            return
        # Objects created at start-up live until the end: exclude them from every garbage collection.
        gc.collect()
        gc.freeze()
        api.ready = True
        host, port = listener.getsockname()[:2]
        LOG.info("ready, listening on http://%s:%d (simulated)", host, port)
        await stop_event.wait()
        LOG.info("stopping")
    finally:
        engine.close()
        server.close()


async def _wait_while_loading(seconds: float, stop_event: asyncio.Event) -> bool:
    """Wait for the loading time; False if stopped meanwhile."""
    try:
        await asyncio.wait_for(stop_event.wait(), seconds)
    except TimeoutError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
