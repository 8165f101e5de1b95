import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.config import yaml_documents
from autotuner.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2.5, True, None], "[1, 2.5, true, null]"),
        (["D(100,100)", "x"], "['D(100,100)', x]"),
        ("word", "word"),
        ("1", "'1'"),
        ({"from": 1, "to": 2}, "{from: 1, to: 2}"),
        (["a word"] * 50, f"[{', '.join(['a word'] * 50)}]"),
    ],
)
def test_a_value_on_one_line_reads_back_as_itself(value, text):
    assert yaml_documents.dump_inline(value) == text
    assert yaml_documents.parse(text, source="x").data == value


def test_places_are_line_and_column_of_keys_and_items():
    document = yaml_documents.parse("a:\n  b: 1\n  c: [x, y]\n", source="f.yaml")
    assert document.locate(("a", "b")) == "f.yaml:2:3"
    assert document.locate(("a", "c", 1)) == "f.yaml:3:10"


def test_the_place_of_what_is_not_there_is_that_of_what_is_around_it():
    document = yaml_documents.parse("a:\n  b: 1\n", source="f.yaml")
    assert document.locate(("a", "missing", "deep")) == "f.yaml:1:1"
    assert document.locate(("nowhere",)) == "f.yaml"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "f.yaml:2:"),
        ("a: 1\n\tb: 2\n", "f.yaml:2:1"),
        ("a: 'open\n", "f.yaml:2:1"),
        ("a: 1\n--- \nb: 2\n", "f.yaml:2:1"),
        ("a: !python/object:os.system x\n", "f.yaml:1:4"),
        ("a: *nowhere\n", "f.yaml:1:4"),
    ],
)
def test_malformed_yaml_is_an_error_with_line_and_column(text, place):
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        yaml_documents.parse(text, source="f.yaml")
    assert caught.value.what.startswith(place)


def test_a_key_that_is_there_twice_is_an_error_with_both_places():
    with pytest.raises(ConfigError) as caught:
        yaml_documents.parse("a:\n  b: 1\n  c: 2\n  b: 3\n", source="f.yaml")
    assert caught.value.what == "f.yaml:4:3: the key 'b' is there twice."
    assert "f.yaml:2:3" in caught.value.why


@pytest.mark.parametrize("key", ["1", "true", "null", "on", "[a]"])
def test_a_key_that_is_not_text_is_an_error(key):
    with pytest.raises(ConfigError, match=r"f\.yaml:1:\d+: a key must be text"):
        yaml_documents.parse(f"? {key}\n: 1\n", source="f.yaml")


def test_an_anchor_that_contains_itself_is_an_error():
    with pytest.raises(ConfigError, match="contains itself"):
        yaml_documents.parse("a: &x [1, *x]\n", source="f.yaml")


def test_anchors_and_merge_keys_work():
    document = yaml_documents.parse("a: &x {p: 1}\nb:\n  <<: *x\n  q: 2\n", source="f.yaml")
    assert document.data == {"a": {"p": 1}, "b": {"p": 1, "q": 2}}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("5E2", 500.0), ("2026-01-31", "2026-01-31"), ("1e", "1e")]
)
def test_numbers_and_dates_are_read_as_people_mean_them(text, value):
    assert yaml_documents.parse(text, source="f.yaml").data == value


def test_a_control_character_is_an_error_and_not_a_traceback():
    with pytest.raises(ConfigError, match="not valid YAML"):
        yaml_documents.parse("a: \x00", source="f.yaml")


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        yaml_documents.read(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        yaml_documents.read(tmp_path / "x.yaml")


def test_an_empty_file_is_an_empty_mapping():
    assert yaml_documents.root_mapping(yaml_documents.parse("# nothing\n", source="f.yaml")) == {}


def test_a_file_that_holds_a_list_is_no_configuration():
    with pytest.raises(ConfigError, match="holds no mapping"):
        yaml_documents.root_mapping(yaml_documents.parse("- a\n", source="f.yaml"))


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, object(), {1: 2}, [b"x"]])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(ConfigError, match="here"):
        yaml_documents.plain_data({"a": value}, "here")


@given(st.text())
def test_any_text_is_data_or_a_clear_error(text):
    fault = error_of(text)
    assert fault is None or (fault.what.startswith("f.yaml") and fault.remedy)


def error_of(text):
    try:
        yaml_documents.parse(text, source="f.yaml")
    except ConfigError as error:
        return error
    return None


TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3),
        max_leaves=10,
    )
)
def test_what_was_written_is_read_again(data):
    assert yaml_documents.parse(yaml_documents.dump(data), source="f.yaml").data == data


def test_a_tab_in_the_indentation_is_named():
    with pytest.raises(ConfigError, match=r"t:2:1: not valid YAML.*Replace the tab"):
        yaml_documents.parse("a:\n\tb: 1\n", source="t")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")
    document = yaml_documents.read(path)
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert document.places["b", "c"].endswith("w.yaml:3:3")


def test_keys_for_anchors_are_no_part_of_the_data():
    document = yaml_documents.parse("x-load: &load {n: 1}\nuse: *load\n", source="t")
    assert yaml_documents.root_mapping(document) == {"use": {"n": 1}}


ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {p: 1, q: 2}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)


@pytest.mark.parametrize("text", [ALIAS_BOMB, MERGE_BOMB], ids=["aliases", "merge keys"])
def test_aliases_of_aliases_are_counted_and_refused_before_they_are_written_out(text):
    with pytest.raises(ConfigError, match="more than 500,000 values"):
        yaml_documents.parse(text, source="f.yaml")


@pytest.mark.parametrize("text", ["[" * 600 + "]" * 600, "{a: " * 600 + "1" + "}" * 600, "[" * 100_000])
def test_deep_nesting_is_an_error(text):
    with pytest.raises(ConfigError):
        yaml_documents.parse(text, source="f.yaml")


def test_a_chain_of_aliases_is_as_deep_as_what_it_stands_for():
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))
    with pytest.raises(ConfigError, match="nested more than 100 levels"):
        yaml_documents.parse(text, source="f.yaml")


def test_a_text_of_ten_megabytes_is_refused(tmp_path):
    file = tmp_path / "long.yaml"
    file.write_text(f"a: {'x' * 10_000_000}")
    with pytest.raises(ConfigError, match="more than 8,000,000 characters"):
        yaml_documents.read(file)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "a\0b"])
def test_what_is_no_file_is_an_error(path):
    with pytest.raises(ConfigError):
        yaml_documents.read(Path(path))


@pytest.mark.parametrize(
    "value", ["!!int foo", "!!float x", "!!bool 3", "!!timestamp x", "!!binary é", "9" * 5000, "!!int 0x", "!!int ''"]
)
def test_a_tagged_value_that_is_none_is_an_error(value):
    with pytest.raises(ConfigError, match="not valid YAML"):
        yaml_documents.parse(f"a: {value}", source="f.yaml")


@pytest.mark.parametrize("text", ['a: "x\\0"', 'a: ["\\0"]', '"\\0": 1'])
def test_a_nul_character_is_refused_where_it_is_written(text):
    with pytest.raises(ConfigError, match=r"file\.yaml:1:.*NUL character"):
        yaml_documents.parse(text, source="file.yaml")
