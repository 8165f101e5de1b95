"""Time for a server whose model is not loaded yet, with a word about what is waited for."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autotuner.endpoints.client import Answer

log = logging.getLogger(__name__)

FIRST_TOKEN_SECONDS = 60.0
"""Seconds that a server may take for its first token: its model may have to be loaded."""

REPORT_SECONDS, POLL_SECONDS = 5.0, 0.5

_LOADING = re.compile(
    r"\b(loading|(being|not|not yet) loaded|warm(ing)?[ -]?up|starting|initiali[sz]ing|not (yet )?ready|cold start"
    r"|scaling up)",
    re.IGNORECASE,
)


@contextmanager
def reported_wait(what: str) -> Iterator[None]:
    """Say every few seconds how long `what` has been waited for."""
    ended = threading.Event()
    start = time.monotonic()

    def report() -> None:
        while not ended.wait(REPORT_SECONDS):
            log.info("waiting for %s, %.0f s", what, time.monotonic() - start)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_loading(answer: Answer) -> bool:
    """Whether a server says that it still loads the model."""
    return answer.status == 503 and _LOADING.search(answer.summary) is not None


def ask_until_loaded(ask: Callable[[], Answer], deadline: float) -> Answer:
    """Ask again while the server says that it loads the model, until `deadline` of the monotonic clock."""
    while is_loading(answer := ask()) and time.monotonic() + POLL_SECONDS < deadline:
        time.sleep(POLL_SECONDS)
    return answer
