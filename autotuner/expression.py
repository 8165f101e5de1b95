"""Short expressions over parameters, such as `tp-size * dp-size == gpus`: parsed to a tree, never run as code.

They have names, numbers, text in quotes, true, false and null; + - * / // %; == != < <= > >=, in and
not in a list; and, or, not, parentheses; and RULE when CONDITION. A dash inside a name belongs to it,
so a minus between names has spaces around it. Arithmetic is exact. A parameter that is not set is unknown,
and truth values follow Kleene's three-valued logic: true, false or unknown, which is None here.
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

Scalar = bool | int | Fraction | str
Lookup = Callable[[str], Value]
"""From a name to its value; None where it is not set."""

MAX_CHARACTERS = 300
MAX_DEPTH = 50
"""Limits on the length of an expression and on the depth of its tree."""

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<name>[A-Za-z_][\w.]*(?:-[\w.]+)*)"
    r"|(?P<sign>==|!=|<=|>=|//|[-+*/%<>()\[\],])"
)
_SUGGESTED_TOKENS = {"=": "==", "&": "and", "|": "or", "!": "not", "\u00d7": "*"}
_PYTHON_KEYWORDS = {
    "and": "and",
    "or": "or",
    "not": "not",
    "in": "in",
    "true": "True",
    "false": "False",
    "null": "None",
}
_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER_OPERATORS: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Expression:
    """A parsed and checked expression.

    `names` are all names in it, `required_names` those it uses as values, not only compared with null,
    and `boolean_names` those it uses as true or false.
    """

    text: str
    root: ast.expr
    names: frozenset[str]
    required_names: frozenset[str]
    boolean_names: frozenset[str]

    def holds(self, lookup: Lookup) -> bool | None:
        """Whether the expression is true; None where that is unknown."""
        return _as_bool(_evaluate(self.root, lookup))


@cache
def parse(text: str) -> Expression:
    """Parse an expression; ValueError says what is wrong with it, and where."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"an expression has at most {MAX_CHARACTERS} characters, not {len(text)}")
    tokens = _tokenize(text)
    rule, condition = tokens, None
    for position, token in enumerate(tokens):
        if token.text == "when" and token.kind == "name":
            rule, condition = tokens[:position], tokens[position + 1 :]
            break
    root = _parse_tree(text, rule)
    if condition is not None:
        root = ast.BoolOp(ast.Or(), [root, ast.UnaryOp(ast.Not(), _parse_tree(text, condition))])
    checker = _Checker(text)
    checker.check(root, "truth")
    return Expression(text, root, *map(frozenset, (checker.names, checker.required_names, checker.boolean_names)))


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        """The token in Python's syntax; a name, which may have dashes, as `name` and its position."""
        if self.kind == "text":
            return ascii(self.text[1:-1])
        return _PYTHON_KEYWORDS.get(self.text, f"name{self.position}") if self.kind == "name" else self.text


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        character = text[position]
        if character.isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            hint = f"; write {_SUGGESTED_TOKENS[character]}" if character in _SUGGESTED_TOKENS else ""
            raise _error(text, f"'{character}' at character {position + 1} means nothing{hint}")
        tokens.append(_Token(str(match.lastgroup), match.group(), position))
        position = match.end()
    return tokens


def _parse_tree(text: str, tokens: Sequence[_Token]) -> ast.expr:
    """The syntax tree of the tokens, with the names as they were written."""
    # Python would join adjacent string literals into one.
    pairs = itertools.pairwise(tokens)
    misplaced = next((after for before, after in pairs if before.kind == after.kind == "text"), None)
    if misplaced is not None:
        raise _error(text, f"'{misplaced.text}' at character {misplaced.position + 1} is out of place")
    try:
        root = ast.parse(" ".join(map(str, tokens)), mode="eval").body
    except SyntaxError as error:
        raise _syntax_error(text, tokens, error) from error
    except (MemoryError, RecursionError) as error:
        raise _error(text, "it is nested too deeply") from error
    names = {str(token): token.text for token in tokens if token.kind == "name" and token.text not in _PYTHON_KEYWORDS}
    for node in ast.walk(root):
        if isinstance(node, ast.Name):
            node.id = names[node.id]
    return root


