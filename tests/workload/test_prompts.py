from __future__ import annotations

import json
from itertools import combinations, islice
from math import ceil, log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import RequestForm
from autotuner.workload import scenarios
from autotuner.workload.prompts import Prompts, ordinary_token_ids
from autotuner.workload.requests import RequestStream, draw_shapes


def prompts(**changes: Any) -> Prompts:
    return Prompts(
        **{"kind": "completions", "model": "m", "vocab_size": 32_000, "salt": "s", "phase": "window", **changes}
    )


def ids(prompt_builder: Prompts, index: int = 0, tokens: int = 50, output: int = 5) -> list[int]:
    token_ids: list[int] = json.loads(prompt_builder.body(index, tokens, output))["prompt"]
    return token_ids


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(2, 300_000), st.integers(0, 10**9))
def test_a_prompt_has_exactly_the_requested_length_and_ordinary_tokens(tokens: int, vocab_size: int, index: int):
    token_ids = ids(prompts(vocab_size=vocab_size), index, tokens)
    assert len(token_ids) == tokens
    assert set(token_ids) <= set(ordinary_token_ids(vocab_size))


@pytest.mark.parametrize(
    ("vocab_size", "special"), [(32_000, 258), (128_256, 128_000), (151_936, 151_643), (256_000, 107)]
)
def test_special_tokens_of_known_vocabularies_are_outside_the_range(vocab_size: int, special: int):
    assert special not in ordinary_token_ids(vocab_size)
    assert len(ordinary_token_ids(vocab_size)) > vocab_size * 0.8


def test_a_prompt_of_50000_tokens_is_whole():
    assert len(ids(prompts(), tokens=50_000)) == 50_000


def test_the_first_token_of_every_request_is_unique():
    prompt_builder = prompts()
    assert len({ids(prompt_builder, index)[0] for index in range(2000)}) == 2000


