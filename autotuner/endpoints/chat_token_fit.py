"""What prompts of words cost in tokens on a server: all that a worker process needs of how it was fitted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTokenFit:
    """Token costs of a prompt of words: per prompt, per word, and per further pair of messages.

    `words` are the words that prompts are made of, empty for the default ones.
    """

    overhead_tokens: float = 0.0
    tokens_per_word: float = 1.0
    turn_overhead_tokens: float = 0.0
    words: tuple[str, ...] = ()
