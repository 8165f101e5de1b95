import itertools
import json
from typing import Any

import pytest
import yaml

from autotuner.core import LoadPoint, Observation
from autotuner.report.exports import FORMATS
from autotuner.report.exports.chrome_trace import chrome_trace
from tests.factories import Run, failed, record

VIEW = Run().view
POINTS = 5  # trials 1 and 2 at both loads, trial 3 at the first


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_names_the_source_of_its_figures(name):
    files = FORMATS[name](Run(source="simulated").view, "run-1")
    assert files
    assert all("simulated" in text for text in files.values())


def test_bencher_has_each_figure_with_its_bounds():
    benchmarks = json.loads(FORMATS["bencher"](VIEW, "run-1")["bencher.json"])
    assert len(benchmarks) == POINTS
    for measures in benchmarks.values():
        assert {"output-throughput-per-gpu", "ttft-p50", "tpot-p50"} <= measures.keys()
        for measure in measures.values():
            assert measure.get("lower_value", 0) <= measure["value"] <= measure.get("upper_value", float("inf"))


def test_github_benchmark_parts_figures_by_their_direction():
    files = FORMATS["github-action-benchmark"](VIEW, "run-1")
    bigger, smaller = (json.loads(files[f"{name}-is-better.json"]) for name in ("bigger", "smaller"))
    assert {entry["name"].rpartition(": ")[2] for entry in smaller} == {"ttft_p50", "tpot_p50", "e2e_p50"}
    assert {entry["name"].rpartition(": ")[2] for entry in bigger} >= {"output_throughput_per_gpu", "goodput"}
    assert all({"name", "unit", "value"} <= entry.keys() for entry in (*bigger, *smaller))


def test_openmetrics_has_one_type_for_each_gauge_and_ends_as_it_must():
    view = Run(model='a"b\\c\nd').view
    lines = FORMATS["openmetrics"](view, "run-1")["autotune.prom"].splitlines()
    assert lines[-1] == "# EOF"
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    samples = [line for line in lines if not line.startswith("#")]
    assert all(line.split("{")[0] in types for line in samples)
    assert all('model="a\\"b\\\\c\\nd"' in line for line in samples)
    assert all(float(line.rpartition(" ")[2]) > 0 for line in samples)


STATISTICS = {"units", "mean", "stddev", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max"}
LLM_D: dict[str, Any] = {
    "version": None,
    "run": dict.fromkeys(("uid", "eid", "description", "keywords")) | {"time": {"start", "end", "duration"}},
    "scenario": {
        "stack": None,
        "load": {
            "metadata": {"cfg_id", "description"},
            "standardized": {
                "tool": None,
                "tool_version": None,
                "source": None,
                "input_seq_len": {"distribution", "value"},
                "output_seq_len": {"distribution", "value"},
                "rate_qps": None,
                "concurrency": None,
            },
            "native": {"args", "envars", "config"},
        },
    },
    "results": {
        "request_performance": {
            "aggregate": {
                "requests": {"total", "failures"},
                "latency": dict.fromkeys(
                    ("time_to_first_token", "time_per_output_token", "inter_token_latency", "request_latency"),
                    STATISTICS,
                ),
                "throughput": dict.fromkeys(
                    ("input_token_rate", "output_token_rate", "total_token_rate", "request_rate"), STATISTICS
                ),
            }
        }
    },
}
"""The keys of version 0.2 that may be used: it forbids all others."""


def unknown_keys(data: Any, allowed: Any, path: str = "") -> list[str]:
    if not isinstance(data, dict) or allowed is None:
        return []
    unknown = [f"{path}.{key}" for key in data if key not in allowed]
    if isinstance(allowed, dict):
        for key, value in data.items():
            unknown += unknown_keys(value, allowed.get(key), f"{path}.{key}")
    return unknown


def test_llm_d_reports_have_only_keys_that_the_schema_knows():
    files = FORMATS["llm-d"](VIEW, "run-1")
    assert len(files) == POINTS
    assert "trial-002-D-100-100-16.yaml" in files
    for text in files.values():
        report = yaml.safe_load(text)
        assert unknown_keys(report, LLM_D) == []
        assert report["version"] == "0.2"
        (component,) = report["scenario"]["stack"]
        assert component.keys() == {"metadata", "standardized", "native"}
        assert component["standardized"]["accelerator"].keys() == {"model", "count", "parallelism"}
        aggregate = report["results"]["request_performance"]["aggregate"]
        assert aggregate["latency"]["time_per_output_token"]["units"] == "s/token"
        assert aggregate["latency"]["time_to_first_token"]["units"] == "s"
        rates = {name: rate["mean"] for name, rate in aggregate["throughput"].items()}
        assert rates["input_token_rate"] + rates["output_token_rate"] == pytest.approx(rates["total_token_rate"])


def test_a_trace_has_requests_in_lanes_in_which_none_overlaps():
    records = (record(0.0), record(0.1), record(5.0), failed(0.05))
    observation = Observation(LoadPoint("D(1,1)", concurrency=2), records, (0.0, 6.0), 0.001)
    events = json.loads(chrome_trace(observation, "run"))["traceEvents"]
    requests = [event for event in events if event["ph"] == "X" and event["name"].startswith("request")]
    assert len(requests) == 4
    for lane in {event["tid"] for event in requests}:
        spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in requests if event["tid"] == lane)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    instants = [event for event in events if event["ph"] == "i"]
    assert len(instants) == 3 * 11
    assert min(event["ts"] for event in requests) == 0
