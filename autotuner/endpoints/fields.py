"""Which fields of a request a server refuses, found out with requests for one token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from autotuner.core import LENGTH_FIELDS, RequestForm
from autotuner.endpoints.client import Answer
from autotuner.endpoints.token import has_token

FIELD_STATUSES = (400, 422, 500)
"""What servers answer to a field that they do not take; some fail with a 500."""

OPTIONAL_FIELDS = ("ignore_eos", "stream_options", "temperature")
"""The fields that a request does without, in the order in which they are tried."""

MAX_REQUESTS = 16

SHORT_LIMIT, LONGER_LIMIT = 1, 32
"""Tokens that are asked for, and those where the server wants more."""

_BLAMES_PROMPT = re.compile(
    r"\bprompt\b|\binput\b.*\bstring\b|list of (int|str)|array into|'int' object|token[ _]ids?\b"
    r"|did not match any variant",
    re.IGNORECASE,
)
_BLAMES_LENGTH = re.compile(
    r"at least|minimum|too (small|low|short)|greater than|higher|limit was reached", re.IGNORECASE
)
_CHANGING = re.compile(r"[0-9a-f-]*\d[0-9a-f-]*", re.IGNORECASE)
_ECHO = re.compile(r"""["']input["']\s*:.*""", re.DOTALL)

CONSEQUENCES = {
    "ignore_eos": "answers may end before their length, and the output-length check says by how much",
    "stream_options": "without its token counts, tokens are counted by the events of the stream",
    "temperature": "the server's own temperature applies",
    "max_tokens": "answers end where the model ends them, and the output-length check says by how much",
}


@dataclass(frozen=True)
class FieldSearch:
    """Sends one-token requests with fewer and fewer fields; `ask` is given the form and the tokens to ask for.

    Where prompts have `other_forms`, a refusal that is about the prompt is final.
    """

    ask: Callable[[RequestForm, int], Answer]
    other_forms: bool = True

    def settle(self, form: RequestForm) -> tuple[RequestForm, Answer]:
        """The form of `form`'s requests that the server takes, and its answer: the last refusal if it takes none.

        Fields are left out that the server names; where it names none, a bare request tells whether one is to blame.
        """
        asked_for, limit = form, SHORT_LIMIT
        answer = self.ask(form, limit)
        requests = 1
        while _may_be_a_field(answer) and requests < MAX_REQUESTS:
            if limit == SHORT_LIMIT and _wants_more_tokens(answer):
                limit = LONGER_LIMIT
                answer = self.ask(form, limit)
                continue
            for name in _named(answer, form):
                fewer = form.without(name)
                second = self.ask(fewer, limit)
                requests += 1
                if not _may_be_a_field(second) or _words(second) != _words(answer):
                    form, answer = fewer, second
                    break
            else:
                is_final = self.other_forms and _blames_prompt(answer)
                return (form, answer) if is_final else self._from_bare(form, answer, limit)
        if not has_token(answer):
            return form, answer
        # words that repeat the whole request blame each field of it in turn
        left_out = [name for name in OPTIONAL_FIELDS if name in form.omit and name not in asked_for.omit]
        return self._with_more(form, answer, left_out if len(left_out) > 1 else [], limit)

    def _from_bare(self, form: RequestForm, refusal: Answer, limit: int) -> tuple[RequestForm, Answer]:
        """Start from a request with no optional field, and add those that the server takes."""
        kept = [name for name in OPTIONAL_FIELDS if name not in form.omit]
        bare = replace(form, omit=(*form.omit, *kept))
        answer = self.ask(bare, limit)
        for name in LENGTH_FIELDS:
            if not _may_be_a_field(answer) or not bare.limits_length:
                break
            bare = bare.without(name)
            answer = self.ask(bare, limit)
        if not has_token(answer):
            return form, refusal
        return self._with_more(bare, answer, kept, limit)

    def _with_more(self, form: RequestForm, answer: Answer, names: list[str], limit: int) -> tuple[RequestForm, Answer]:
        """Add those of the fields that the server takes."""
        for name in names:
            fuller = replace(form, omit=tuple(other for other in form.omit if other != name))
            second = self.ask(fuller, limit)
            if has_token(second):
                form, answer = fuller, second
        return form, answer


def _blames_prompt(answer: Answer) -> bool:
    """Whether a server's words are about the form of the prompt."""
    return _BLAMES_PROMPT.search(_ECHO.sub("", answer.summary)) is not None


def refused_extra(answer: Answer, form: RequestForm) -> str | None:
    """The field of the user's own that a refusal names; None where it names none."""
    names = _mentioned(answer, list(form.extra_body)) if _may_be_a_field(answer) else []
    return names[0] if names else None


def _wants_more_tokens(answer: Answer) -> bool:
    """Whether a refusal says that the limit of the length is too low."""
    return bool(_mentioned(answer, list(LENGTH_FIELDS)) and _BLAMES_LENGTH.search(answer.summary))


def _words(answer: Answer) -> str:
    """The server's words without what differs between equal answers: numbers of requests, times."""
    return _CHANGING.sub("#", _ECHO.sub("", answer.summary))


def _may_be_a_field(answer: Answer) -> bool:
    # some begin a stream, and refuse in it
    return answer.status in FIELD_STATUSES or (
        answer.status == 200 and '"error"' in answer.text and not has_token(answer)
    )


def _named(answer: Answer, form: RequestForm) -> list[str]:
    """The fields of `form` that the server's words name, first those it points at."""
    sent = [name for name in OPTIONAL_FIELDS if name not in form.omit and name not in form.extra_body]
    if form.limits_length:
        sent.append(form.length_field)
    return _mentioned(answer, sent)


def _mentioned(answer: Answer, names: list[str]) -> list[str]:
    pointed = [name for name in _pointed_at(answer.text) if name in names]
    if pointed:
        return pointed
    words = _ECHO.sub("", answer.summary)
    places = {name: match.start() for name in names if (match := re.search(rf"\b{re.escape(name)}\b", words))}
    return sorted(places, key=lambda name: places[name])


def _pointed_at(text: str) -> list[str]:
    """The fields in the `param` of an OpenAI error, and in the `loc` of each error of a pydantic model."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found: list[str] = []
    _collect_fields(data, found, depth=0)
    return list(dict.fromkeys(found))


def _collect_fields(data: Any, found: list[str], depth: int) -> None:
    if depth > 6:
        return
    if isinstance(data, list):
        for item in data[:20]:
            _collect_fields(item, found, depth + 1)
    if not isinstance(data, dict):
        return
    if isinstance(data.get("param"), str):
        found += re.split(r"[.\[]", data["param"])[:1]
    if isinstance(data.get("loc"), list):
        found += [part for part in data["loc"] if isinstance(part, str)]
    for name in ("error", "detail", "details", "errors", "message"):
        _collect_fields(data.get(name), found, depth + 1)


def consequences(usual: RequestForm, form: RequestForm) -> list[str]:
    """What is said of the fields that `usual` has and `form` lacks."""
    remarks = []
    if form.length_field != usual.length_field and form.limits_length:
        remarks.append("The server refuses max_tokens: max_completion_tokens is sent instead.")
    for name in form.omit:
        if name not in usual.omit:
            name = "max_tokens" if name in LENGTH_FIELDS else name
            remarks.append(f"The server refuses {name}, which is left out: {CONSEQUENCES[name]}.")
    return remarks
