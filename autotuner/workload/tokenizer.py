"""Words for chat prompts that a tokenizer tells apart, one token each where it has enough of those."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.errors import ConfigError
from autotuner.workload.prompts import DEFAULT_WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_WORDS = 10
"""Different words: with fewer, prompts of thousands of requests begin alike for whole blocks of a prefix cache."""
_ENOUGH_WORDS, _MAX_WORDS = 64, 4096
_SAMPLE_WORDS = 256
_WORD_PATTERN = re.compile(r"[a-z]{1,12}")
_SPACE_MARKERS = "\u0120\u2581"
"""How byte-level BPE and SentencePiece write a space in front of a word."""


@dataclass(frozen=True)
class PromptWords:
    """Words of one length that no unknown token stands for: texts that differ, differ in their tokens.

    `exact`: each is one token, alone and behind others, and no two are the same.
    """

    words: tuple[str, ...]
    one_token_each: bool


class _TokenizerReader(Protocol):
    """What is known of a tokenizer."""

    @property
    def vocabulary(self) -> Collection[str]:
        """Its tokens."""
        ...

    def is_one_token(self, word: str) -> bool:
        """Whether `word` is one token of its own, alone and behind another word."""
        ...

    def round_trips(self, word: str) -> bool:
        """Whether the tokens of `word` give it back."""
        ...

    def counts_add_up(self, words: Sequence[str]) -> bool:
        """Whether a text of n of these words has n tokens."""
        ...


@lru_cache(maxsize=2)
def usable_words(path: str) -> PromptWords | None:
    """Return the words for a tokenizer.json, None where it cannot be read; ConfigError when it has too few."""
    reader = _open_tokenizer(path)
    if reader is None:
        return None
    best: list[str] = []
    for candidates in (DEFAULT_WORDS, _vocabulary_words(reader.vocabulary)):
        words = [word for word in candidates if reader.is_one_token(word)]
        if len(words) > len(best) and reader.counts_add_up(words):
            best = words
        if len(best) >= _ENOUGH_WORDS:
            break
    if len(best) >= MIN_WORDS:
        return PromptWords(tuple(best), one_token_each=True)
    spelled = tuple(word for word in DEFAULT_WORDS if reader.round_trips(word))
    if len(spelled) < MIN_WORDS:
        raise too_few_words_error(f"'{path}'", max(len(best), len(spelled)))
    return PromptWords(spelled, one_token_each=False)


def distinct_words(words: Sequence[str], tokens: Sequence[int]) -> PromptWords:
    """Return which of `words` a server tells apart that makes `tokens` of them in one text; ConfigError: too few."""
    number, counts = len(words), Counter(tokens)
    if len(tokens) == number:
        words = [word for word, token in zip(words, tokens, strict=True) if counts[token] == 1]
    elif len(tokens) < number or (len(tokens) < 1.5 * number and max(counts.values()) > number / 2):
        words = []
    if len(words) < MIN_WORDS:
        raise too_few_words_error("that of the server", len(words))
    return PromptWords(tuple(words), one_token_each=len(tokens) == number)


def too_few_words_error(tokenizer: str, word_count: int) -> ConfigError:
    """The error of a tokenizer for which chat prompts would be all alike."""
    return ConfigError(
        "Chat prompts would be all alike for the model's tokenizer.",
        why=f"The tokenizer, {tokenizer}, knows {word_count} of the words that prompts are made of, and {MIN_WORDS} are "
        "needed: it makes one unknown token of all others.",
        remedy="Use completions, whose prompts are token ids (`--endpoint completions`, or benchmark.endpoint), or "
        "name the tokenizer that is really used (model.tokenizer).",
    )


def _vocabulary_words(vocabulary: Collection[str]) -> list[str]:
    """Return the vocabulary's lower-case words of the most frequent length, as far as they are needed."""
    words = {word for word in map(_strip_markers, vocabulary) if _WORD_PATTERN.fullmatch(word)}
    lengths = Counter(map(len, words))
    if not lengths:
        return []
    length = lengths.most_common(1)[0][0]
    same = sorted(word for word in words if len(word) == length)
    return same if len(same) <= _MAX_WORDS else sorted(Random(0).sample(same, _MAX_WORDS))


def _strip_markers(token: str) -> str:
    """Return what a token spells, without the marks for a space, for a word's inside and for its end."""
    return token.lstrip(_SPACE_MARKERS).removeprefix("##").removesuffix("</w>")


def _open_tokenizer(path: str) -> _TokenizerReader | None:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return _VocabularyFile.read(path)
    try:
        return _LibraryTokenizer(Tokenizer.from_file(path))
    except Exception:  # noqa: BLE001 the library raises nothing narrower, for a missing file as for a newer format
        return _VocabularyFile.read(path)


class _LibraryTokenizer:
    """A tokenizer as the engines use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()

    def is_one_token(self, word: str) -> bool:
        """See _Reader."""
        return self._token_texts(word) == [word] and self._token_texts(f"{word} {word}") == [word, word]

    def round_trips(self, word: str) -> bool:
        """See _Reader."""
        return "".join(self._token_texts(word)) == word

    def counts_add_up(self, words: Sequence[str]) -> bool:
        """See _Reader."""
        if not words:
            return False
        text = Random(0).choices(words, k=_SAMPLE_WORDS)
        return all(self._token_texts(" ".join(text[:count])) == text[:count] for count in (2, 3, 5, _SAMPLE_WORDS))

    def _token_texts(self, text: str) -> list[str]:
        # not the encoding's own texts: for an unknown token that may be what it stands for
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [_strip_markers(self.tokenizer.id_to_token(number) or "") for number in ids]


class _VocabularyFile:
    """A tokenizer.json where the library is not installed, or does not read it: its vocabulary says most."""

    def __init__(self, model_type: str, vocabulary: dict[str, None]) -> None:
        self.model_type = model_type
        self.vocabulary = vocabulary

    @classmethod
    def read(cls, path: str) -> _VocabularyFile | None:
        """Read it; None when it is not there or no such file."""
        try:
            model = json.loads(Path(path).read_text(encoding="utf-8"))["model"]
            return cls(str(model.get("type") or "BPE"), _token_names(model["vocab"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None

    def is_one_token(self, word: str) -> bool:
        """See _Reader."""
        if self.model_type in ("WordLevel", "WordPiece"):
            return word in self.vocabulary
        spaced = f"\u2581{word}" in self.vocabulary
        return spaced or {word, f"\u0120{word}"} <= self.vocabulary.keys()

    def round_trips(self, word: str) -> bool:
        """See _Reader."""
        if self.model_type == "WordLevel":
            return word in self.vocabulary
        inside = "##" if self.model_type == "WordPiece" else ""
        return word[0] in self.vocabulary and all(f"{inside}{letter}" in self.vocabulary for letter in word[1:])

    def counts_add_up(self, words: Sequence[str]) -> bool:
        """See _Reader: the server's own count will tell."""
        return True


def _token_names(vocabulary: Any) -> dict[str, None]:
    """Return the tokens of a vocabulary that maps them to ids, or lists them with their probabilities."""
    named: Iterable[str] = vocabulary if isinstance(vocabulary, dict) else (entry[0] for entry in vocabulary)
    return dict.fromkeys(named)