def _syntax_error(text: str, tokens: Sequence[_Token], error: SyntaxError) -> ValueError:
    """Python's syntax error on the joined tokens, with the position translated to the original text."""
    column, starts, start = (error.offset or 0) - 1, [], 0
    for token in tokens:
        starts.append(start)
        start += len(str(token)) + 1
    if not 0 <= column < start - 1:
        return _error(text, "something is missing at the end")
    token = next(token for token, start in zip(reversed(tokens), reversed(starts), strict=True) if start <= column)
    problem = "is not closed" if "never closed" in error.msg else "is out of place"
    return _error(text, f"'{token.text}' at character {token.position + 1} {problem}")


ExpectedType = Literal["truth", "number", "value", "any"]
"""The expected type of a node; null is allowed only where it is compared with == or !=, which is "any"."""


class _Checker:
    """Checks the types in a syntax tree, and collects the names in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.required_names: set[str] = set()
        self.boolean_names: set[str] = set()

    def check(self, node: ast.expr, expected: ExpectedType, depth: int = 0) -> None:
        """ValueError for syntax that expressions do not have, or for a type other than the expected one."""
        if depth > MAX_DEPTH:
            raise _error(self.text, "it has too many parts")
        depth += 1
        match node:
            case ast.Name(id=name):
                self.names.add(name)
                self.required_names |= {name} if expected != "any" else set()
                self.boolean_names |= {name} if expected == "truth" else set()
            case ast.Constant(value=value):
                self._check_literal(value, expected)
            case ast.BoolOp(values=parts) if expected != "number":
                for part in parts:
                    self.check(part, "truth", depth)
            case ast.UnaryOp(op=ast.Not(), operand=part) if expected != "number":
                self.check(part, "truth", depth)
            case ast.UnaryOp(op=ast.USub(), operand=part) if expected != "truth":
                self.check(part, "number", depth)
            case ast.BinOp(left=left, op=op, right=right) if expected != "truth" and type(op) in _ARITHMETIC:
                self.check(left, "number", depth)
                self.check(right, "number", depth)
            case ast.Compare() if expected != "number":
                self._check_comparison(node, depth)
            case _:
                raise self._unexpected(node, expected)

    def _check_comparison(self, node: ast.Compare, depth: int) -> None:
        sides = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, sides, node.comparators, strict=False):
            match op:
                case ast.In() | ast.NotIn():
                    if len(node.ops) > 1 or not isinstance(right, ast.List) or not right.elts:
                        raise _error(self.text, "'in' is followed by a list, such as [1, 2], and nothing else")
                    for item in right.elts:
                        if _literal_value(item) is None:
                            raise _error(self.text, "a list holds numbers, true, false and text in quotes")
                    self.check(left, "value", depth)
                case ast.Eq() | ast.NotEq():
                    null = any(isinstance(side, ast.Constant) and side.value is None for side in (left, right))
                    self.check(left, "any" if null else "value", depth)
                    self.check(right, "any" if null else "value", depth)
                case _:
                    self.check(left, "number", depth)
                    self.check(right, "number", depth)

    def _check_literal(self, value: Any, expected: ExpectedType) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise _error(self.text, "a number is too large")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {"truth": isinstance(value, bool), "number": is_number, "value": value is not None, "any": True}
        if not fits[expected]:
            raise self._unexpected(ast.Constant(value), expected)

    def _unexpected(self, node: ast.expr, expected: ExpectedType) -> ValueError:
        if isinstance(node, ast.Constant) and node.value is None:
            return _error(self.text, "null can only be compared with == and !=")
        nouns = {"truth": "a comparison, or something else that is true or false,", "number": "a number"}
        noun = nouns.get(expected, "a parameter, a number or text in quotes")
        return _error(self.text, f"{noun} is expected, not {_unparse(node)}")


def _unparse(node: ast.expr) -> str:
    return ast.unparse(node).replace("True", "true").replace("False", "false").replace("None", "null")


def _error(text: str, problem: str) -> ValueError:
    return ValueError(f"cannot read '{text}': {problem}")


def _evaluate(node: ast.expr, lookup: Lookup) -> Scalar | None:
    """The value of a checked tree; None where it is unknown."""
    match node:
        case ast.Constant(value=value):
            return _to_exact(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return _to_exact(lookup(name))
        case ast.UnaryOp(op=ast.Not(), operand=part):
            truth = _as_bool(_evaluate(part, lookup))
            return None if truth is None else not truth
        case ast.UnaryOp(operand=part):
            return _apply_arithmetic(ast.Sub, 0, _evaluate(part, lookup))
        case ast.BinOp(left=left, op=op, right=right):
            return _apply_arithmetic(type(op), _evaluate(left, lookup), _evaluate(right, lookup))
        case ast.BoolOp(op=op, values=parts):
            return _combine_truths(
                (_as_bool(_evaluate(part, lookup)) for part in parts), decisive=isinstance(op, ast.Or)
            )
        case ast.Compare(left=first, ops=ops, comparators=rest):
            pairs = zip(ops, [first, *rest], rest, strict=False)
            return _combine_truths((_compare(op, left, right, lookup) for op, left, right in pairs), decisive=False)
    raise TypeError(f"{ast.dump(node)} was not checked")


def _apply_arithmetic(op: type, left: Scalar | None, right: Scalar | None) -> Scalar | None:
    """Exact arithmetic; None where an operand is not a number, and for a division by zero."""
    first, second = _as_number(left), _as_number(right)
    if first is None or second is None or (second == 0 and op in (ast.Div, ast.FloorDiv, ast.Mod)):
        return None
    result: int | Fraction = _ARITHMETIC[op](Fraction(first), second)
    return result


def _combine_truths(truths: Any, decisive: bool) -> bool | None:
    """Kleene's and (`decisive` False) or or (True): `decisive` if any is, else None if any is unknown."""
    distinct = set(truths)
    if decisive in distinct:
        return decisive
    return None if None in distinct else not decisive


