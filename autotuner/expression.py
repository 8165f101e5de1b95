"""Short expressions over parameters, such as `tp-size * dp-size == gpus`: read as a tree, never run as code.

They have names, numbers, text in quotes, true, false and null; + - * / // %; == != < <= > >=, in and
not in a list; and, or, not, parentheses; and RULE when CONDITION. A dash inside a name belongs to it,
so a minus between names has spaces around it. Numbers are exact. What is not set is unknown, and so is
what follows from it: a truth is true, false or unknown.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from autotuner.core import Value

Known = bool | int | Fraction | str
Look = Callable[[str], Value]
"""The value of a name; None where it is not set."""

LONGEST = 300
DEEPEST = 50
"""Characters, and levels of its tree, of an expression that is still short."""

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<name>[A-Za-z_][\w.]*(?:-[\w.]+)*)"
    r"|(?P<sign>==|!=|<=|>=|//|[-+*/%<>()\[\],])"
)
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "\u00d7": "*"}
_WORDS = {"and": "and", "or": "or", "not": "not", "in": "in", "true": "True", "false": "False", "null": "None"}
_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDERS: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Expression:
    """A text that was read.

    `names` are all it speaks of, `needed` those without which it is unknown, and `switches` those
    that it takes for true or false.
    """

    text: str
    root: ast.expr
    names: frozenset[str]
    needed: frozenset[str]
    switches: frozenset[str]

    def holds(self, look: Look) -> bool | None:
        """Whether it is true; None where that is unknown."""
        return _truth(_value(self.root, look))


@cache
def parse(text: str) -> Expression:
    """Read an expression; ValueError says what is wrong with it, and where."""
    if len(text) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters, not {len(text)}")
    tokens = _tokens(text)
    rule, condition = tokens, None
    for position, token in enumerate(tokens):
        if token.text == "when" and token.kind == "name":
            rule, condition = tokens[:position], tokens[position + 1 :]
            break
    root = _tree(text, rule)
    if condition is not None:
        root = ast.BoolOp(ast.Or(), [root, ast.UnaryOp(ast.Not(), _tree(text, condition))])
    reading = _Reading(text)
    reading.check(root, "truth")
    return Expression(text, root, *map(frozenset, (reading.names, reading.needed, reading.switches)))


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int

    def __str__(self) -> str:
        """As Python spells it; a name by the place at which it stands."""
        if self.kind == "text":
            return ascii(self.text[1:-1])
        return _WORDS.get(self.text, f"name{self.place}") if self.kind == "name" else self.text


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        match = _TOKEN.match(text, place)
        if match is None:
            meant = f"; write {_MEANT[text[place]]}" if text[place] in _MEANT else ""
            raise _wrong(text, f"'{text[place]}' at character {place + 1} means nothing{meant}")
        found.append(_Token(str(match.lastgroup), match.group(), place))
        place = match.end()
    return found


def _tree(text: str, tokens: Sequence[_Token]) -> ast.expr:
    """The tree of tokens, with the names as they were written."""
    spelled = [str(token) for token in tokens]
    neighbours = itertools.pairwise(tokens)
    misplaced = next((after for before, after in neighbours if before.kind == after.kind == "text"), None)
    if misplaced is not None:
        raise _wrong(text, f"'{misplaced.text}' at character {misplaced.place + 1} is out of place")
    try:
        root = ast.parse(" ".join(spelled), mode="eval").body
    except SyntaxError as error:
        raise _misplaced(text, tokens, error) from error
    except (MemoryError, RecursionError) as error:
        raise _wrong(text, "it is nested too deeply") from error
    names = {str(token): token.text for token in tokens if token.kind == "name" and token.text not in _WORDS}
    for node in ast.walk(root):
        if isinstance(node, ast.Name):
            node.id = names[node.id]
    return root


def _misplaced(text: str, tokens: Sequence[_Token], error: SyntaxError) -> ValueError:
    """What Python finds wrong with the spelled tokens, said of the text."""
    column, starts, start = (error.offset or 0) - 1, [], 0
    for token in tokens:
        starts.append(start)
        start += len(str(token)) + 1
    if not 0 <= column < start - 1:
        return _wrong(text, "something is missing at the end")
    near = next(token for token, at in zip(reversed(tokens), reversed(starts), strict=True) if at <= column)
    said = "is not closed" if "never closed" in error.msg else "is out of place"
    return _wrong(text, f"'{near.text}' at character {near.place + 1} {said}")


Kind = Literal["truth", "number", "value", "any"]
"""What is expected somewhere; null is a value only where it is compared with == or !=, which is "any"."""


class _Reading:
    """Checks a tree, and notes the names in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.needed: set[str] = set()
        self.switches: set[str] = set()

    def check(self, node: ast.expr, wanted: Kind, depth: int = 0) -> None:
        """Refuse what is no such expression, or not of the kind that is wanted."""
        if depth > DEEPEST:
            raise _wrong(self.text, "it has too many parts")
        below = depth + 1
        match node:
            case ast.Name(id=name):
                self.names.add(name)
                self.needed |= {name} if wanted != "any" else set()
                self.switches |= {name} if wanted == "truth" else set()
            case ast.Constant(value=value):
                self._check_literal(value, wanted)
            case ast.BoolOp(values=parts) if wanted != "number":
                for part in parts:
                    self.check(part, "truth", below)
            case ast.UnaryOp(op=ast.Not(), operand=part) if wanted != "number":
                self.check(part, "truth", below)
            case ast.UnaryOp(op=ast.USub(), operand=part) if wanted != "truth":
                self.check(part, "number", below)
            case ast.BinOp(left=left, op=op, right=right) if wanted != "truth" and type(op) in _ARITHMETIC:
                self.check(left, "number", below)
                self.check(right, "number", below)
            case ast.Compare() if wanted != "number":
                self._check_comparison(node, below)
            case _:
                raise self._unexpected(node, wanted)

    def _check_comparison(self, node: ast.Compare, depth: int) -> None:
        sides = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, sides, node.comparators, strict=False):
            match op:
                case ast.In() | ast.NotIn():
                    if len(node.ops) > 1 or not isinstance(right, ast.List) or not right.elts:
                        raise _wrong(self.text, "'in' is followed by a list, such as [1, 2], and nothing else")
                    for item in right.elts:
                        if _literal(item) is None:
                            raise _wrong(self.text, "a list holds numbers, true, false and text in quotes")
                    self.check(left, "value", depth)
                case ast.Eq() | ast.NotEq():
                    null = any(isinstance(side, ast.Constant) and side.value is None for side in (left, right))
                    self.check(left, "any" if null else "value", depth)
                    self.check(right, "any" if null else "value", depth)
                case _:
                    self.check(left, "number", depth)
                    self.check(right, "number", depth)

    def _check_literal(self, value: Any, wanted: Kind) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(self.text, "a number is too large")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {"truth": isinstance(value, bool), "number": is_number, "value": value is not None, "any": True}
        if not fits[wanted]:
            raise self._unexpected(ast.Constant(value), wanted)

    def _unexpected(self, node: ast.expr, wanted: Kind) -> ValueError:
        if isinstance(node, ast.Constant) and node.value is None:
            return _wrong(self.text, "null can only be compared with == and !=")
        nouns = {"truth": "a comparison, or something else that is true or false,", "number": "a number"}
        said = nouns.get(wanted, "a parameter, a number or text in quotes")
        return _wrong(self.text, f"{said} is expected, not {_shown(node)}")


