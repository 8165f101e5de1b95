import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.kubernetes_values import (
    ModelVolume,
    Toleration,
    check_label,
    check_object_name,
    label_value,
    object_name,
    quantity,
    without_expansion,
)

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@settings(max_examples=40)
@given(st.lists(st.text(max_size=90), min_size=1, max_size=3))
def test_every_text_becomes_a_name(parts):
    name = object_name(*parts)
    assert NAME.fullmatch(name)
    assert len(name) <= 40


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_every_text_becomes_the_value_of_a_label(text):
    value = label_value(text)
    assert LABEL.fullmatch(value)
    assert len(value) <= 63
    check_label("autotune/model", value)


def test_names_and_labels_stay_readable():
    assert object_name("Llama-3.1-8B-Instruct", "vllm") == "llama-3-1-8b-instruct-vllm"
    assert object_name("7b", "vllm") == "a-7b-vllm"
    assert label_value(MODEL) == "meta-llama-Llama-3.1-8B-Instruct"


def test_long_names_that_begin_alike_stay_different():
    first, second = "a" * 80 + "1", "a" * 80 + "2"
    assert object_name(first) != object_name(second)
    assert label_value(first) != label_value(second)
    assert len(object_name(first, max_length=30)) == 30


@pytest.mark.parametrize(
    ("size", "expected"), [("16g", "16Gi"), ("512M", "512Mi"), ("64k", "64Ki"), ("1024", "1024"), ("9b", "9")]
)
def test_a_size_of_docker_becomes_a_quantity_of_as_many_bytes(size, expected):
    assert quantity(size) == expected


@pytest.mark.parametrize("size", ["", "16gb", "1.5g", "-1g", "g"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="no size"):
        quantity(size)


def expanded(text: str) -> str:
    """The text as a container gets it: $(NAME) is replaced, $$ is one $, and all else stays."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda match: "$" if match[0] == "$$" else f"<value of {match[1]}>", text)


@settings(max_examples=40)
@given(st.text(alphabet="$()A b", max_size=14))
def test_a_word_reaches_the_container_as_it_was(text):
    assert expanded(without_expansion(text)) == text


def test_a_word_that_nothing_would_change_is_left_alone():
    assert without_expansion('exec "$0" "$@" <(printf %s "$OPTIONS")') == 'exec "$0" "$@" <(printf %s "$OPTIONS")'
    assert without_expansion("$(HOME)") == "$$(HOME)"


@pytest.mark.parametrize(
    ("text", "manifest"),
    [
        ("nvidia.com/gpu", {"key": "nvidia.com/gpu", "operator": "Exists"}),
        ("pool=h200", {"key": "pool", "operator": "Equal", "value": "h200"}),
        ("pool=:NoExecute", {"key": "pool", "operator": "Equal", "value": "", "effect": "NoExecute"}),
        ("spot:NoSchedule", {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}),
    ],
)
def test_a_toleration_is_written_as_kubectl_writes_taints(text, manifest):
    assert Toleration.parse(text).manifest == manifest


@pytest.mark.parametrize("text", ["", ":NoSchedule", "a b", "pool=h200:Never", "pool=a b", "/x", "A_/x"])
def test_what_is_no_taint_is_refused(text):
    with pytest.raises(ValueError, match=r"label|effects"):
        Toleration.parse(text)


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("models", ModelVolume("models")),
        ("models:llama/8b/", ModelVolume("models", "llama/8b")),
        ("hostPath:/raid/models", ModelVolume(path="/raid/models")),
    ],
)
def test_a_model_volume_is_a_claim_or_a_folder_of_the_nodes(text, volume):
    assert ModelVolume.parse(text) == volume


@pytest.mark.parametrize("text", ["", "My_Claim", "models:../other", "hostPath:relative", "hostPath:/a/../b", ":x"])
def test_what_is_no_model_volume_is_refused(text):
    with pytest.raises(ValueError, match=r"name|leaves|folder"):
        ModelVolume.parse(text)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 254, "a..b"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="no name"):
        check_object_name(name)


@pytest.mark.parametrize(
    ("key", "value"), [("a b", ""), ("a/", ""), ("a", "x y"), ("a", "-x"), ("a" * 64, ""), ("", "")]
)
def test_what_is_no_label_is_refused(key, value):
    with pytest.raises(ValueError, match="label"):
        check_label(key, value)