def _compare(op: ast.cmpop, left: ast.expr, right: ast.expr, lookup: Lookup) -> bool | None:
    """One comparison of a chain; None where it cannot be told, because a parameter has no value or no number."""
    first = _evaluate(left, lookup)
    if isinstance(right, ast.List):
        contained = None if first is None else any(_is_equal(first, _literal_value(item)) for item in right.elts)
        return contained if contained is None or isinstance(op, ast.In) else not contained
    second = _evaluate(right, lookup)
    if type(op) in _ORDER_OPERATORS:
        x, y = _as_number(first), _as_number(second)
        return None if x is None or y is None else _ORDER_OPERATORS[type(op)](x, y)
    sides = (left, right)
    if any(isinstance(side, ast.Constant) and side.value is None for side in sides):
        return (first is None and second is None) == isinstance(op, ast.Eq)
    return None if first is None or second is None else _is_equal(first, second) == isinstance(op, ast.Eq)


def _literal_value(node: ast.expr) -> Scalar | None:
    """The value of a literal, negative numbers included; None for any other node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return _to_exact(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _as_number(_literal_value(node.operand))
        return None if value is None else -value
    return None


def _to_exact(value: Value) -> Scalar | None:
    """The value with a float as the fraction of its decimal notation; None for infinity and NaN."""
    if isinstance(value, float):
        return Fraction(repr(value)) if math.isfinite(value) else None
    return value


def _as_number(value: Scalar | None) -> int | Fraction | None:
    return value if isinstance(value, int | Fraction) and not isinstance(value, bool) else None


def _as_bool(value: Scalar | None) -> bool | None:
    return value if isinstance(value, bool) else None


def _is_equal(first: Scalar, second: Scalar | None) -> bool:
    # Python takes 1 for equal to True.
    return isinstance(first, bool) == isinstance(second, bool) and first == second
