import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.config import TaskContext, compose, leaves
from autotuner.config.overrides import COMMAND_LINE, Overrides
from autotuner.config.schema import default_value, normalize_slo
from autotuner.errors import ConfigError
from autotuner.experiment import Benchmark, Experiment, Optimization, Slo, SloTerm


def fault(**overrides):
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(user_overrides=overrides))
    return caught.value


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"optimisation": {}}, "Unknown key 'optimisation'; did you mean 'optimization'?"),
        ({"max_iterations": 3}, "Unknown key 'max_iterations'; did you mean 'optimization.max_iterations'?"),
        (
            {"optimization": {"max_iteration": 3}},
            "Unknown key in optimization 'max_iteration'; did you mean 'max_iterations'?",
        ),
        (
            {"optimization": {"duration": 3}},
            "Unknown key in optimization 'duration'; did you mean 'benchmark.duration'?",
        ),
        (
            {"simulate": {"faults": {"crash_afer": 3}}},
            "Unknown key in simulate.faults 'crash_afer'; did you mean 'crash_after'?",
        ),
        ({"slo": {"ttfft": 1}}, "Unknown key in slo 'ttfft'; did you mean 'ttft'?"),
        ({"slo": {"ttft": {"p80": 1}}}, "Unknown key in slo.ttft 'p80'; did you mean 'p90'?"),
        ({"slo": {"ttft": {"p90": {"wieght": 1}}}}, "Unknown key in slo.ttft.p90 'wieght'; did you mean 'weight'?"),
        (
            {"parameters": {"tp-size": {"from": 1, "too": 4}}},
            "parameters.tp-size: Unknown key of a range 'too'; did you mean 'to'?",
        ),
        (
            {"parameters": {"tp-size": [1, {"form": 2}]}},
            "parameters.tp-size: Unknown key of a range 'form'; did you mean 'from'?",
        ),
    ],
)
def test_an_unknown_key_is_an_error_at_any_level_with_the_nearest_and_the_layer(overrides, what):
    error = fault(**overrides)
    assert error.what == what
    assert error.why == "It comes from the caller."


def test_an_unknown_key_in_a_file_is_an_error_with_its_line(write):
    write("profiles/mine.yaml", "name: mine\nlayers:\n  - name: l\n    data:\n      benchmark:\n        duratin: 3\n")
    with pytest.raises(ConfigError) as caught:
        compose(TaskContext(profiles=["mine"]))
    assert caught.value.why == "It comes from profile:mine:l, profiles/mine.yaml:6:9."


def test_a_throughput_has_no_percentile():
    assert "Unknown key in slo.goodput 'p90'" in fault(slo={"goodput": {"p90": {"threshold": 1}}}).what


