"""One HTML document with everything inside: style, scripts and data; nothing in it is loaded from anywhere.

The policy in the document lets only its own style and scripts run, by their hashes, so that a script that
got into a text would not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from autotuner.report.page.elements import Element, printable

ASSETS = Path(__file__).parent
STYLE_FILE = "page.css"
SCRIPT_FILES = ("dom.js", "judge.js", "charts.js", "frontier.js", "drilldown.js", "page.js")


@cache
def asset(name: str) -> str:
    """The text of a file of this package."""
    return (ASSETS / name).read_text(encoding="utf-8")


def page_assets(scripts: Sequence[str] = SCRIPT_FILES) -> tuple[str, str]:
    """The style of all pages, and the script of the page with these files."""
    return asset(STYLE_FILE), "\n".join(asset(name) for name in scripts)


def html_document(
    title: str,
    body: Sequence[Element],
    data: Mapping[str, Any],
    *,
    scripts: Sequence[str] = SCRIPT_FILES,
    style: str = STYLE_FILE,
    connects: bool = False,
) -> str:
    """The document: `data` is for the scripts, which are files of this package; with `connects` they may ask
    the server that the page came from."""
    style_text, script_text = asset(style), "\n".join(asset(name) for name in scripts)
    policy = content_security_policy(style_text, script_text, connects=connects)
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n',
            f"<title>{escape(printable(title), quote=False)}</title>\n<style>{style_text}</style>\n</head>\n<body>\n",
            *(f"{part}\n" for part in body),
            f'<script type="application/json" id="data">{inert_json(data)}</script>\n',
            f"<script>{script_text}</script>\n</body>\n</html>\n",
        )
    )


def content_security_policy(style: str, script: str, *, connects: bool = False) -> str:
    """The policy of a document with this one style and this one script."""
    connections = " connect-src 'self';" if connects else ""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:;{connections} "
        "base-uri 'none'; form-action 'none'"
    )


def inert_json(data: Any) -> str:
    """JSON that ends no script element and opens no comment, whatever its texts hold."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
