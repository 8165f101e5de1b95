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
        self, scenario: Conversation, prompts: Prompts, lane: int, lane_count: int, *, turn_overhead_tokens: float = 0.0
    ) -> None:
        self.scenario = scenario
        self.prompts = prompts
        self.lane_count = lane_count
        self.conversation_index = lane
        self.turn_index = lane % scenario.turns
        self.turn_overhead_tokens = turn_overhead_tokens
        self.answers: dict[int, str] = {}

    def current_request(self) -> Request:
        """Return the request of the turn whose time has come; it is the same until `answered` or `broken_off`."""
        prompt_tokens, output_tokens = self.scenario.turn_lengths(self.turn_index)
        if self.prompts.kind == "completions":
            body = self.prompts.body(self.conversation_index, prompt_tokens, output_tokens)
        else:
            body = self.prompts.chat_body(self._messages(), output_tokens)
        index = self.conversation_index * self.scenario.turns + self.turn_index
        return Request(index, prompt_tokens, output_tokens, body)

    def complete_turn(self, answer: str) -> None:
        """Go on to the next turn, or to another conversation after the last."""
        self.answers[self.turn_index] = answer
        self.turn_index += 1
        if self.turn_index == self.scenario.turns:
            self.next_conversation()

    def next_conversation(self) -> None:
        """Begin another conversation: a turn that failed has no answer to go on from."""
        self.conversation_index += self.lane_count
        self.turn_index = 0
        self.answers.clear()

    def _messages(self) -> list[str]:
        """Return what was said so far and the user's next words; filler stands for answers that were never given."""
        words = self._texts()
        messages = [next(words)]
        for turn in range(self.turn_index):
            filler = next(words)
            messages += [self.answers.get(turn) or filler, next(words)]
        return messages

    def _texts(self) -> Iterator[str]:
        """Yield the texts of this conversation's user and fillers in turn, cut from one text."""
        prompts, scenario = self.prompts, self.scenario
        first = prompts.word_count(scenario.prompt_tokens, prompts.overhead_tokens)
        later = prompts.word_count(scenario.prompt_tokens, self.turn_overhead_tokens)
        filler = prompts.word_count(scenario.output_tokens, 0.0)
        sizes = [first, *(filler, later) * self.turn_index]
        width = prompts.alphabet.piece_bytes
        text = prompts.text(self.conversation_index, sum(sizes)).decode()
        begin = 0
        for size in sizes:
            yield text[begin * width : (begin + size) * width - 1]
            begin += size
