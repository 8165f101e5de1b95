"""Words that a model's own tokenizer makes one token of, so that a text of n words has n tokens exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from autotuner.workload.prompts import WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FEWEST = 16
_SAMPLE = 256
_WORD = re.compile(r"[a-z]{3,8}")
_SPACES = "\u0120\u2581"
"""How byte-level BPE and SentencePiece write a space in front of a word."""


@lru_cache(maxsize=2)
def one_token_words(path: str) -> tuple[str, ...]:
    """Return words of one length that are one token each, alone and behind others, and all different ones.

    `path` is a tokenizer.json. Empty where the `tokenizers` library is not installed, the file
    cannot be read, or too few such words are found.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return ()
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception:  # noqa: BLE001 the library raises nothing narrower, for a missing file as for a newer format
        return ()
    for candidates in (WORDS, _of_vocabulary(tokenizer)):
        words = _single(tokenizer, candidates)
        if len(words) >= _FEWEST and _adds_up(tokenizer, words):
            return tuple(words)
    return ()


def _of_vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the vocabulary's lower-case words of the most frequent length."""
    words = {token.lstrip(_SPACES) for token in tokenizer.get_vocab()}
    lengths = Counter(len(word) for word in words if _WORD.fullmatch(word))
    if not lengths:
        return []
    length = lengths.most_common(1)[0][0]
    return sorted(word for word in words if len(word) == length and _WORD.fullmatch(word))


def _single(tokenizer: Tokenizer, candidates: Iterable[str]) -> list[str]:
    """Return the candidates that are one token each, and another one behind a space, that no other candidate is."""
    seen: set[int] = set()
    words: list[str] = []
    for word in candidates:
        alone = _ids(tokenizer, word)
        twice = _ids(tokenizer, f"{word} {word}")
        if len(alone) == 1 and len(twice) == 2 and not seen & {*alone, *twice}:
            seen |= {*alone, *twice}
            words.append(word)
    return words


def _adds_up(tokenizer: Tokenizer, words: list[str]) -> bool:
    text = Random(0).choices(words, k=_SAMPLE)
    return all(len(_ids(tokenizer, " ".join(text[:count]))) == count for count in (2, 3, 5, _SAMPLE))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