alphabets = st.one_of(
    st.integers(10, 150_000).map(lambda size: {"kind": "completions", "vocab_size": size + size // 3 + 1100}),
    st.integers(10, 5000).map(lambda size: {"kind": "chat", "words": tuple(f"w{n:04}" for n in range(size))}),
)
places = st.tuples(st.sampled_from(["one", "two"]), st.sampled_from(["warm-up", "window"]), st.integers(0, 10**6))


@settings(max_examples=80, deadline=None)
@given(alphabets, st.lists(places, min_size=2, max_size=12, unique=True))
def test_any_two_prompts_of_any_runs_differ_in_their_first_tokens_however_few_there_are_to_choose_from(
    alphabet: dict[str, Any], drawn: list[tuple[str, str, int]]
):
    begun: dict[tuple[str, str, int], list[Any]] = {}
    for salt, phase, index in drawn:
        prompt_builder = prompts(**alphabet, salt=salt, phase=phase)
        begun[salt, phase, index] = (ids if prompt_builder.kind == "completions" else words)(prompt_builder, index, 40)
    size, nonce_length = len(prompt_builder.alphabet.pieces), prompt_builder.alphabet.nonce_length
    assert size**nonce_length >= 1 << 48
    for (place, prompt), (other, another) in combinations(begun.items(), 2):
        assert prompt[:nonce_length] != another[:nonce_length]
        if place[:2] == other[:2]:
            apart = abs(place[2] - other[2])
            assert prompt[: ceil(log(apart + 1, size)) + 1] != another[: ceil(log(apart + 1, size)) + 1]
            assert prompt[0] != another[0] or apart % size == 0


@pytest.mark.parametrize("change", [{"salt": "t"}, {"phase": "warm-up"}])
def test_another_run_or_phase_shares_no_leading_tokens(change: dict[str, str]):
    beginnings = {tuple(ids(prompts(), index)[:4]) for index in range(500)}
    assert not beginnings & {tuple(ids(prompts(**change), index)[:4]) for index in range(500)}


def test_the_same_run_phase_and_index_give_the_same_prompt():
    assert prompts().body(7, 50, 5) == prompts().body(7, 50, 5)


def test_a_shared_prefix_is_the_same_for_all_and_what_follows_is_unique():
    prompt_builder = prompts(prefix_tokens=20)
    warm = prompts(prefix_tokens=20, phase="warm-up")
    first, second, other = ids(prompt_builder, 0), ids(prompt_builder, 1), ids(warm, 0)
    assert len(first) == 50
    assert first[:20] == second[:20] == other[:20]
    assert len({first[20], second[20], other[20]}) == 3


def test_two_runs_do_not_share_their_shared_prefix():
    assert ids(prompts(prefix_tokens=20))[:4] != ids(prompts(prefix_tokens=20, salt="t"))[:4]


def test_a_completion_asks_for_a_fixed_length_and_usage():
    body = json.loads(prompts().body(0, 3, 17))
    assert body["max_tokens"] == 17
    assert body["ignore_eos"] is True
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["model"] == "m"


def test_a_model_name_with_quotes_is_still_json():
    assert json.loads(prompts(model='a"b\\c').body(0, 3, 1))["model"] == 'a"b\\c'


def words(prompt_builder: Prompts, index: int = 0, tokens: int = 50) -> list[str]:
    messages = json.loads(prompt_builder.body(index, tokens, 5))["messages"]
    assert [message["role"] for message in messages] == ["user"]
    contents: list[str] = messages[0]["content"].split(" ")
    return contents


@given(st.integers(1, 500), st.integers(0, 10**6))
def test_a_chat_prompt_has_one_word_per_token(tokens: int, index: int):
    assert len(words(prompts(kind="chat"), index, tokens)) == tokens


def test_a_chat_prompt_makes_room_for_what_the_server_adds():
    assert len(words(prompts(kind="chat", overhead_tokens=30, tokens_per_word=1.0), tokens=100)) == 70
    assert len(words(prompts(kind="chat", overhead_tokens=10, tokens_per_word=1.5), tokens=100)) == 60
    assert len(words(prompts(kind="chat", overhead_tokens=300), tokens=100)) == 1


def test_chat_prompts_begin_differently():
    prompt_builder = prompts(kind="chat")
    assert len({tuple(words(prompt_builder, index)[:3]) for index in range(1000)}) == 1000


def test_chat_prompts_share_a_prefix_where_the_scenario_does():
    prompt_builder = prompts(kind="chat", prefix_tokens=20)
    first, second = words(prompt_builder, 0), words(prompt_builder, 1)
    assert first[:20] == second[:20]
    assert first[20] != second[20]


def requests(salt: str, *, seed: int = 3, phase: str = "window") -> RequestStream:
    scenario = scenarios.parse("N(50,20)/(30,10)")
    return RequestStream(scenario, prompts(salt=salt), seed=seed, phase=phase)


def lengths(stream: RequestStream) -> list[tuple[int, int]]:
    return [(request.prompt_tokens, request.output_tokens) for request, _ in zip(stream, range(40), strict=False)]


def test_two_candidates_get_the_same_lengths_but_not_the_same_prompts():
    assert lengths(requests("one")) == lengths(requests("two"))
    assert next(requests("one")).body != next(requests("two")).body


def test_another_seed_or_phase_draws_other_lengths():
    assert lengths(requests("one")) != lengths(requests("one", seed=4))
    assert lengths(requests("one")) != lengths(requests("one", phase="warm-up"))


def test_requests_are_numbered_and_their_bodies_have_the_drawn_lengths():
    stream = requests("one")
    for number in range(20):
        request = next(stream)
        body = json.loads(request.body)
        assert request.index == number
        assert len(body["prompt"]) == request.prompt_tokens
        assert body["max_tokens"] == request.output_tokens


def ids_with_blocks(index: int, tokens: int, *block_ids: int, **changes: Any) -> list[int]:
    body = prompts(**{"block_tokens": 8, **changes}).body(index, tokens, 5, block_ids)
    token_ids: list[int] = json.loads(body)["prompt"]
    return token_ids


def test_prompts_share_the_tokens_of_their_equal_leading_blocks_and_no_others():
    first, second, third = (ids_with_blocks(n, 24, *blocks) for n, blocks in enumerate([(1, 2, 3), (1, 2, 4), (5, 2)]))
    assert [len(token_ids) for token_ids in (first, second, third)] == [24] * 3
    assert first[:16] == second[:16]
    assert first[16] != second[16]
    # an equal block after another one is the same tokens, which a prefix cache cannot use
    assert (first[:8] != third[:8], first[8:16] == third[8:16]) == (True, True)
    assert len(set(map(tuple, (first[16:], second[16:], third[16:])))) == 3


def test_the_last_block_is_cut_short_blocks_without_room_are_left_out_and_the_rest_is_unique():
    assert ids_with_blocks(0, 20, 1, 2, 3) == ids_with_blocks(1, 24, 1, 2, 3)[:20]
    assert ids_with_blocks(0, 10, 1, 2, 3) == ids_with_blocks(1, 10, 1, 2, 4)
    alike = ids_with_blocks(0, 20, 1), ids_with_blocks(1, 20, 1)
    assert alike[0][:8] == alike[1][:8]
    assert alike[0][8] != alike[1][8]


@pytest.mark.parametrize("changes", [{"salt": "other"}, {"phase": "warm-up"}])
def test_another_load_point_or_phase_has_other_blocks(changes: dict[str, str]):
    assert ids_with_blocks(0, 16, 1, 2)[0] != ids_with_blocks(0, 16, 1, 2, **changes)[0]


def test_chat_prompts_share_the_words_of_their_equal_blocks():
    builder = prompts(kind="chat", block_tokens=8, overhead_tokens=4.0, tokens_per_word=2.0)
    first, second = (
        json.loads(builder.body(n, 24, 5, ids))["messages"][0]["content"].split()
        for n, ids in enumerate([(1, 2), (1, 3)])
    )
    assert len(first) == len(second) == 10
    assert first[:4] == second[:4]
    assert first[4] != second[4]


def trace_of_blocks(folder: Path) -> scenarios.Scenario:
    rows = [(0, 40, [7, 8]), (1, 33, [7, 9]), (2, 20, [])]
    lines = ({"timestamp": t, "input_length": n, "output_length": 5, "hash_ids": blocks} for t, n, blocks in rows)
    (folder / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return scenarios.parse(f"file:{folder / 'trace.jsonl'}")


def test_rows_that_share_blocks_come_in_order_and_a_repetition_shares_none_with_those_before(tmp_path: Path):
    scenario = trace_of_blocks(tmp_path)
    replayed = draw_shapes(scenario, seed=0, phase="window", arrival="trace")
    assert list(replayed) == [(40, 5, (7, 8)), (33, 5, (7, 9)), (20, 5, ())]
    shapes = [*islice(draw_shapes(scenario, seed=0, phase="window"), 6)]
    assert [shape[:2] for shape in shapes] == [(40, 5), (33, 5), (20, 5)] * 2
    assert [shape.block_ids for shape in shapes] == [(7, 8), (7, 9), (), (17, 18), (17, 19), ()]


def test_several_workers_share_the_blocks_of_one_trace(tmp_path: Path):
    scenario = trace_of_blocks(tmp_path)
    streams = [
        RequestStream(
            scenario, prompts(block_tokens=32), seed=0, phase="window", arrival="trace", worker_index=n, worker_count=2
        )
        for n in range(2)
    ]
    first, second = (json.loads(next(stream).body)["prompt"] for stream in streams)
    assert (len(first), len(second)) == (40, 33)
    assert first[:32] == second[:32]
    assert first[32] != second[32]


USUAL_FIELDS: dict[str, Any] = {"max_tokens": 5, "temperature": 0, "ignore_eos": True, "stream": True}
USUAL_FIELDS |= {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("kind", ["completions", "chat"])
@pytest.mark.parametrize(
    ("form", "removed", "added"),
    [
        (RequestForm(), (), {}),
        (RequestForm(omit=("ignore_eos", "temperature")), ("ignore_eos", "temperature"), {}),
        (RequestForm(length_field="max_completion_tokens"), ("max_tokens",), {"max_completion_tokens": 5}),
        (RequestForm(omit=("max_tokens",)), ("max_tokens",), {}),
        (RequestForm(length_field="max_completion_tokens", omit=("max_completion_tokens",)), ("max_tokens",), {}),
        (RequestForm(extra_body={"min_p": 0.1, "temperature": 1}), (), {"min_p": 0.1, "temperature": 1}),
        (
            RequestForm(extra_body={"stream_options": {"x": 1}}),
            (),
            {"stream_options": {"include_usage": True, "x": 1}},
        ),
        (RequestForm(omit=tuple(USUAL_FIELDS)), tuple(USUAL_FIELDS), {}),
    ],
)
def test_a_body_has_the_fields_of_its_form(kind: str, form: RequestForm, removed: tuple[str, ...], added: Any):
    builder = prompts(kind=kind, form=form)
    bodies = [builder.body(0, 50, 5)] + ([builder.chat_body(["hello"], 5)] if kind == "chat" else [])
    expected = {name: value for name, value in USUAL_FIELDS.items() if name not in removed} | added
    for text in bodies:
        body = json.loads(text)
        assert {name: value for name, value in body.items() if name not in ("model", "prompt", "messages")} == expected


def test_a_completion_may_have_a_prompt_of_words():
    builder = prompts(form=RequestForm(prompts="text"), overhead_tokens=7, tokens_per_word=2)
    body = json.loads(builder.body(0, 107, 5))
    assert len(body["prompt"].split()) == 50
    assert body["prompt"] != json.loads(builder.body(1, 107, 5))["prompt"]
