"""Multi-turn conversations: each turn's prompt begins with all earlier turns and their answers."""

from __future__ import annotations

from collections.abc import Iterator

from autotuner.workload.prompts import Prompts
from autotuner.workload.requests import Request
from autotuner.workload.scenarios import ConversationScenario


class Conversations:
    """The conversations of user `user` of `user_count`: one after the other, turn by turn.

    With completions a conversation is one text of token ids, of which each turn's prompt is a longer
    prefix: generated ids stand in for the answers, because a completion does not report the ids it
    answered with. With chat the answers are the server's own; `turn_overhead_tokens` is what the
    server adds for each further pair of messages.

    Users start their first conversation at different turns, as if the earlier ones had been played,
    so that every turn is as frequent at the start as later.
    """

    def __init__(
        self,
        scenario: ConversationScenario,
        prompts: Prompts,
        user: int,
        user_count: int,
        *,
        turn_overhead_tokens: float = 0.0,
    ) -> None:
        self.scenario = scenario
        self.prompts = prompts
        self.user_count = user_count
        self.conversation_index = user
        self.turn_index = user % len(scenario.turns_of(user))
        self.turn_overhead_tokens = turn_overhead_tokens
        self.answers: dict[int, str] = {}

    def current_request(self) -> Request:
        """The current turn's request; the same until `complete_turn` or `next_conversation` is called."""
        prompt_tokens, output_tokens = self.scenario.turn_lengths(self.turn_index, self.conversation_index)
        if self.prompts.kind == "completions":
            body = self.prompts.body(self.conversation_index, prompt_tokens, output_tokens)
        else:
            body = self.prompts.chat_body(self._messages(), output_tokens)
        index = self.conversation_index * self.scenario.max_turns + self.turn_index
        return Request(index, prompt_tokens, output_tokens, body)

    def complete_turn(self, answer: str) -> None:
        """Move to the next turn, or to another conversation after the last turn."""
        self.answers[self.turn_index] = answer
        self.turn_index += 1
        if self.turn_index == len(self.scenario.turns_of(self.conversation_index)):
            self.next_conversation()

    def next_conversation(self) -> None:
        """Start another conversation; also after a failed turn, which has no answer to continue from."""
        self.conversation_index += self.user_count
        self.turn_index = 0
        self.answers.clear()

    def _messages(self) -> list[str]:
        """The messages so far and the user's next one, with filler for answers of turns that were not played."""
        texts = self._texts()
        messages = [next(texts)]
        for turn in range(self.turn_index):
            filler = next(texts)
            messages += [self.answers.get(turn) or filler, next(texts)]
        return messages

    def _texts(self) -> Iterator[str]:
        """Yield user messages and fillers alternately, cut from one text."""
        prompts, sizes = self.prompts, []
        for number, turn in enumerate(self.scenario.turns_of(self.conversation_index)[: self.turn_index + 1]):
            new_tokens, output_tokens = turn
            overhead = self.turn_overhead_tokens if number else prompts.overhead_tokens
            sizes += [prompts.word_count(new_tokens, overhead), prompts.word_count(output_tokens, 0.0)]
        sizes.pop()
        width = prompts.alphabet.piece_bytes
        text = prompts.text(self.conversation_index, sum(sizes)).decode()
        begin = 0
        for size in sizes:
            yield text[begin * width : (begin + size) * width - 1]
            begin += size
