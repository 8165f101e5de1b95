"""Columns of text that fit a terminal: what is too long goes on below, broken where a reader would break it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BREAKS = (" ", "/,:=", "-_.")
"""Where a long text is broken, the best places first."""

GAP = "  "


def fold(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most `width`, broken at spaces, else after a separator, else where it must be."""
    while len(text) > width:
        ends = (max(text.rfind(mark, 0, width) for mark in marks) + 1 for marks in BREAKS)
        cut = next((end for end in ends if end), width)
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    yield text


def columns(rows: Sequence[Sequence[str]], width: int, minimum_widths: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Lines of a table of at most `width` columns; the first row is its head.

    Where there is too little room the columns of `narrowest`, (position, columns), give way in
    this order, each down to so many columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = width - 1 - len(GAP) * (len(widths) - 1)
    for position, least in minimum_widths:
        widths[position] = max(widths[position] - max(sum(widths) - room, 0), min(widths[position], least))
    for number, row in enumerate(rows):
        cells = [list(fold(text, size)) for text, size in zip(row, widths, strict=True)]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            yield " " + GAP.join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip()
        if number == 0:
            yield " " + "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
