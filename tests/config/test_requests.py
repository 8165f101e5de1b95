import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.config import yaml_documents
from autotuner.config.requests import ALIASES, FIELDS, read_requests
from autotuner.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def write_and_read(*texts: str):
        paths = [tmp_path / f"file{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return read_requests(paths)

    return write_and_read


def test_a_file_is_one_request_named_after_it(read):
    (request,) = read("model_name: m\nprofiles: [a, b]\nslo: {ttft: 1}\noverrides: {optimization: {seed: 3}}\n")
    assert request.name == "file0"
    assert request.fields == {
        "model_name": "m",
        "profiles": ["a", "b"],
        "slo_config": {"ttft": 1},
        "user_overrides": {"optimization": {"seed": 3}},
    }


@pytest.mark.parametrize(
    "text",
    [
        "model: m\nexperiments:\n  - {name: a, runtime: vllm}\n  - {name: b, runtime: sglang}\n",
        "model: m\nexperiments:\n  a: {runtime: vllm}\n  b: {runtime: sglang}\n",
        "model: m\nexps: [a, b]\na: {runtime: vllm}\nb: {runtime: sglang}\n",
    ],
)
def test_several_experiments_share_what_stands_beside_them(read, text):
    first, second = read(text)
    assert (first.name, first.fields) == ("a", {"model_name": "m", "base_runtime": "vllm"})
    assert (second.name, second.fields) == ("b", {"model_name": "m", "base_runtime": "sglang"})


def test_overrides_of_an_experiment_are_merged_with_the_shared_ones(read):
    text = (
        "overrides: {optimization: {seed: 1, confirm: 0}}\nexperiments:\n  - {overrides: {optimization: {seed: 2}}}\n"
    )
    assert read(text)[0].fields["user_overrides"] == {"optimization": {"seed": 2, "confirm": 0}}


def test_the_configuration_of_a_run_takes_the_place_of_every_layer(read):
    (request,) = read("format: 1\ntask_name: t\nbenchmark: {num_concurrency: [1]}\n")
    assert request.name == "t"
    assert request.fields["override_mode"] == "replace"
    assert request.fields["user_overrides"] == {"task_name": "t", "benchmark": {"num_concurrency": [1]}}


def test_a_load_test_is_asked_again_without_its_kind(read):
    (request,) = read("format: 1\nkind: load-test\ntask_name: t\nbenchmark: {num_concurrency: [1]}\n")
    assert request.fields["user_overrides"] == {"task_name": "t", "benchmark": {"num_concurrency": [1]}}


@pytest.mark.parametrize(
    ("given", "distinct"),
    [
        (["a", "a", "b"], ["a", "a-2", "b"]),
        (["a", "a", "a-2"], ["a", "a-3", "a-2"]),
        (["a-2", "a", "a", "a"], ["a-2", "a", "a-3", "a-4"]),
    ],
)
def test_equal_names_are_told_apart_and_given_ones_stay(read, given, distinct):
    assert [request.name for request in read(*(f"name: {name}\n" for name in given))] == distinct


@pytest.mark.parametrize(
    "text",
    [
        "name: study\nexperiments:\n  - {name: a}\n  - {name: b}\n",
        "name: study\nexperiments:\n  a: {runtime: vllm}\n  b: {runtime: sglang}\n",
        "name: study\nexps: [a, b]\na: {runtime: vllm}\nb: {runtime: sglang}\n",
    ],
)
def test_the_name_of_the_file_is_not_that_of_its_experiments(read, text):
    assert [request.name for request in read(text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modell: m\n", "Unknown field of a request 'modell'; did you mean 'model'"),
        ("benchmark: {}\n", "go under `overrides`"),
        ("slo: {ttft: 1}\nslo_config: {ttft: 2}\n", "gives slo_config twice"),
        ("override_mode: add\n", "must be patch or replace"),
        ("experiments: 3\n", "is not a list of experiments"),
        ("experiments: []\n", "is not a list of experiments"),
        ("exps: [a]\n", "lists the experiment 'a' and does not describe it"),
        ("machine: 1\n", "Unknown field of a request 'machine'"),
        ("- 1\n", "mapping"),
        ("name: 3\n", "`name` of"),
        ("name: null\n", "is None, which is no name"),
        ("name: ' '\n", "which is no name"),
        ("experiments:\n  - {name: [a]}\n", "is ['a'], which is no name"),
        ("task_name: [a]\nbenchmark: {}\n", "`task_name` of"),
    ],
)
def test_what_is_no_request_is_a_clear_error(read, text, message):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab-:", max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["experiments", "exps", "a", "name", *ALIASES, *FIELDS]), children, max_size=4
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_document_is_requests_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "f.yaml"
    path.write_text(yaml_documents.dump(data))
    try:
        requests = read_requests([path])
    except ConfigError:
        return
    assert requests
    assert all(set(request.fields) <= set(FIELDS) for request in requests)
