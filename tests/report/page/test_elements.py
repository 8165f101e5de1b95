"""Elements of the page as HTML and as data: texts of a run are never markup."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.report.page.elements import element
from tests.hostile import HOSTILE_TEXTS


class Reader(HTMLParser):
    """The tags and the text of a document."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_texts_are_text_in_content_and_attributes(text):
    reader = Reader(str(element("p", text, title=text)))
    assert reader.tags == ["p"]
    assert [name for name, _ in reader.attributes] == ["title"]


@given(st.text(st.characters(exclude_categories=["C"])))
def test_any_visible_text_reads_back_as_it_was(text):
    shown = element("p", text, title=text)
    reader = Reader(str(shown))
    assert (reader.tags, reader.text) == (["p"], text)
    assert reader.attributes == [("title", text)]
    assert shown.to_data() == ["p", {"title": text}, text]


def test_control_characters_and_lone_surrogates_are_replaced():
    shown = element("pre", "a\x1b[31mb\x00c\nd\te\ud800\r")
    assert str(shown) == "<pre>a�[31mb�c\nd\te�</pre>"
    assert shown.to_data()[2] == "a�[31mb�c\nd\te�"
    str(shown).encode()


def test_attributes_that_are_false_or_none_are_left_out():
    shown = element("details", element("br"), None, open=True, hidden=False, id=None, class_="a", aria_label="b")
    assert str(shown) == '<details open="" class="a" aria-label="b"><br></details>'
