"""`autotune config show`: every value, and where it is from."""

import pytest
import yaml

PRODUCTION = ("--profile", "production", "--set", "optimization.max_iterations=5")


def row(output, path):
    """Cells of the line of one value."""
    return next(line for line in output.splitlines() if line.startswith(f"{path} ")).split(None, 2)


def test_every_value_has_a_line_with_its_layer(autotune):
    shown = autotune("config", "show", *PRODUCTION).out
    assert row(shown, "optimization.max_iterations") == ["optimization.max_iterations", "5", "user_patch, --set"]
    assert row(shown, "slo.latency.p90.hard_fail")[1:] == ["true", "profile production"]
    assert row(shown, "benchmark.traffic_scenarios")[1:] == ["['D(100,100)']", "base-optimization"]
    assert "benchmark.duration " not in shown


@pytest.mark.parametrize(
    ("arguments", "origin"),
    [
        (("--max-iterations", "7"), "user_patch, the command line"),
        (("--config", "mine.yaml"), "user_patch, ./mine.yaml:1"),
        (("--profile", "quick-test"), "profile quick-test"),
        ((), "base-optimization"),
    ],
)
def test_an_override_says_where_it_was_given(autotune, tmp_path, arguments, origin):
    (tmp_path / "mine.yaml").write_text("optimization: {max_iterations: 7}\n")
    shown = autotune("config", "show", *arguments).out
    assert row(shown, "optimization.max_iterations")[2] == origin


def test_the_defaults_are_shown_where_they_are_asked_for(autotune):
    shown = autotune("config", "show", "--all").out
    assert row(shown, "benchmark.duration") == ["benchmark.duration", "20.0", "default"]
    assert row(shown, "optimization.strategy")[2] == "base-optimization"


def test_one_value_is_shown_with_its_place_and_all_that_it_overrode(autotune):
    assert autotune("config", "show", "optimization.max_iterations", *PRODUCTION).out.splitlines() == [
        "optimization.max_iterations = 5",
        "from        user_patch, --set optimization.max_iterations=5",
        "instead of  30, from profile:production:production-params, bundled production.yaml:11",
        "instead of  10, from base-optimization, bundled base/base-optimization.yaml:15",
        "instead of  10, the default",
    ]


def test_a_default_is_shown_as_one(autotune):
    assert autotune("config", "show", "benchmark.duration").out == "benchmark.duration = 20.0\nfrom        default\n"


def test_what_the_gpu_limit_changed_is_shown_with_the_original(autotune):
    shown = autotune("config", "show", "parameters.tp-size", "--profile", "high-throughput", "--total-gpus", "2")
    assert shown.out.splitlines()[:2] == ["parameters.tp-size = [2]", "from        gpu-limit"]
    earlier = "instead of [4, 8], from profile:high-throughput:high-throughput-params, bundled high-throughput.yaml:14"
    assert earlier in " ".join(shown.out.split())
    assert "tp-size [4, 8] is above the 2 GPUs allowed: [2] is tried instead" in " ".join(shown.err.split())


def test_one_section_is_a_table_of_its_own(autotune):
    shown = autotune("config", "show", "slo", *PRODUCTION).out
    assert row(shown, "slo.ttft.threshold")[1:] == ["1.0", "profile production"]
    assert all(line.startswith(("slo.", "value ", "─")) for line in shown.splitlines())


def test_one_value_as_data(autotune):
    value = autotune("config", "show", "optimization.max_iterations", *PRODUCTION, "--json").data
    assert (value["value"], value["layer"]) == (5, "user_patch")
    assert [earlier["value"] for earlier in value["overridden"]] == [30, 10]
    assert autotune("config", "show", "benchmark.num_concurrency", "--format", "yaml").out == "[1, 4]\n"
    assert yaml.safe_load(autotune("config", "show", "optimization", "--format", "yaml").out)["strategy"] == "racing"
    assert autotune("config", "show", "slo.attainment", "--json").data["layer"] == "default"


def test_the_deployment_says_why_it_was_chosen(autotune, monkeypatch):
    from autotuner.machine import LocalMachine

    monkeypatch.setattr(LocalMachine, "deployment", lambda self, runtime, executable: ("docker", "a daemon answers"))
    real = ("--runtime", "vllm", "--model", "m")
    table = autotune("config", "show", *real)
    assert row(table.out, "deployment.mode")[1:] == ["docker", "docker-defaults, this machine"]
    assert table.err == "deployment docker: a daemon answers\n"
    one = autotune("config", "show", "deployment.mode", *real)
    assert one.out.splitlines()[2] == "because     a daemon answers"
    assert one.err == ""
    assert autotune("config", "show", *real, "--json").data["reasons"]["deployment.mode"] == "a daemon answers"
    plan = autotune("run", *real, "--dry-run").out
    assert "engine       vllm (measured), docker: a daemon answers" in plan
    simulated = autotune("run", "--evaluator", "simulated", *real[:2], "--model", "llama-3.1-8b", "--dry-run").out
    assert "engine       vllm (simulated), in virtual time\n" in simulated


def test_a_gpu_that_only_this_machine_knows_is_planned_with_and_not_predicted(autotune, monkeypatch):
    from autotuner import machine
    from autotuner.launchers import gpus

    present = gpus.GpuInventory(
        tuple(gpus.InstalledGpu(n, "NVIDIA Z99", f"GPU-{n}", 80 << 30, 79 << 30) for n in range(2))
    )
    monkeypatch.setattr(machine, "query_inventory", lambda: present)
    real = ("--runtime", "vllm", "--deployment", "process", "--model", "llama-3.1-8b")
    plan = autotune("run", "--profile", "balanced", *real, "--dry-run", "--json")
    assert plan.code == 0
    assert {candidate.get("tp-size", 1) for candidate in plan.data["candidates"]} == {1, 2}
    assert plan.data["predicted"][0] == [None, None, None]
    assert "the GPU table has no NVIDIA Z99" in " ".join(plan.err.split())


def test_the_price_of_a_gpu_is_an_option(autotune):
    shown = autotune("config", "show", "hardware.price_per_gpu_hour", "--price", "2.5").out
    assert shown.splitlines()[:2] == ["hardware.price_per_gpu_hour = 2.5", "from        user_patch, the command line"]
    assert "no price" not in autotune("config", "show", "--objective", "minimize_cost", "--price", "2.5").err


def test_yaml_can_be_read_back(autotune):
    assert yaml.safe_load(autotune("config", "show", "--format", "yaml").out)["base_runtime"] == "sim"


def test_the_first_command_of_a_new_user_warns_of_nothing(autotune):
    assert autotune("run", "--profile", "quick-test", "--dry-run").err == ""
