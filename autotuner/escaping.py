"""Text of any origin as each kind of output shows it: as text, and never as an instruction.

A model's name, a value of a profile, a server's error and an engine's log may hold anything: escape sequences of
terminals, marks that turn the direction of writing, markup, formulas of spreadsheets.
"""

from __future__ import annotations

import html
import re
import shlex
from typing import Any

_CONTROL = re.compile(
    # C0 without tab and line feed, DEL and C1; marks of direction; line separators; surrogates, which no encoding has
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"([\\`*_<>\[\]|~&])")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def for_terminal(text: str) -> str:
    """Text for a terminal or a log: control characters are written as `\\x1b`; tabs and line breaks stay."""
    return _CONTROL.sub(_as_escape, text)


def one_line(text: str) -> str:
    """The same on one line."""
    return " ".join(for_terminal(text).split())


def for_json(dumped: str) -> str:
    """JSON that was dumped without escapes: control characters are written as JSON's own, with the same meaning."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", dumped)


def for_markdown(text: str) -> str:
    """Text inside a paragraph, a list item or a cell of Markdown."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text))
    return re.sub(r"^([#+-]|\d+[.)])(?=\s|$)", lambda match: f"{match[0][:-1]}\\{match[0][-1]}", escaped)


def markdown_fence(text: str) -> str:
    """A fence that no line of `text` closes."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def for_html(text: str) -> str:
    """Text between tags of HTML, or in a quoted attribute."""
    return html.escape(for_terminal(text), quote=True)


def for_csv(value: Any) -> Any:
    """A cell of CSV: text that a spreadsheet would compute gets an apostrophe before it; numbers stay."""
    if not isinstance(value, str):
        return value
    text = for_terminal(value)
    if not text.startswith(_FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def for_shell(word: str) -> str:
    """A word of a POSIX shell's command; `printf` makes its control characters when the command runs."""
    if not _CONTROL.search(word):
        return shlex.quote(word)
    body = word.rstrip("\n")
    # a first hyphen would be an option of printf
    octal = "".join(
        character if character.isascii() and (character.isalnum() or character in "_./:=,@ ") else _as_octal(character)
        for character in body
    )
    # $(...) drops line breaks at the end
    return f"\"$(printf '{octal}')\"" + (shlex.quote(word[len(body) :]) if body != word else "")


def _as_octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def _as_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