def test_a_parameter_at_the_top_level_is_told_where_it_belongs():
    assert "under 'parameters'" in fault(**{"tp-size": [1]}).remedy


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"optimization": {"objective": "minimise_latency"}},
            "optimization.objective: Unknown value 'minimise_latency'; did you mean 'minimize_latency'",
        ),
        (
            {"optimization": {"max_iterations": 0}},
            "optimization.max_iterations: input should be greater than or equal to 1, not 0",
        ),
        ({"benchmark": {"num_concurrency": [4, 0]}}, "benchmark.num_concurrency: every concurrency must be at least 1"),
        ({"benchmark": {"num_concurrency": []}}, "give num_concurrency or request_rates"),
        (
            {"slo": {"latency": {"p90": {"threshold": -1}}}},
            "slo.latency.p90.threshold: input should be greater than 0, not -1",
        ),
        ({"slo": {"ttft": 1, "latency": {"weight": 2}}}, "missing: slo.latency.threshold"),
        ({"slo": {"ttft": "fast"}}, "slo.ttft"),
        ({"parameters": 3}, "parameters: must be a mapping"),
        ({"benchmark": 3}, "benchmark: must be a mapping"),
        ({"slo": [1]}, "slo: must be a mapping"),
        ({"slo": {"terms": [{"threshold": 3}]}}, "Unknown key in slo 'terms'"),
        ({"slo": {"terms": [{"metric": "ttft", "threshold": 3}], "ttft": 1}}, "Unknown key in slo 'terms'"),
        ({"parameters": {"tp-size": []}}, "parameters.tp-size is an empty list."),
        ({"parameters": {"tp-size": {"from": 1}}}, "parameters.tp-size: a range needs 'to'."),
        (
            {"constraints": {"a": "tp-size >"}},
            "constraints.a: cannot read 'tp-size >': something is missing at the end",
        ),
        ({"constraints": {"a": True}}, "constraints.a: must be text, not true: quote it"),
        ({"constraints": {"a": {"b": "c"}}}, "constraints.a: must be text"),
        ({"runtime": {"env": {"A": True}}}, "runtime.env.A: must be text, not true: quote it (YAML reads on, yes and"),
        (
            {"runtime": {"env": {"A": False}}},
            "runtime.env.A: must be text, not false: quote it (YAML reads off, no and",
        ),
        ({"runtime": {"env": {"A": 1}}}, "runtime.env.A: must be text, not the number 1: quote it, as '1'"),
        ({"runtime": {"extra_args": "--seed 1"}}, "runtime.extra_args: must be a list, not '--seed 1'"),
        ({"slo": {"goodput": "500ms"}}, "slo.goodput"),
        ({"constraints": ["tp-size > 1"]}, "constraints: must be a mapping of names to expressions, such as {all-gpus"),
        ({"only_when": {"a.b": "tp-size = 2"}}, "only_when.a.b: cannot read 'tp-size = 2': '=' at character 9"),
        (
            {"only_when": {"a": "b == 1", "b": "c", "c": "a > 1"}},
            "only_when: these depend on one another in a circle: a, c, b, a",
        ),
    ],
)
def test_a_wrong_value_is_an_error_in_the_users_words(overrides, message):
    error = fault(**overrides)
    assert message in error.what
    assert "the caller" in str(error) or "missing" in str(error)


def test_all_faults_are_named_at_once():
    what = fault(optimization={"max_iterations": 0, "strategy": "grid"}, benchmark={"duration": -1}).what
    assert all(path in what for path in ("optimization.max_iterations", "optimization.strategy", "benchmark.duration"))


def test_a_fault_names_the_layer_that_set_the_value(write):
    write("profiles/mine.yaml", "name: mine\nlayers:\n  - name: l\n    data: {optimization: {seed: x}}\n")
    with pytest.raises(ConfigError, match=r"from profile:mine:l, profiles/mine\.yaml:4:27"):
        compose(TaskContext(profiles=["mine", "balanced"]))


def test_all_forms_of_an_slo_mean_the_same():
    forms = [
        {"ttft": 1.0, "latency": {"p90": 5.0}},
        {"ttft": {"threshold": 1.0}, "latency": {"p90": {"threshold": 5.0}}},
        {"terms": [{"metric": "ttft", "threshold": 1.0}, {"metric": "latency", "statistic": "p90", "threshold": 5.0}]},
    ]
    first, *others = [normalize_slo(form) for form in forms]
    assert all(other == first for other in others)
    assert Slo.model_validate(first) == Slo.model_validate(forms[0])


@pytest.mark.parametrize("text", ["500ms", "500 MS", "0.5s", ".5 s"])
def test_a_latency_target_may_have_a_unit(text):
    slos = ({"ttft": text}, {"ttft": {"threshold": text}}, {"terms": [{"metric": "ttft", "threshold": text}]})
    for slo in slos:
        assert compose(TaskContext(slo_config=slo)).data["slo"]["ttft"] == {"threshold": 0.5}
    by_statistic = compose(TaskContext(slo_config={"ttft": {"p90": text, "mean": {"threshold": text}}}))
    assert [term.threshold for term in by_statistic.experiment.slo.terms] == [0.5, 0.5]


def test_an_engine_flags_own_mapping_is_told_from_a_range():
    error = fault(parameters={"compilation-config": {"mode": 3}})
    assert """write an engine flag's own mapping as JSON text: '{"mode": 3}'""" in error.remedy
    assert "parameters.compilation-config.mode" in error.remedy
    assert "JSON" not in fault(parameters={"tp-size": {"form": 1, "to": 2}}).remedy


