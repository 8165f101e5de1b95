"""Words of one token, from tokenizers that are built here."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tokenizers

from autotuner.workload.prompts import WORDS, Prompts
from autotuner.workload.tokenizer import one_token_words


def saved(folder: Path, tokenizer: Any) -> str:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


def byte_level(words: list[str]) -> Any:
    """A byte-level BPE tokenizer trained on these words, alone and behind others."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=5000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f"{word} {word}" for word in words] * 3, trainer)
    return tokenizer


def word_level(words: list[str], unknown: str = "<unk>") -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [unknown, *words]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def counted(path: str, body: bytes) -> int:
    content = json.loads(body)["messages"][0]["content"]
    return len(tokenizers.Tokenizer.from_file(path).encode(content, add_special_tokens=False).ids)


@pytest.mark.parametrize("make", [byte_level, word_level])
def test_a_prompt_of_such_words_has_exactly_the_tokens_asked_for(tmp_path: Path, make: Any):
    path = saved(tmp_path, make(list(WORDS)))
    words = one_token_words(path)
    assert len(words) > 200
    prompts = Prompts(kind="chat", model="m", vocabulary=1000, salt="s", phase="window", words=words, overhead=9.0)
    for index, tokens in enumerate([1, 2, 7, 100, 4096]):
        assert counted(path, prompts.body(index, tokens + 9, 5)) == tokens


def test_a_vocabulary_of_other_words_gives_its_own(tmp_path: Path):
    rng = Random(0)
    strange = sorted({"".join(rng.choices("abcdefgh", k=6)) for _ in range(60)})
    words = one_token_words(saved(tmp_path, word_level([*strange, "ab", "abcdefgh"])))
    assert sorted(words) == strange


def test_words_that_share_a_token_are_not_used(tmp_path: Path):
    """All that it does not know is one unknown token, so that no prompt would be unique."""
    assert one_token_words(saved(tmp_path, word_level(["x"]))) == ()


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_what_is_no_tokenizer_gives_no_words(tmp_path: Path, content: str | None):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    assert one_token_words(str(path)) == ()
