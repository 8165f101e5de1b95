"""Expressions: what they mean, and that any other text is refused in words."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner.core import Value
from autotuner.expression import MAX_CHARACTERS, MAX_DEPTH, parse

VALUES: dict[str, Value] = {
    "tp-size": 2,
    "dp-size": 4,
    "gpus": 8,
    "fast": True,
    "dtype": "fp8",
    "share": 0.85,
    "a.b_c": 3,
}


def holds(text: str, **values: Any) -> bool | None:
    return parse(text).holds((VALUES | values).get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tp-size * dp-size == gpus", True),
        ("tp-size*dp-size==gpus", True),
        ("gpus - dp-size == 4", True),
        ("gpus -dp-size == 4", True),
        ("-tp-size < 0", True),
        ("2 + 3 * 4 == 14 and (2 + 3) * 4 == 20", True),
        ("7 // 2 == 3 and 7 % 2 == 1 and 7 / 2 == 3.5", True),
        ("1 < tp-size <= 2 < gpus", True),
        ("1 < tp-size < 2", False),
        ("share + 0.1 == 0.95 and 3 * 0.1 == 0.3", True),
        ("1e3 == 1000 and .5 == 0.5 and 2. == 2", True),
        ("fast", True),
        ("not fast", False),
        ("fast == true and fast != false", True),
        ("fast == 1", False),
        ('dtype == "fp8"', True),
        ("dtype == 'fp16'", False),
        ('dtype in ["fp8", "int8"]', True),
        ("tp-size not in [1, -2, 4]", True),
        ("not tp-size in [2]", False),
        ("tp-size > 4 or gpus > 4", True),
        ("tp-size > 4 when gpus > 8", True),
        ("tp-size > 4 when gpus == 8", False),
        ("tp-size > 4 or fast when dtype == 'fp8' and fast", True),
        ("a.b_c == 3", True),
    ],
)
def test_an_expression_says_what_it_would_in_mathematics(text, expected):
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unset > 1", None),
        ("not unset", None),
        ("unset + 1 == 1", None),
        ("unset in [1]", None),
        ("unset == unset", None),
        ("unset > 1 and tp-size == 1", False),
        ("unset > 1 and tp-size == 2", None),
        ("unset > 1 or tp-size == 2", True),
        ("tp-size == 1 when unset", None),
        ("tp-size == 2 when unset", True),
        ("unset == null", True),
        ("null != unset", False),
        ("tp-size != null", True),
        ("tp-size / (gpus - 8) > 1", None),
        ("tp-size % 0 == 0", None),
        ("dtype > 1", None),
        ("dtype * 2 == 2", None),
        ("dtype and fast", None),
    ],
)
def test_what_is_not_set_or_cannot_be_computed_is_unknown(text, expected):
    assert holds(text) is expected


def test_an_expression_knows_the_names_it_speaks_of():
    expression = parse('max-batched-tokens >= gpus when not fast or quantization == null or dtype in ["a"]')
    assert expression.names == {"max-batched-tokens", "gpus", "fast", "quantization", "dtype"}
    assert expression.required_names == expression.names - {"quantization"}
    assert expression.boolean_names == {"fast"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "something is missing at the end"),
        ("tp-size ==", "something is missing at the end"),
        ("tp-size > 1 when", "something is missing at the end"),
        ("tp-size = 2", "'=' at character 9 means nothing; write =="),
        ("fast && fast", "'&' at character 6 means nothing; write and"),
        ("tp-size \u00d7 2 == gpus", "write *"),
        ("tp-size dp-size", "'dp-size' at character 9 is out of place"),
        ("a > 1 when b > 1 when c > 1", "'when' at character 18 is out of place"),
        ("(tp-size > 1", "'(' at character 1 is not closed"),
        ("tp-size > 1)", "')' at character 12 is out of place"),
        ('dtype == "a" "b"', "out of place"),
        ("tp-size", None),
        ("2", "a comparison, or something else that is true or false, is expected, not 2"),
        ("tp-size + 1", "is expected, not tp-size + 1"),
        ("tp-size + 1 and fast", "is expected, not tp-size + 1"),
        ('tp-size > "2"', "a number is expected, not '2'"),
        ("(tp-size > 1) + 1 == 2", "a number is expected, not tp-size > 1"),
        ("tp-size > true", "a number is expected, not true"),
        ("null", "null can only be compared"),
        ("tp-size > null", "null can only be compared"),
        ("tp-size in gpus", "followed by a list"),
        ("tp-size in []", "followed by a list"),
        ("1 < tp-size in [2]", "followed by a list"),
        ("tp-size in [gpus]", "a list holds numbers"),
        ("tp-size in [null]", "a list holds numbers"),
        ("open('x')", "is expected, not open('x')"),
        ("fast.real()", "is expected"),
        ("tp-size == [2]", "is expected, not [2]"),
        ("(1, 2) == gpus", "is expected, not (1, 2)"),
        ("tp-size ** 2 == 4", "out of place"),
        ("1e999 > tp-size", "too large"),
        (f"{'not ' * (MAX_DEPTH + 1)}fast", "too many parts"),
        (f"{' ' * MAX_CHARACTERS}fast", f"at most {MAX_CHARACTERS} characters"),
    ],
)
def test_what_is_no_expression_is_refused_in_words(text, expected):
    if expected is None:
        assert parse(text).holds(VALUES.get) is None
        return
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert expected in str(caught.value)


@given(st.text(max_size=40) | st.text("ab-1. ()[]\"'=<>!+*/%,notadrwhe", max_size=40))
def test_any_text_is_an_expression_or_is_refused(text):
    try:
        expression = parse(text)
    except ValueError:
        return
    assert expression.holds(lambda name: None) in (True, False, None)


@dataclass(frozen=True)
class Meant:
    """A text, and what it should come to: a number or a truth, None for unknown."""

    text: str
    value: Any


NAMES: dict[str, Value] = {"a": 2, "b-c": 0.1, "d.e": -3, "on": True, "off": False, "word": "x", "none": None}
numbers = st.integers(0, 20) | st.sampled_from([0.1, 0.25, 0.3, 1.5])
names = st.sampled_from(["a", "b-c", "d.e", "word", "none"])


def exact(value: Any) -> Any:
    return Fraction(repr(value)) if isinstance(value, float) else value


def number(value: Any) -> bool:
    return isinstance(value, int | Fraction) and not isinstance(value, bool)


def arithmetic(first: Meant, sign: str, second: Meant) -> Meant:
    text = f"({first.text} {sign} {second.text})"
    if not number(first.value) or not number(second.value) or (sign in ("/", "//", "%") and second.value == 0):
        return Meant(text, None)
    left, right = Fraction(first.value), Fraction(second.value)
    operations = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
        "//": lambda: left // right,
        "%": lambda: left - right * (left // right),
    }
    return Meant(text, operations[sign]())


def comparison(first: Meant, sign: str, second: Meant) -> Meant:
    text = f"{first.text} {sign} {second.text}"
    ordered = number(first.value) and number(second.value)
    if sign in ("==", "!="):
        both_known = first.value is not None and second.value is not None
        return Meant(text, (first.value == second.value) == (sign == "==") if both_known else None)
    if not ordered:
        return Meant(text, None)
    left, right = first.value, second.value
    return Meant(text, {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign])


def kleene(word: str, one: Meant, other: Meant) -> Meant:
    lowest = {False: 0, None: 1, True: 2}
    pick = min if word == "and" else max
    return Meant(f"({one.text} {word} {other.text})", pick((one.value, other.value), key=lowest.__getitem__))


atoms = st.builds(lambda value: Meant(str(value), exact(value)), numbers) | st.builds(
    lambda name: Meant(name, exact(NAMES[name])), names
)
sums = st.recursive(
    atoms, lambda inner: st.builds(arithmetic, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner)
)
truths = st.recursive(
    st.sampled_from([Meant("on", True), Meant("off", False), Meant("none", None), Meant("true", True)])
    | st.builds(comparison, sums, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), sums),
    lambda inner: (
        st.builds(kleene, st.sampled_from(["and", "or"]), inner, inner)
        | st.builds(lambda one: Meant(f"(not {one.text})", None if one.value is None else not one.value), inner)
    ),
    max_leaves=8,
)


@given(truths)
def test_a_value_follows_from_its_parts(meant):
    assume(len(meant.text) <= MAX_CHARACTERS)
    assert parse(meant.text).holds(NAMES.get) is meant.value


@given(truths, truths)
def test_a_rule_with_when_is_an_implication(rule, condition):
    text = f"{rule.text} when {condition.text}"
    assume(len(text) <= MAX_CHARACTERS)
    contrary = Meant("", None if condition.value is None else not condition.value)
    assert parse(text).holds(NAMES.get) is kleene("or", rule, contrary).value
