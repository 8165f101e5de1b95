"""Elements of a page as data: written into the document, or sent to a page that is open already.

Texts are texts wherever they come from: HTML escapes them, and the open page makes text nodes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

VOID_TAGS = frozenset({"br", "hr", "img", "input"})


@dataclass(frozen=True)
class Element:
    """An HTML element; children are elements and texts."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Element | str, ...] = ()

    def __str__(self) -> str:
        return "".join(self._generate_html())

    def _generate_html(self) -> Iterator[str]:
        attributes = "".join(f' {name}="{escape(printable(value))}"' for name, value in self.attributes.items())
        yield f"<{self.tag}{attributes}>"
        if self.tag in VOID_TAGS:
            return
        for child in self.children:
            if isinstance(child, str):
                yield escape(printable(child), quote=False)
            else:
                yield from child._generate_html()
        yield f"</{self.tag}>"

    def to_data(self) -> list[Any]:
        """The element as nested JSON lists: tag, attributes, children."""
        children = [printable(child) if isinstance(child, str) else child.to_data() for child in self.children]
        return [self.tag, dict(self.attributes), *children]

    @property
    def text(self) -> str:
        """All texts in it, one after another."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


def element(tag: str, *children: Element | str | None, **attributes: str | bool | None) -> Element:
    """An element; `class_` stands for class, `aria_label` for aria-label; None and False are left out."""
    written = {
        name.rstrip("_").replace("_", "-"): "" if value is True else value
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    return Element(tag, written, tuple(child for child in children if child is not None))


def printable(text: str) -> str:
    """The text without control characters, which HTML forbids and terminals obey, and without lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or character.isprintable() or character.isspace() else "�"
        for character in text
        if character != "\r"
    )
