"""Words for chat prompts that a tokenizer tells apart, preferably of one token each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.errors import ConfigError
from autotuner.input_files import read_json
from autotuner.workload.prompts import DEFAULT_WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_WORDS = 10
"""With fewer distinct words, prompts among thousands share whole prefix-cache blocks at their beginning."""
_ENOUGH_WORDS, _MAX_WORDS = 64, 4096
_SAMPLE_WORDS = 256
_WORD_PATTERN = re.compile(r"[a-z]{1,12}")
_SPACE_MARKERS = "\u0120\u2581"
"""The characters for a space before a word in byte-level BPE and SentencePiece tokens."""


@dataclass(frozen=True)
class PromptWords:
    """Words of equal length, none an unknown token: different texts have different tokens.

    `one_token_each`: each word is one token, alone and after other words, and no two are the same token.
    """

    words: tuple[str, ...]
    one_token_each: bool


class _TokenizerReader(Protocol):
    """The questions that choosing words asks of a tokenizer."""

    @property
    def vocabulary(self) -> Collection[str]: ...

    def is_one_token(self, word: str) -> bool:
        """Whether `word` is one token, alone and after another word."""
        ...

    def round_trips(self, word: str) -> bool:
        """Whether decoding the tokens of `word` gives it back."""
        ...

    def counts_add_up(self, words: Sequence[str]) -> bool:
        """Whether a text of n of these words has n tokens."""
        ...


@lru_cache(maxsize=2)
def usable_words(path: str) -> PromptWords | None:
    """The words for a tokenizer.json; None when it cannot be read, ConfigError if too few words are usable."""
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
    decodable = tuple(word for word in DEFAULT_WORDS if reader.round_trips(word))
    if len(decodable) < MIN_WORDS:
        raise too_few_words_error(f"'{path}'", max(len(best), len(decodable)))
    return PromptWords(decodable, one_token_each=False)


def distinct_words(words: Sequence[str], tokens: Sequence[int]) -> PromptWords:
    """The `words` that a server tells apart, by the `tokens` of one text of them all; ConfigError if too few."""
    number, counts = len(words), Counter(tokens)
    if len(tokens) == number:  # one token per word, the unknown one for several
        words = [word for word, token in zip(words, tokens, strict=True) if counts[token] == 1]
    elif len(tokens) < number or (len(tokens) < 1.5 * number and max(counts.values()) > number / 2):
        # tokens join words, or most words are the unknown token: none can be trusted
        words = []
    if len(words) < MIN_WORDS:
        raise too_few_words_error("that of the server", len(words))
    return PromptWords(tuple(words), one_token_each=len(tokens) == number)


def too_few_words_error(tokenizer: str, word_count: int) -> ConfigError:
    return ConfigError(
        "Chat prompts would be all alike to the model's tokenizer.",
        why=f"The tokenizer, {tokenizer}, knows {word_count} of the words that prompts are made of, and {MIN_WORDS} "
        "are needed: it maps all others to one unknown token.",
        remedy="Use completions, whose prompts are token ids (`--endpoint completions`, or benchmark.endpoint), or "
        "name the tokenizer that the server uses (model.tokenizer).",
    )


def _vocabulary_words(vocabulary: Collection[str]) -> list[str]:
    """The vocabulary's lower-case words of the most frequent length, at most `_MAX_WORDS` of them."""
    words = {word for word in map(_strip_markers, vocabulary) if _WORD_PATTERN.fullmatch(word)}
    lengths = Counter(map(len, words))
    if not lengths:
        return []
    length = lengths.most_common(1)[0][0]
    equally_long = sorted(word for word in words if len(word) == length)
    return equally_long if len(equally_long) <= _MAX_WORDS else sorted(Random(0).sample(equally_long, _MAX_WORDS))


def _strip_markers(token: str) -> str:
    """A token's text without the markers for a space, for the inside of a word, and for its end."""
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
    """A tokenizer read by the tokenizers library, as the engines do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()

    def is_one_token(self, word: str) -> bool:
        return self._token_texts(word) == [word] and self._token_texts(f"{word} {word}") == [word, word]

    def round_trips(self, word: str) -> bool:
        return "".join(self._token_texts(word)) == word

    def counts_add_up(self, words: Sequence[str]) -> bool:
        if not words:
            return False
        text = Random(0).choices(words, k=_SAMPLE_WORDS)
        return all(self._token_texts(" ".join(text[:count])) == text[:count] for count in (2, 3, 5, _SAMPLE_WORDS))

    def _token_texts(self, text: str) -> list[str]:
        # not the encoding's own texts: for an unknown token that may be what it stands for
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [_strip_markers(self.tokenizer.id_to_token(number) or "") for number in ids]


class _VocabularyFile:
    """A tokenizer.json judged by its vocabulary alone, where the library is missing or cannot read it."""

    def __init__(self, model_type: str, vocabulary: dict[str, None]) -> None:
        self.model_type = model_type
        self.vocabulary = vocabulary

    @classmethod
    def read(cls, path: str) -> _VocabularyFile | None:
        """Read the file; None when it is missing or not a tokenizer.json."""
        try:
            model = read_json(Path(path))["model"]
            return cls(str(model.get("type") or "BPE"), _token_names(model["vocab"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None

    def is_one_token(self, word: str) -> bool:
        if self.model_type in ("WordLevel", "WordPiece"):
            return word in self.vocabulary
        spaced = f"\u2581{word}" in self.vocabulary
        return spaced or {word, f"\u0120{word}"} <= self.vocabulary.keys()

    def round_trips(self, word: str) -> bool:
        if self.model_type == "WordLevel":
            return word in self.vocabulary
        inside = "##" if self.model_type == "WordPiece" else ""
        return word[0] in self.vocabulary and all(f"{inside}{letter}" in self.vocabulary for letter in word[1:])

    def counts_add_up(self, words: Sequence[str]) -> bool:
        """Assumed; the server's token counts are checked later."""
        return True


def _token_names(vocabulary: Any) -> dict[str, None]:
    """The tokens of a vocabulary, which maps them to ids or lists them with their log probabilities."""
    names: Iterable[str] = vocabulary if isinstance(vocabulary, dict) else (entry[0] for entry in vocabulary)
    return dict.fromkeys(names)
