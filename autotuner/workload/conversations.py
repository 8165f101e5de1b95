"""Conversations of several turns: each turn's prompt begins with all turns before it and their answers."""

from __future__ import annotations

from collections.abc import Iterator

from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request
from autotuner.workload.scenarios import Conversation


class Conversations:
    """What one lane of `lanes` asks: one conversation after the other, turn by turn.

    On completions a conversation is one text of token ids, and each turn's prompt a longer part of
    it: where an answer belongs stand as many ids of our own, for a completion does not say which
    ids it answered with. On chat the answers are the server's own words; `per_turn` is how many
    tokens the server adds for each further pair of messages.

    Lanes begin their first conversation at different turns, as if the ones before had been
    played, so that every turn is as frequent at the start as it is later.
    """

    def __init__(
        self, scenario: Conversation, prompts: Prompts, lane: int, lanes: int, *, per_turn: float = 0.0
    ) -> None:
        self.scenario = scenario
        self.prompts = prompts
        self.lanes = lanes
        self.number = lane
        self.turn = lane % scenario.turns
        self.per_turn = per_turn
        self.answers: dict[int, str] = {}

    def take(self) -> Request:
        """Return the request of the turn whose time has come; it is the same until `answered` or `broken_off`."""
        prompt_tokens, output_tokens = self.scenario.turn(self.turn)
        if self.prompts.kind == "completions":
            body = self.prompts.body(self.number, prompt_tokens, output_tokens)
        else:
            body = self.prompts.dialogue(self._messages(), output_tokens)
        index = self.number * self.scenario.turns + self.turn
        return Request(index, prompt_tokens, output_tokens, body)

    def answered(self, said: str) -> None:
        """Go on to the next turn, or to another conversation after the last."""
        self.answers[self.turn] = said
        self.turn += 1
        if self.turn == self.scenario.turns:
            self.broken_off()

    def broken_off(self) -> None:
        """Begin another conversation: a turn that failed has no answer to go on from."""
        self.number += self.lanes
        self.turn = 0
        self.answers.clear()

    def _messages(self) -> list[str]:
        """Return what was said so far and the user's next words; filler stands for answers that were never given."""
        words = self._words()
        messages = [next(words)]
        for turn in range(self.turn):
            filler = next(words)
            messages += [self.answers.get(turn) or filler, next(words)]
        return messages

    def _words(self) -> Iterator[str]:
        """Yield the texts of this conversation's user and fillers in turn, cut from one text."""
        prompts, scenario = self.prompts, self.scenario
        first = prompts.words(scenario.prompt, prompts.overhead)
        later = prompts.words(scenario.prompt, self.per_turn)
        filler = prompts.words(scenario.output, 0.0)
        sizes = [first, *(filler, later) * self.turn]
        width = prompts.alphabet.width
        text = prompts.text(self.number, sum(sizes)).decode()
        begin = 0
        for size in sizes:
            yield text[begin * width : (begin + size) * width - 1]
            begin += size
