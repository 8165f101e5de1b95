"""The number of token ids a server accepts, probed before the load when the model's config.json is not available."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autotuner.core import RequestForm
from autotuner.endpoints.address import API_PATHS
from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import model_cards
from autotuner.endpoints.tls import TlsTrust
from autotuner.workload.prompts import ordinary_token_ids, request_fields

MAX_REQUESTS = 12
"""Maximum number of one-token requests for one probe."""

RELATIVE_TOLERANCE = 0.01
"""Allowed relative error below the true size: prompts use nine tenths of the ids anyway."""

REQUEST_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for one token."""

REFUSAL_STATUSES = (400, 422, 500)
"""What servers answer to a token id outside the vocabulary; some fail with a 500."""

_VOCABULARY_SIZE_PATTERN = re.compile(r"""vocab(?:ulary)?[ _]?(?:size)?[^0-9"'{}]{0,20}([0-9]+)""", re.IGNORECASE)
_VOCABULARY_KEYS = ("n_vocab", "vocab_size")


@dataclass(frozen=True)
class Vocabulary:
    """The token ids below `size`, of which prompts are made.

    `origin` of the size: the model's configuration ("model"), the server's list of models or a probe
    ("server"), or a default that no response contradicts ("assumed"). `requests` is what the probe cost.
    """

    size: int
    origin: Literal["model", "server", "assumed"]
    requests: int = 0


def find_vocabulary(
    url: str,
    headers: Mapping[str, str],
    model: str,
    *,
    assumed: int,
    timeout: float = math.inf,
    form: RequestForm | None = None,
    tls: TlsTrust | None = None,
) -> Vocabulary:
    """Find how many token ids a completions server accepts; `assumed` unless it lists a size or refuses an id.

    A probed size is accepted by the server, and at most 1% below the true one. `timeout` is in seconds
    per request. A server that does not answer raises no error here: the load reports it.
    """
    with Client(url, headers, tls) as client:
        probe = _VocabularyProbe(client, model, form or RequestForm(), min(timeout, REQUEST_TIMEOUT_SECONDS))
        try:
            advertised = _advertised_size(client, model)
            size = _search_size(probe, advertised or assumed)
        except NoAnswerError:
            size = None
    if size is None or (size == assumed and not advertised):
        return Vocabulary(assumed, "assumed", probe.requests)
    return Vocabulary(size, "server", probe.requests)


@dataclass
class _VocabularyProbe:
    """Sends one-token requests and counts them; `last_refusal` is the text of the last refused one."""

    client: Client
    model: str
    form: RequestForm
    timeout: float
    requests: int = 0
    last_refusal: str = ""

    def accepts(self, size: int) -> bool:
        """Whether the vocabulary has at least `size` ids; NoAnswerError for a status that does not tell."""
        self.requests += 1
        fields = request_fields(self.form, 1)
        # a stream would begin with a status of 200 whatever comes of the request
        fields = {name: value for name, value in fields.items() if name not in ("stream", "stream_options")}
        body = {"model": self.model, "prompt": [size - 1], **fields}
        answer = self.client.ask(API_PATHS["completions"], body, self.timeout)
        if answer.status in REFUSAL_STATUSES:
            self.last_refusal = answer.text
            return False
        answer.require_ok()
        return True


def _search_size(probe: _VocabularyProbe, expected: int) -> int | None:
    """`expected` if the server accepts the highest id that load would send, else the size by bisection.

    The sizes that the refusal mentions are tried first. None when no id is accepted.
    """
    upper = ordinary_token_ids(expected)[-1] + 1
    if probe.accepts(upper):
        return expected
    lower, upper = 0, upper - 1
    for size in map(int, _VOCABULARY_SIZE_PATTERN.findall(probe.last_refusal)):
        if lower < size <= upper:
            lower, upper = (size, upper) if probe.accepts(size) else (lower, size - 1)
        if lower == size < upper:
            lower, upper = (size + 1, upper) if probe.accepts(size + 1) else (size, size)
    while upper - lower > RELATIVE_TOLERANCE * lower and probe.requests < MAX_REQUESTS:
        # the geometric mean halves the ratio, which is what the tolerance bounds
        middle = max(lower + 1, math.isqrt(max(lower, 1) * upper))
        lower, upper = (middle, upper) if probe.accepts(middle) else (lower, middle - 1)
    return lower or None


def _advertised_size(client: Client, model: str) -> int | None:
    """The vocabulary size in /v1/models, which llama.cpp for one lists; None where there is none."""
    try:
        cards = model_cards(client)
    except NoAnswerError as error:
        if error.status is None:
            raise
        return None
    entries = [entry for card in cards if card["id"] == model for entry in (card, card.get("meta"))]
    sizes = [entry.get(key) for entry in entries if isinstance(entry, Mapping) for key in _VOCABULARY_KEYS]
    return next((size for size in sizes if isinstance(size, int) and size > 1), None)
