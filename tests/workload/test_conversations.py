from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.workload import scenarios
from autotuner.workload.conversations import Conversations
from autotuner.workload.prompts import Prompts
from autotuner.workload.scenarios import Conversation, ConversationScenario

SCENARIO = Conversation(3, 20, 8)


def make_conversations(
    user: int = 0, users: int = 4, *, scenario: ConversationScenario = SCENARIO, **options: Any
) -> Conversations:
    turn_overhead = options.pop("turn_overhead_tokens", 0.0)
    prompts = Prompts(
        **{"kind": "completions", "model": "m", "vocab_size": 32_000, "salt": "s", "phase": "p", **options}
    )
    return Conversations(scenario, prompts, user, users, turn_overhead_tokens=turn_overhead)


def played(conversations: Conversations, requests: int, answer: str = "") -> list[dict[str, Any]]:
    bodies = []
    for _ in range(requests):
        bodies.append(json.loads(conversations.current_request().body))
        conversations.complete_turn(answer)
    return bodies


def test_each_prompt_of_ids_begins_with_the_one_before_and_has_room_for_its_answer():
    prompts = [body["prompt"] for body in played(make_conversations(), 3)]
    assert [len(prompt) for prompt in prompts] == [20, 48, 76]
    assert prompts[1][:20] == prompts[0]
    assert prompts[2][:48] == prompts[1]


def test_after_the_last_turn_another_conversation_begins():
    prompts = [body["prompt"] for body in played(make_conversations(), 6)]
    assert [len(prompt) for prompt in prompts] == [20, 48, 76] * 2
    assert prompts[3][0] != prompts[0][0]


@given(st.integers(1, 6), st.integers(2, 5))
def test_no_two_turns_of_any_users_have_the_same_number_or_conversations_the_same_beginning(users: int, turns: int):
    scenario = Conversation(turns, 10, 3)
    all_users = [make_conversations(user, users, scenario=scenario) for user in range(users)]
    requests = []
    for conversations in all_users:
        for _ in range(2 * turns):
            requests.append(conversations.current_request())
            conversations.complete_turn("")
    assert len({request.index for request in requests}) == len(requests)
    first_tokens: dict[int, set[int]] = {}
    for request in requests:
        first_tokens.setdefault(request.index // turns, set()).add(json.loads(request.body)["prompt"][0])
    assert all(len(first) == 1 for first in first_tokens.values())
    assert len(set.union(*first_tokens.values())) == len(first_tokens)


def test_users_begin_at_different_turns():
    assert [len(json.loads(make_conversations(user).current_request().body)["prompt"]) for user in range(4)] == [
        20,
        48,
        76,
        20,
    ]


def test_a_turn_that_failed_ends_its_conversation():
    conversations = make_conversations()
    first = conversations.current_request()
    assert conversations.current_request().body == first.body
    conversations.complete_turn("")
    conversations.next_conversation()
    after = conversations.current_request()
    assert after.prompt_tokens == 20
    assert after.index == 4 * SCENARIO.turns


def messages(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


def test_a_chat_repeats_what_was_said_and_what_was_answered():
    first, second, third = (messages(body) for body in played(make_conversations(kind="chat"), 3, answer='So "it" is.'))
    assert [role for role, _ in third] == ["user", "assistant", "user", "assistant", "user"]
    assert second[:1] == first
    assert third[:3] == second
    assert second[1][1] == third[3][1] == 'So "it" is.'
    assert [len(content.split()) for role, content in third if role == "user"] == [20, 20, 20]


def test_a_chat_has_filler_where_an_answer_was_never_given():
    body = json.loads(make_conversations(1, kind="chat").current_request().body)
    assert [len(content.split()) for _, content in messages(body)] == [20, 8, 20]


def test_a_chat_makes_room_for_what_the_server_adds_to_each_message():
    conversations = make_conversations(
        2, kind="chat", overhead_tokens=10.0, tokens_per_word=2.0, turn_overhead_tokens=8.0
    )
    sizes = [len(content.split()) for _, content in messages(json.loads(conversations.current_request().body))]
    assert sizes == [5, 4, 6, 4, 6]


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_a_turn_asks_for_a_fixed_length_and_usage(kind: str):
    body = json.loads(make_conversations(kind=kind).current_request().body)
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (8, True, True)
    assert body["stream_options"] == {"include_usage": True}


def recorded(folder: Path, *conversations: list[tuple[int, int]]) -> ConversationScenario:
    """A ShareGPT file whose conversations have turns of these (prompt, answer) tokens."""
    rows = [
        {
            "conversations": [
                {"from": role, "value": "x" * 4 * tokens}
                for turn in turns
                for role, tokens in zip(("human", "gpt"), turn, strict=True)
            ]
        }
        for turns in conversations
    ]
    (folder / "chats.json").write_text(json.dumps(rows))
    scenario = scenarios.parse(f"file:{folder / 'chats.json'}")
    assert isinstance(scenario, ConversationScenario)
    return scenario


def test_recorded_conversations_are_played_in_turn_with_their_own_lengths(tmp_path: Path):
    scenario = recorded(tmp_path, [(20, 8), (5, 3), (9, 2)], [(30, 4)])
    bodies = played(make_conversations(0, 1, scenario=scenario), 8)
    prompts = [body["prompt"] for body in bodies]
    assert [(len(body["prompt"]), body["max_tokens"]) for body in bodies] == [
        *[(20, 8), (33, 3), (45, 2), (30, 4)],
        *[(20, 8), (33, 3), (45, 2), (30, 4)],
    ]
    assert prompts[1][:20] == prompts[0]
    assert prompts[2][:33] == prompts[1]
    # played again, a conversation has other words
    assert prompts[4][0] != prompts[0][0]


def test_users_of_recorded_conversations_begin_at_different_turns_of_different_ones(tmp_path: Path):
    scenario = recorded(tmp_path, [(20, 8), (5, 3)], [(30, 4), (7, 1)], [(40, 4)])
    firsts = [make_conversations(user, 3, scenario=scenario).current_request() for user in range(3)]
    assert [request.prompt_tokens for request in firsts] == [20, 41, 40]
    assert len({request.index for request in firsts}) == 3


def test_a_recorded_chat_has_the_lengths_of_each_message(tmp_path: Path):
    scenario = recorded(tmp_path, [(20, 8), (5, 3), (9, 2)])
    third = played(make_conversations(kind="chat", scenario=scenario), 3)[2]
    assert [len(content.split()) for _, content in messages(third)] == [20, 8, 5, 3, 9]
    assert third["max_tokens"] == 2