def test_a_target_on_the_mean_is_another_than_one_on_every_request():
    both = normalize_slo({"ttft": {"mean": 1.0, "threshold": 2.0}})
    assert both == {"ttft": {"mean": {"threshold": 1.0}, "threshold": 2.0}}
    assert [term.name for term in Slo.model_validate(both).terms] == ["ttft", "ttft.mean"]


KEYS = sorted(
    {*Experiment.model_fields, *Optimization.model_fields, *Benchmark.model_fields, *SloTerm.model_fields}
    | {
        "id_or_path",
        "ttft",
        "latency",
        "p90",
        "mean",
        "terms",
        "goodput",
        "faults",
        "tp-size",
        "mode",
        "total_gpus",
        "a.b",
        "from",
        "to",
        "step",
    }
)
texts = st.sampled_from(["x", "sim", "vllm", "1", "tp-size > 1", "a.b == from"])
values = st.none() | st.booleans() | st.integers(-2, 5) | st.floats(-1, 2) | texts
trees = st.recursive(
    values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), trees, max_size=3), st.sampled_from(["patch", "replace"]))
def test_any_override_composes_or_is_a_clear_error(overrides, mode):
    assert outcome(overrides, mode)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([key for key in KEYS if key != "attainment"]), trees, max_size=3))
def test_any_slo_composes_or_is_a_clear_error(slo):
    assert outcome({"slo": slo}, "patch")


def outcome(overrides, mode):
    try:
        composition = compose(TaskContext(user_overrides=overrides, override_mode=mode))
    except ConfigError as error:
        return error.what and error.remedy
    return composition.provenance.keys() == leaves(composition.data).keys()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimization.strategy", "racing"),
        ("benchmark.duration", 20.0),
        ("benchmark.request_rates", []),
        ("simulate.skew.sd", 0.0),
        ("runtime.env", {}),
        ("hardware.gpu_type", None),
        ("model.id_or_path", None),
        ("slo.latency.p90.threshold", None),
        ("parameters.tp-size", None),
        ("nothing.at.all", None),
    ],
)
def test_the_default_of_a_path_is_that_of_its_field(path, value):
    assert default_value(path) == value


@pytest.mark.parametrize(
    ("given", "in_options", "in_keys"),
    [
        (
            {"arrival": "ramp:2-4", "request_rates": [3.0], "max_requests": 10},
            "leave --max-requests out",
            "leave max_requests out",
        ),
        ({"arrival": "trace"}, "--arrival trace replays a trace at a rate; give --rate", "give request_rates"),
        ({"arrival": "gamma:2"}, "--arrival gamma:2 applies to open loops", "arrival gamma:2 applies to open loops"),
        ({"arrival": "constant"}, "give --rate", "give request_rates"),
        (
            {"duration": 1, "max_duration": 0.5},
            "--max-duration 0.5 is below --duration 1",
            "max_duration 0.5 is below duration 1",
        ),
        ({"duration": 0}, ": --duration: input should be greater than 0", "benchmark.duration: input"),
        ({"num_concurrency": [0]}, ": --concurrency: every", "benchmark.num_concurrency: every"),
    ],
)
def test_a_fault_is_told_in_the_words_in_which_the_values_were_given(given, in_options, in_keys):
    data = {"benchmark": given}
    for place, message, other in ((COMMAND_LINE, in_options, "(from"), ("mine.yaml:2", in_keys, "--")):
        with pytest.raises(ConfigError) as caught:
            compose(TaskContext(user_overrides=Overrides(data, dict.fromkeys(leaves(data), place))))
        assert message in caught.value.what
        assert other not in caught.value.what
        assert ("(from mine.yaml:2)" in caught.value.what) == (place != COMMAND_LINE)


def test_a_fault_of_an_option_is_not_called_by_its_key():
    cases = (({"total_gpus": 0}, "--total-gpus: "), ({"slo_config": {"ttfft": 1}}, "It comes from --slo."))
    for context, where in cases:
        with pytest.raises(ConfigError) as caught:
            compose(TaskContext(base_runtime="sim", origin=COMMAND_LINE, **context))
        assert where in str(caught.value)
