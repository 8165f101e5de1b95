import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotuner.deploy.documents import to_yaml


@given(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.text(max_size=8)), max_size=4))
def test_documents_are_read_as_they_were(document):
    assert list(yaml.safe_load_all(to_yaml([document, document]))) == [document, document]


@pytest.mark.parametrize("text", ["1e3", "12E-1", "0o14", "y", "N", "1_0", "0.0.0.0", ".5", "+1"])
def test_text_that_other_readers_take_for_a_number_is_quoted(text):
    assert to_yaml([{"a": text}]) == f"a: '{text}'\n"


def test_what_stands_in_two_places_is_written_twice():
    shared = {"a": "b"}
    assert to_yaml([{"x": shared, "y": shared}]).count("a: b") == 2


def test_text_of_other_alphabets_is_written_as_it_is_read():
    assert to_yaml([{"path": "/modèles/模型"}]) == "path: /modèles/模型\n"
