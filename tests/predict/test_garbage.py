"""Whatever stands in a config.json, the answer is a shape or a sentence that says what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import ConfigError
from autotuner.predict.shape import catalogue, shape_from_config

HOLES: list[object] = ["gone", None, "x", -1, 0, [], {}, 1.5, True, [None], ["x"]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_config_with_a_hole_is_read_or_refused_by_name(data):
    name = data.draw(st.sampled_from(sorted(catalogue())))
    config = dict(catalogue()[name])
    field = data.draw(st.sampled_from(sorted(config)))
    value = data.draw(st.sampled_from(HOLES))
    if value == "gone":
        del config[field]
    else:
        config[field] = value
    try:
        shape_from_config(config, name)
    except ConfigError as error:
        assert name in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", "wide", "hidden_size"),
        ("num_hidden_layers", -3, "num_hidden_layers"),
        ("head_dim", "x", 'head_dim is "x"'),
        ("num_key_value_heads", ["x"], 'num_key_value_heads is ["x"]'),
    ],
)
def test_the_field_that_is_wrong_is_named(field, value, message):
    with pytest.raises(ConfigError) as refused:
        shape_from_config({**catalogue()["llama-3.1-8b"], field: value}, "mine")
    assert message in str(refused.value)


def test_the_field_that_is_missing_is_named():
    config = {key: value for key, value in catalogue()["llama-3.1-8b"].items() if key != "vocab_size"}
    with pytest.raises(ConfigError, match="vocab_size"):
        shape_from_config(config, "mine")
