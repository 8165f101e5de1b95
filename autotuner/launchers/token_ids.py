"""How many token ids a server takes, found out before the load where its model's configuration is not at hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from autotuner.launchers import ready
from autotuner.launchers.ready import NotReadyError
from autotuner.workload.prompts import ordinary_token_ids

MAX_REQUESTS = 12
"""One-token requests that finding out may cost."""

RELATIVE_TOLERANCE = 0.01
"""How far below the vocabulary, relative to it, what is found may be: prompts use nine tenths of it anyway."""

REQUEST_TIMEOUT_SECONDS = 10.0
"""Seconds the server gets for one token."""

REFUSAL_STATUSES = (400, 422, 500)
"""What servers answer to a token id that their model does not have; some only fail at it."""

_VOCABULARY_SIZE_PATTERN = re.compile(r"""vocab(?:ulary)?[ _]?(?:size)?[^0-9"'{}]{0,20}([0-9]+)""", re.IGNORECASE)
_VOCABULARY_KEYS = ("n_vocab", "vocab_size")


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that prompts are made of: those below `size`.

    They are those of the model's configuration ("model"), those the server takes or says it has
    ("server"), or nothing spoke against them ("assumed"); `requests` were made to find out.
    """

    size: int
    origin: Literal["model", "server", "assumed"]
    requests: int = 0


def find_vocabulary(
    url: str, headers: Mapping[str, str], model: str, *, assumed: int, timeout: float = REQUEST_TIMEOUT_SECONDS
) -> Vocabulary:
    """Ask a server that serves completions how many token ids it takes, `assumed` unless it says or refuses one.

    What is found is taken whole, and at most 1% below the vocabulary. `timeout` is in seconds, of
    each request. A server that does not answer is left to the load to find out about.
    """
    with ready.http_client(url, headers) as http:
        asking = _VocabularyProbe(http, model, timeout)
        try:
            listed = _advertised_size(http, model)
            size = _search_size(asking, listed or assumed)
        except NotReadyError:
            size = None
    if size is None or (size == assumed and not listed):
        return Vocabulary(assumed, "assumed", asking.requests)
    return Vocabulary(size, "server", asking.requests)


class _VocabularyProbe:
    """One-token requests; `said` is how the last refusal was worded."""

    def __init__(self, http: httpx.Client, model: str, timeout: float) -> None:
        self.http = http
        self.model = model
        self.timeout = timeout
        self.requests = 0
        self.last_refusal = ""

    @property
    def is_exhausted(self) -> bool:
        return self.requests >= MAX_REQUESTS

    def accepts(self, size: int) -> bool:
        """Whether the vocabulary has `size` ids or more; NotReadyError where the answer tells neither."""
        self.requests += 1
        body = {"model": self.model, "prompt": [size - 1], "max_tokens": 1, "temperature": 0}
        response = ready.send_request(self.http, "POST", "/v1/completions", json=body, timeout=self.timeout)
        if response.status_code in REFUSAL_STATUSES:
            self.last_refusal = response.text
            return False
        if response.status_code != httpx.codes.OK:
            raise NotReadyError(f"/v1/completions answered {response.status_code}.", response.status_code)
        return True


def _search_size(probe: _VocabularyProbe, expected: int) -> int | None:
    """`hoped` if the highest id is taken that load would send, else what is taken; None where no id is."""
    most = ordinary_token_ids(expected)[-1] + 1
    if probe.accepts(most):
        return expected
    least, most = 0, most - 1
    for told in map(int, _VOCABULARY_SIZE_PATTERN.findall(probe.last_refusal)):
        if least < told <= most:
            least, most = (told, most) if probe.accepts(told) else (least, told - 1)
        if least == told < most:
            least, most = (told + 1, most) if probe.accepts(told + 1) else (told, told)
    while most - least > RELATIVE_TOLERANCE * least and not probe.is_exhausted:
        middle = max(least + 1, math.isqrt(max(least, 1) * most))
        least, most = (middle, most) if probe.accepts(middle) else (least, middle - 1)
    return least or None


def _advertised_size(http: httpx.Client, model: str) -> int | None:
    """What /v1/models says of the vocabulary, where it does."""
    try:
        cards = ready.send_request(http, "GET", "/v1/models").json()["data"]
        places = [place for card in cards if card["id"] == model for place in (card, card.get("meta"))]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return next((size for place in places for key in _VOCABULARY_KEYS if (size := _size_entry(place, key))), None)


def _size_entry(place: Any, key: str) -> int | None:
    value = place.get(key) if isinstance(place, Mapping) else None
    return value if isinstance(value, int) and value > 1 else None
