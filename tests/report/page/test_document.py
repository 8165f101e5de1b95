"""The document: everything inside it, nothing from elsewhere, and only its own scripts run."""

import base64
import hashlib
import json
import re

import pytest

from autotuner.report.page.document import ASSETS, SCRIPT_FILES, asset, html_document, inert_json
from autotuner.report.page.elements import element
from tests.hostile import HOSTILE_TEXTS

SCRIPT = "\n".join(map(asset, SCRIPT_FILES))


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_data_is_inert_and_reads_back_as_it_was(text):
    written = inert_json({text: [text]})
    assert not re.search(r"[<>&\u2028\u2029]", written)
    assert json.loads(written) == {text: [text]}


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_a_hostile_title_ends_no_element(text):
    document = html_document(text, [], {})
    head = document[: document.index("<style>")]
    assert re.findall(r"<(/?\w+)", head.split("<title>")[1]) == ["/title"]


def test_policy_allows_the_inlined_style_and_script_by_hash_and_nothing_else():
    document = html_document("t", [element("p", "x")], {"a": 1})
    policy = document.split('Content-Security-Policy" content="')[1].split('"')[0].replace("&#x27;", "'")
    (script,) = re.findall(r"<script>(.*?)</script>", document, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", document, re.DOTALL)
    for name, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    assert "connect-src 'self'" in html_document("t", [], {}, connects=True).replace("&#x27;", "'")


def test_the_document_names_no_address():
    document = html_document("t", [], {})
    addresses = set(re.findall(r"(?:https?:)?//[a-z][^\s\"'<>]*", re.sub(r"(?m)//.*$", "", document)))
    assert addresses <= {"//www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|<link|<img|src=", document)


def test_scripts_make_no_markup_of_texts_and_evaluate_none():
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert word not in SCRIPT


@pytest.mark.parametrize("name", [*SCRIPT_FILES, "page.css"])
def test_assets_are_short_and_end_neither_script_nor_style(name):
    text = asset(name)
    assert len(text.splitlines()) <= 300
    assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes():
    style = (ASSETS / "page.css").read_text()
    light, dark = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
                   for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]]  # fmt: skip
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_marks_have_contrast_on_every_ground(theme):
    colours = themes()[theme]
    texts = ("ink", "muted", "link", "good", "bad", "open")
    weak = {
        (text, ground): round(contrast(colours[text], colours[ground]), 2)
        for text in texts
        for ground in ("background", "card")
        if contrast(colours[text], colours[ground]) < 4.5
    }
    pairs = (("ink", "note"), ("ink", "measured"), ("badge-ink", "badge"), ("good", "region"), ("background", "ink"))
    weak |= {pair: 0.0 for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < 4.5}
    marks = (*(f"s{number}" for number in range(1, 7)), "other", "focus")
    weak |= {
        (mark, ground): round(contrast(colours[mark], colours[ground]), 2)
        for mark in marks
        for ground in ("background", "region")
        if contrast(colours[mark], colours[ground]) < 3
    }
    assert not weak
