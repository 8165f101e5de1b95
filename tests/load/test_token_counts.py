"""Usage that cannot be believed, and what is counted instead; the right numbers are those of the streams' making."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from autotuner.load.stream import DecodedResponse, decode
from tests.load.streams import DONE, delta, text, usage
from tests.servers import sse

FIRST, GAP, TOKENS = 0.1, 0.02, 20
Report = dict[str, Any] | None


def stream(
    words: Sequence[str],
    running: Callable[[int], Report] = lambda number: None,
    final: Report = None,
    *,
    finish: str = "length",
    reasoning: int = 0,
    requested: int = TOKENS,
) -> DecodedResponse:
    """A chat whose words come one every 20 ms, the first `reasoning` of them as reasoning.

    `running(n)` is the usage beside word n, `final` the usage of the last chunk.
    """
    events = [(FIRST, {**delta(role="assistant", content=""), "usage": running(0)})]
    for number, word in enumerate(words, start=1):
        channel = "reasoning_content" if number <= reasoning else "content"
        events.append((FIRST + GAP * (number - 1), {**delta(**{channel: word}), "usage": running(number)}))
    end = events[-1][0]
    events += [(end, delta(finish)), (end, {"choices": [], "usage": final})]
    times = [time for time, _ in events] + [end]
    return decode(times, [*(sse(event) for _, event in events), sse(DONE)], requested)


def time_per_token(answer: DecodedResponse) -> float:
    """TPOT as the record computes it."""
    count = sum(answer.chunk_tokens) if answer.output_tokens is None else answer.output_tokens
    return (answer.chunk_times[-1] - answer.chunk_times[0]) / (count - answer.chunk_tokens[0])


def check_exact(answer: DecodedResponse, source: str, total: int = TOKENS) -> None:
    """TTFT, TPOT and the number of tokens are those of the stream."""
    assert answer.error is None
    assert (sum(answer.chunk_tokens), answer.token_counts) == (total, source)
    assert answer.chunk_times[0] == FIRST
    assert time_per_token(answer) == pytest.approx(GAP)


WORDS = [f"word{number} " for number in range(TOKENS)]
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
PROMPT_ONLY = {"prompt_tokens": 50, "completion_tokens": 0, "total_tokens": 50}


@pytest.mark.parametrize("final", [usage(50, 20), {**usage(50, 20), "completion_tokens": 20.0}])
@pytest.mark.parametrize(
    "running",
    [
        lambda number: None,
        lambda number: NOTHING,
        lambda number: PROMPT_ONLY,
        lambda number: usage(50, 1),
        lambda number: usage(50, 20),
        lambda number: usage(50, max(0, number - 1)),
        lambda number: usage(50, max(0, number - 3)),
        lambda number: usage(50, number // 5 * 5),
    ],
    ids=["none", "zeros", "prompt only", "constant 1", "constant total", "1 behind", "3 behind", "every fifth"],
)
def test_running_usage_that_does_not_grow_with_the_text_is_not_believed_but_the_final_one_is(
    running: Callable[[int], Report], final: Report
):
    answer = stream(WORDS, running, final)
    check_exact(answer, "usage")
    assert answer.prompt_tokens == 50


@pytest.mark.parametrize(
    "unbelievable",
    [
        None,
        NOTHING,
        PROMPT_ONLY,
        usage(50, 1),
        usage(50, 19),
        usage(50, 4096),
        usage(50, 2_000_000_000),
        {"completion_tokens": "20"},
        {"completion_tokens": None},
        {"completion_tokens": -20},
        {"completion_tokens": 19.5},
        "20 tokens",
        [20],
    ],
)
@pytest.mark.parametrize("is_running", [False, True])
def test_without_a_usage_that_fits_the_events_are_counted(unbelievable: Any, is_running: bool):
    def running(number: int) -> Any:
        return unbelievable if is_running else None

    answer = stream(WORDS, running, unbelievable)
    check_exact(answer, "events")
    assert answer.output_tokens is None


@pytest.mark.parametrize("finish", ["length", "stop"])
@pytest.mark.parametrize(
    "count",
    [lambda number: sum(map(len, WORDS[:number])), lambda number: 50 + number, lambda number: 7 * number],
    ids=["characters", "with the prompt", "seven each"],
)
def test_a_count_of_something_else_is_not_believed(count: Callable[[int], int], finish: str):
    words = [word[-4:] for word in WORDS]
    check_exact(stream(words, lambda number: usage(50, count(number)), usage(50, count(20)), finish=finish), "events")


@pytest.mark.parametrize("total", [22, 40, 70])
def test_a_server_that_stopped_at_the_limit_made_no_more_tokens(total: int):
    check_exact(stream(["fairly long words "] * TOKENS, final=usage(50, total)), "events")


def test_a_server_that_ignores_the_limit_is_believed_if_its_text_bears_the_count_out():
    answer = stream(["two words"] * TOKENS, final=usage(50, 2 * TOKENS), finish="stop", requested=10)
    assert (answer.output_tokens, answer.token_counts) == (40, "usage")
    check_exact(stream(WORDS, final=usage(50, TOKENS), requested=10), "usage")


@pytest.mark.parametrize("behind", [1, 2, 5])
def test_a_count_that_stays_behind_to_the_end_is_not_believed(behind: int):
    check_exact(stream(WORDS, lambda number: usage(50, max(0, number - behind))), "events")


def test_a_constant_that_echoes_the_limit_is_not_believed_where_the_answer_stops_before_it():
    check_exact(stream(WORDS[:12], lambda number: usage(50, 20), finish="stop"), "events", total=12)


def test_zeros_after_the_usage_do_not_replace_it():
    answer = decode(
        [1.0, 2.0, 3.0, 4.0],
        [sse(text("one ")), sse({**text("two", "length"), "usage": usage(50, 2)}), sse({"usage": NOTHING}), sse(DONE)],
        2,
    )
    assert (answer.prompt_tokens, answer.output_tokens, answer.token_counts) == (50, 2, "usage")


@pytest.mark.parametrize("steps", [(1,) * 20, (1, 4, 4, 4, 4, 3), (2, 6, 6, 6)])
def test_running_usage_that_grows_with_the_text_says_how_many_tokens_each_chunk_carries(steps: tuple[int, ...]):
    words = ["x" * 5 * step for step in steps]
    answer = stream(words, lambda number: usage(50, sum(steps[:number])), usage(50, 20))
    assert list(answer.chunk_tokens) == list(steps)
    assert (answer.output_tokens, answer.token_counts) == (20, "running usage")


def test_the_usage_of_an_answer_in_one_event_is_no_running_usage():
    event = {**text("word " * 20, "length"), "usage": usage(50, 20)}
    assert decode([0.0], [sse(event)], 20).token_counts == "usage"


def reasoning_apart(number: int, shown: int = 15, **more: Any) -> dict[str, Any]:
    """Usage whose completion leaves the reasoning out, after `number` tokens of which `shown` are reasoning."""
    reasoning = min(number, shown)
    details = {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return {**usage(50, number - reasoning), "total_tokens": 50 + number, **details, **more}


@pytest.mark.parametrize(
    "final",
    [
        reasoning_apart(20),
        {name: value for name, value in reasoning_apart(20).items() if name != "total_tokens"},
        {name: value for name, value in reasoning_apart(20).items() if name != "completion_tokens_details"},
        {name: value for name, value in reasoning_apart(20).items() if name != "completion_tokens"},
        {**usage(50, 20), "completion_tokens_details": {"reasoning_tokens": 15}},
        reasoning_apart(20, prompt_tokens_details={"cached_tokens": 15}),
        {
            "input_tokens": 50,
            "output_tokens": 5,
            "total_tokens": 70,
            "output_tokens_details": {"reasoning_tokens": 15},
        },
    ],
    ids=["all", "no total", "no details", "no completion", "inside", "as many cached", "other names"],
)
def test_reasoning_outside_the_completion_counts(final: dict[str, Any]):
    answer = stream(WORDS, final=final, reasoning=15)
    check_exact(answer, "usage")
    assert answer.first_output == pytest.approx(FIRST + 15 * GAP)


def test_reasoning_outside_a_running_completion_counts():
    check_exact(stream(WORDS, reasoning_apart, reasoning_apart(20), reasoning=15), "running usage")


@pytest.mark.parametrize("cached", [16, 48])
def test_a_total_that_counts_cached_tokens_apart_is_no_output(cached: int):
    final = {**usage(50, 20), "total_tokens": 70 + cached, "prompt_tokens_details": {"cached_tokens": cached}}
    check_exact(stream(WORDS, final=final), "usage")


@pytest.mark.parametrize(
    "final",
    [
        {**usage(50, 20), "completion_tokens_details": {"reasoning_tokens": 15}},
        reasoning_apart(20),
        {**usage(50, 5), "total_tokens": 70},
    ],
    ids=["inside", "outside", "in the total alone"],
)
def test_reasoning_that_is_not_shown_came_before_the_first_text(final: dict[str, Any]):
    answer = stream(WORDS[:5], final=final)
    assert list(answer.chunk_tokens) == [16, 1, 1, 1, 1]
    assert time_per_token(answer) == pytest.approx(GAP)


def test_tokens_for_which_there_is_far_too_little_text_were_made_where_no_text_came():
    """Reasoning that nobody tells of is before the first text; special tokens that are not shown leave a pause."""
    hidden = stream(["a", "b", "c", "d"], final=usage(50, 20))
    assert list(hidden.chunk_tokens) == [17, 1, 1, 1]
    events = [(0.1, text("a")), (0.12, text("b")), (0.14, text("c")), (0.46, text("", "length"))]
    times = [time for time, _ in events]
    silent = decode([*times, 0.46], [*(sse(event) for _, event in events), sse({"usage": usage(50, 19)})], 19)
    assert time_per_token(silent) == pytest.approx(GAP)


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_proxy_that_splits_tokens_adds_none(pieces: int):
    """The server stopped at the limit, so that it made as many tokens as were asked for."""
    words = ["wo"] * TOKENS * pieces
    answer = stream(words, final=usage(50, TOKENS))
    assert (sum(answer.chunk_tokens), answer.token_counts) == (TOKENS, "usage")
    assert answer.chunk_times[-1] - answer.chunk_times[0] == pytest.approx(GAP * (len(words) - 1))


def test_a_role_in_every_chunk_hides_no_token_without_text():
    """Every fourth token shows nothing, the first one too."""
    words = [word if number % 4 else "" for number, word in enumerate(WORDS)]
    events = [delta(role="assistant", content=""), *(delta(role="assistant", content=word) for word in words)]
    times = [FIRST, *(FIRST + GAP * number for number in range(TOKENS))]
    tail = [sse(delta("length")), sse({"choices": [], "usage": usage(50, TOKENS)})]
    check_exact(decode([*times, times[-1], times[-1]], [*map(sse, events), *tail], TOKENS), "usage")


@pytest.mark.parametrize("place", ["choice", "x_groq"])
def test_usage_in_another_place_is_read(place: str):
    last = delta("length", content="two")
    if place == "choice":
        last["choices"][0]["usage"] = usage(50, 7)
    else:
        last["x_groq"] = {"usage": usage(50, 7)}
    answer = decode([1.0, 2.0], [sse(delta(content="one and more")), sse(last)], 7)
    assert (answer.prompt_tokens, answer.output_tokens) == (50, 7)


def test_listed_tokens_count_where_there_is_no_usage():
    answer = decode([1.0, 2.0], [sse(text("a", token_ids=[5])), sse(text("bc", "length", token_ids=[6, 7]))], 3)
    assert (list(answer.chunk_tokens), answer.token_counts) == ([1, 2], "listed tokens")