def _shown(node: ast.expr) -> str:
    return ast.unparse(node).replace("True", "true").replace("False", "false").replace("None", "null")


def _wrong(text: str, said: str) -> ValueError:
    return ValueError(f"cannot read '{text}': {said}")


def _value(node: ast.expr, look: Look) -> Known | None:
    """What a checked tree comes to; None for what is not known."""
    match node:
        case ast.Constant(value=value):
            return _exact(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return _exact(look(name))
        case ast.UnaryOp(op=ast.Not(), operand=part):
            truth = _truth(_value(part, look))
            return None if truth is None else not truth
        case ast.UnaryOp(operand=part):
            return _computed(ast.Sub, 0, _value(part, look))
        case ast.BinOp(left=left, op=op, right=right):
            return _computed(type(op), _value(left, look), _value(right, look))
        case ast.BoolOp(op=op, values=parts):
            return _together((_truth(_value(part, look)) for part in parts), decisive=isinstance(op, ast.Or))
        case ast.Compare(left=first, ops=ops, comparators=rest):
            pairs = zip(ops, [first, *rest], rest, strict=False)
            return _together((_compared(op, left, right, look) for op, left, right in pairs), decisive=False)
    raise TypeError(f"{ast.dump(node)} was not checked")


def _computed(op: type, left: Known | None, right: Known | None) -> Known | None:
    """Unknown where one is no number, and for a division by zero."""
    one, other = _number(left), _number(right)
    if one is None or other is None or (other == 0 and op in (ast.Div, ast.FloorDiv, ast.Mod)):
        return None
    found: int | Fraction = _ARITHMETIC[op](Fraction(one), other)
    return found


def _together(truths: Any, decisive: bool) -> bool | None:
    """The decisive truth where it is among them, unknown where that may be, else the other one."""
    found = set(truths)
    if decisive in found:
        return decisive
    return None if None in found else not decisive


def _compared(op: ast.cmpop, left: ast.expr, right: ast.expr, look: Look) -> bool | None:
    one = _value(left, look)
    if isinstance(right, ast.List):
        among = None if one is None else any(_same(one, _literal(item)) for item in right.elts)
        return among if among is None or isinstance(op, ast.In) else not among
    other = _value(right, look)
    if type(op) in _ORDERS:
        low, high = _number(one), _number(other)
        return None if low is None or high is None else _ORDERS[type(op)](low, high)
    sides = (left, right)
    if any(isinstance(side, ast.Constant) and side.value is None for side in sides):
        return (one is None and other is None) == isinstance(op, ast.Eq)
    return None if one is None or other is None else _same(one, other) == isinstance(op, ast.Eq)


def _literal(node: ast.expr) -> Known | None:
    """The value of an item of a list; None where it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return _exact(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(_literal(node.operand))
        return None if value is None else -value
    return None


def _exact(value: Value) -> Known | None:
    """A value with its decimals as they are written."""
    if isinstance(value, float):
        return Fraction(repr(value)) if math.isfinite(value) else None
    return value


def _number(value: Known | None) -> int | Fraction | None:
    return value if isinstance(value, int | Fraction) and not isinstance(value, bool) else None


def _truth(value: Known | None) -> bool | None:
    return value if isinstance(value, bool) else None


def _same(one: Known, other: Known | None) -> bool:
    # 1 and True are equal, and two values all the same
    return isinstance(one, bool) == isinstance(other, bool) and one == other
