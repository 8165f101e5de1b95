"""Words of one token, from tokenizers that are built here."""

from __future__ import annotations

import json
import sys
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tokenizers
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.trainers

from autotuner.errors import ConfigError
from autotuner.workload.prompts import DEFAULT_WORDS, Prompts
from autotuner.workload.tokenizer import PromptWords, distinct_words, usable_words


def saved(folder: Path, tokenizer: Any) -> str:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


def byte_level(words: list[str]) -> Any:
    """A byte-level BPE tokenizer trained on these words, alone and behind others."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=5000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f"{word} {word}" for word in words] * 3, trainer)
    return tokenizer


def word_level(words: list[str], unknown: str = "<unk>") -> Any:
    vocabulary = {name: number for number, name in enumerate([unknown, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def word_piece(words: list[str], letters: str = "") -> Any:
    names = ["[UNK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def unigram(words: list[str]) -> Any:
    """As SentencePiece makes them: a space belongs to the word behind it."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.Unigram([("<unk>", 0.0), *((f"\u2581{word}", -1.0) for word in words)], 0)
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return tokenizer


def ids(path: str, text: str) -> list[int]:
    numbers: list[int] = tokenizers.Tokenizer.from_file(path).encode(text, add_special_tokens=False).ids
    return numbers


def content(body: bytes) -> str:
    text: str = json.loads(body)["messages"][0]["content"]
    return text


def chat(words: tuple[str, ...], **changes: Any) -> Prompts:
    options = {"salt": "s", "phase": "window", **changes}
    return Prompts(kind="chat", model="m", vocab_size=1000, words=words, **options)


def made_up(number: int) -> list[str]:
    """So many words of one length, none of them ours."""
    length = 3 if number < 10_000 else 5
    return ["".join(letters) for letters in islice(product("zyxwvutsrqponmlkjihgfedcba", repeat=length), number)]


@pytest.fixture(params=["library", "file alone"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the tokenizers library, and as if it were not installed."""
    usable_words.cache_clear()
    if request.param == "file alone":
        monkeypatch.setitem(sys.modules, "tokenizers", None)
    return str(request.param)


@pytest.mark.parametrize("make", [byte_level, word_level, word_piece, unigram])
def test_a_prompt_of_such_words_has_exactly_the_tokens_asked_for(tmp_path: Path, reading: str, make: Any):
    path = saved(tmp_path, make(list(DEFAULT_WORDS)))
    words = usable_words(path)
    assert words is not None
    assert words.one_token_each
    assert len(words.words) > 200
    prompts = chat(words.words, overhead_tokens=9.0)
    for index, tokens in enumerate([1, 2, 7, 100, 4096]):
        assert len(ids(path, content(prompts.body(index, tokens + 9, 5)))) == tokens


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (word_level, 10),
        (word_piece, 11),
        (word_level, 40),
        (word_piece, 500),
        (word_level, 5000),
        (word_level, 150_000),
    ],
)
def test_no_two_prompts_begin_alike_however_many_words_a_tokenizer_knows(
    tmp_path: Path, reading: str, make: Any, number: int
):
    known_words = made_up(number)
    path = saved(tmp_path, make(known_words))
    words = usable_words(path)
    assert words is not None
    assert words.one_token_each
    assert set(words.words) <= set(known_words)
    assert len(words.words) == min(number, 4096)
    width = chat(words.words).alphabet.nonce_length
    runs = [chat(words.words, salt=salt, phase=phase) for salt in "ab" for phase in ("warm-up", "window")]
    texts = [content(prompts.body(index, 60, 5)) for prompts in runs for index in range(250)]
    tokens = [tuple(numbers) for numbers in batch(path, texts)]
    assert {len(prompt) for prompt in tokens} == {60}
    assert not any(0 in prompt for prompt in tokens)
    assert len({prompt[:width] for prompt in tokens}) == len(tokens)
    if number > 250:
        assert all(len({prompt[0] for prompt in tokens[run : run + 250]}) == 250 for run in range(0, 1000, 250))


def batch(path: str, texts: list[str]) -> list[list[int]]:
    encodings = tokenizers.Tokenizer.from_file(path).encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def test_a_vocabulary_of_other_words_gives_its_own(tmp_path: Path, reading: str):
    rng = Random(0)
    other_words = sorted({"".join(rng.choices("abcdefgh", k=6)) for _ in range(60)})
    words = usable_words(saved(tmp_path, word_level([*other_words, "ab", "abcdefgh"])))
    assert words is not None
    assert sorted(words.words) == other_words


@pytest.mark.parametrize("known_count", [0, 1, 9])
@pytest.mark.parametrize("make", [word_level, word_piece, unigram])
def test_a_tokenizer_of_fewer_than_ten_words_is_refused(tmp_path: Path, reading: str, make: Any, known_count: int):
    """All that it does not know is one unknown token, so that no prompt would be unique."""
    path = saved(tmp_path, make([*DEFAULT_WORDS[:known_count], "?"]))
    with pytest.raises(ConfigError, match=rf"all alike.* knows {known_count} of the words") as caught:
        usable_words(path)
    assert path in str(caught.value)
    assert "completions" in caught.value.remedy


def test_the_unknown_token_is_no_word(tmp_path: Path, reading: str):
    """Every word is one token to this tokenizer; 12 of ours are not the unknown one."""
    words = usable_words(saved(tmp_path, word_level(list(DEFAULT_WORDS[40:52]))))
    assert words is not None
    assert words.words == DEFAULT_WORDS[40:52]


def test_usable_words_several_tokens_that_spell_them_serve_where_none_is_one(tmp_path: Path, reading: str):
    path = saved(tmp_path, byte_level([]))
    words = usable_words(path)
    assert words == PromptWords(DEFAULT_WORDS, one_token_each=False)
    assert len({tuple(ids(path, word)) for word in DEFAULT_WORDS}) == len(DEFAULT_WORDS)


def test_letters_are_words_where_they_are_all_there_is(tmp_path: Path, reading: str):
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert usable_words(saved(tmp_path, word_piece([], letters))) == PromptWords(tuple(letters), one_token_each=True)


@pytest.mark.parametrize("content", [None, "{}", "not JSON", "[]", '{"model": {"type": "BPE", "vocab": 7}}'])
def test_what_is_no_tokenizer_gives_no_words(tmp_path: Path, reading: str, content: str | None):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    assert usable_words(str(path)) is None


@pytest.mark.parametrize("known_count", [10, 100, 256])
def test_words_that_a_server_makes_one_unknown_token_of_are_left_out(known_count: int):
    tokens = [number if number < known_count else 999 for number in range(len(DEFAULT_WORDS))]
    words = distinct_words(DEFAULT_WORDS, tokens)
    assert words == PromptWords(DEFAULT_WORDS[:known_count], one_token_each=True)


def test_a_server_that_makes_several_tokens_of_a_word_tells_them_apart():
    assert distinct_words(DEFAULT_WORDS, list(range(700))) == PromptWords(DEFAULT_WORDS, one_token_each=False)
    spaces_apart = [token for number in range(len(DEFAULT_WORDS)) for token in (3, 1000 + number)]
    assert distinct_words(DEFAULT_WORDS, spaces_apart) == PromptWords(DEFAULT_WORDS, one_token_each=False)


@pytest.mark.parametrize("tokens", [[0] * len(DEFAULT_WORDS), [1, *[0] * len(DEFAULT_WORDS)], [0], []])
def test_a_server_that_knows_none_of_the_words_is_refused(tokens: list[int]):
    with pytest.raises(ConfigError, match="knows 0 of the words"):
        distinct_words(DEFAULT_WORDS, tokens)
