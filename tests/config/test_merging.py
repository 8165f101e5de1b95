import copy
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from autotuner.config import ConfigLayer, TaskContext, leaves, merge
from autotuner.config.merging import MergedConfig, nest, value_at

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b"])
values = scalars | st.lists(scalars, max_size=3)
anything = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from("abcde"), inner, max_size=4), max_leaves=12
)
layers = st.dictionaries(st.sampled_from("abcde"), anything, max_size=4)
# Layers that agree, as a schema makes them, on which keys hold mappings.
shaped = st.fixed_dictionaries(
    {},
    optional={
        "x": values,
        "section": st.fixed_dictionaries(
            {},
            optional={"y": values, "z": values, "deep": st.fixed_dictionaries({}, optional={"w": values, "v": values})},
        ),
    },
)


@given(layers, layers)
def test_the_later_layer_wins_and_what_it_does_not_name_stays(base, over):
    result = merge(base, over)
    merged_leaves = leaves(result)
    for path, value in leaves(over).items():
        if value != {}:
            assert merged_leaves[path] == value
    for key in base.keys() - over.keys():
        assert result[key] == base[key]


@given(shaped, shaped, shaped)
def test_merging_is_associative_over_layers_of_one_shape(first, second, third):
    assert merge(merge(first, second), third) == merge(first, merge(second, third))


@given(layers)
def test_an_empty_layer_changes_nothing(data):
    assert merge(data, {}) == data
    assert merge({}, data) == data


@given(layers, layers)
def test_merging_changes_neither_input_and_shares_nothing_with_them(base, over):
    kept = copy.deepcopy((base, over))
    result = merge(base, over)
    scramble(result)
    assert (base, over) == kept


def scramble(data):
    for value in data.values():
        if isinstance(value, dict):
            scramble(value)
        elif isinstance(value, list):
            value.append("scrambled")
    data["scrambled"] = True


def place(index: int, path: object) -> str:
    return f"place-{index}"


@given(st.lists(layers, max_size=5))
def test_every_leaf_has_the_last_layer_that_set_it(stack):
    merged = MergedConfig()
    for index, data in enumerate(stack):
        merged.add(f"layer-{index}", data, partial(place, index))
    merged_leaves = leaves(merged.data)
    assert merged.provenance.keys() == merged_leaves.keys() == merged.places.keys()
    for path, name in merged.provenance.items():
        index = int(name.removeprefix("layer-"))
        assert leaves(stack[index])[path] == merged_leaves[path]
        assert merged.places[path] == f"place-{index}"
        later = [leaves(data) for data in stack[index + 1 :]]
        assert not any(path in data and data[path] != {} for data in later)


def test_a_list_replaces_a_list_and_a_scalar_a_mapping():
    assert merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": 4}) == {"a": [3], "b": 4}


def test_a_range_replaces_what_was_there_as_one_value():
    base = {"parameters": {"a": {"from": 1, "to": 4, "step": 1}, "b": 1}}
    over = {"parameters": {"a": {"from": 1, "to": 4, "factor": 2}}}
    result = merge(base, over)
    assert result == {"parameters": {"a": {"from": 1, "to": 4, "factor": 2}, "b": 1}}
    assert leaves(result) == {"parameters.a": {"from": 1, "to": 4, "factor": 2}, "parameters.b": 1}
    result["parameters"]["a"]["to"] = 8
    assert over["parameters"]["a"]["to"] == 4


def test_a_frozen_layer_can_be_resolved_twice_with_the_same_answer():
    data = {"parameters": {"tp-size": [1]}}
    layer = ConfigLayer("mine", data)
    layer.resolve(TaskContext())["parameters"]["tp-size"].append(2)
    assert layer.resolve(TaskContext()) == data == {"parameters": {"tp-size": [1]}}


def test_a_dot_in_a_parameters_name_is_part_of_it():
    assert nest("parameters.compilation-config.mode", 3) == {"parameters": {"compilation-config.mode": 3}}
    assert nest("runtime.env.A.B", "x") == {"runtime": {"env": {"A.B": "x"}}}
    assert value_at({"parameters": {"a.b": 1}}, "parameters.a.b") == 1


def test_a_dropped_leaf_takes_the_mapping_it_empties_along():
    merged = MergedConfig()
    merged.add("one", {"slo": {"ttft": {"threshold": 1}, "latency": {"p90": None}}})
    merged.drop("slo.latency.p90")
    assert merged.data == {"slo": {"ttft": {"threshold": 1}}}
    assert merged.provenance == {"slo.ttft.threshold": "one"}


def test_a_section_that_is_emptied_stays_as_an_empty_mapping_with_an_owner():
    merged = MergedConfig()
    merged.add("one", {"parameters": {"a": 1}})
    merged.drop("parameters.a", emptied_by="two")
    assert merged.data == {"parameters": {}}
    assert merged.provenance == {"parameters": "two"}
