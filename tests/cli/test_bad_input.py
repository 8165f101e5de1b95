"""Each mistake a user can make on the command line: named, with a remedy, and nothing started."""

import pytest

MISTAKES = [
    (("run", "--dry-run", "--set", "base_runtime={a: 1}"), 2, "Unknown runtime '{'a': 1}'"),
    (("run", "--dry-run", "--set", "base_runtime=[vllm]"), 2, "Unknown runtime '['vllm']'"),
    (("run", "--profile", "quick-tset"), 2, "did you mean 'quick-test'"),
    (("run", "--runtime", "vlm", "--model", "m"), 2, "did you mean 'vllm'"),
    (("run", "--runtime", "vllm"), 2, "--model"),
    (("run", "--runtime", "sim", "--model", "llama-3.1-8b", "--namespace", "x"), 2, "--namespace cannot be used here"),
    (("run", "--deployment", "proces"), 2, "did you mean 'process'"),
    (("run", "--objective", "minimise_latency"), 2, "did you mean 'minimize_latency'"),
    (("run", "--strategy", "grid_serch"), 2, "did you mean 'grid_search'"),
    (("run", "--scenario", "X(1,2)"), 2, "X(1,2)"),
    (("run", "--scenario", "D(100, 100)"), 2, "D(100, 100)"),
    (("run", "--scenario", "E(100)"), 2, "E(100)"),
    (("run", "--concurrency", "1,a"), 2, "--concurrency '1,a'"),
    (("run", "--concurrency", "0"), 2, "at least 1"),
    (("run", "--parallel-trials", "abc"), 2, "'abc'"),
    (("run", "--duration", "soon"), 2, "'soon'"),
    (("bench", "http://127.0.0.1:9", "--seed", "1.5"), 2, "'1.5'"),
    (("predict", "point", "--tp", "two", "--model", "llama-3.1-8b"), 2, "'two'"),
    (("run", "--rate", "-1"), 2, "above 0"),
    (("run", "--rate", "tracy"), 2, "--rate 'tracy'"),
    (("run", "--rate", "trace"), 2, "has no times to replay"),
    (("run", "--scenario", "file:missing.jsonl"), 2, "missing.jsonl"),
    (("run", "--set", "benchmark=3"), 2, "benchmark"),
    (("run", "--set", "benchmark.request_rates=[[1]]"), 2, "request_rates"),
    (("run", "--set", "benchmark.request_rates=trace"), 2, "request_rates"),
    (("run", "--set", "optimization.max_iteration=5"), 2, "did you mean 'max_iterations'"),
    (("run", "--set", "nonsense"), 2, "Cannot read --set"),
    (("run", "--set", "parameters.tp-sise=[1]"), 2, "did you mean 'tp-size'"),
    (("run", "--set", "parameters.tp-size=[one]"), 2, "tp-size"),
    (("run", "--set", "parameters.tp-size=[]"), 2, "tp-size"),
    (("run", "--set", "parameters.tp-size={from: 1, to: 4}"), 2, "either 'step' or 'factor'"),
    (("run", "--set", "constraints.a=tp-sise > 1"), 2, "did you mean 'tp-size'"),
    (("run", "--set", "constraints.a=tp-size = 1"), 2, "write =="),
    (("run", "--set", "constraints.a=tp-size == gpus"), 2, "Give --total-gpus"),
    (("run", "--set", "constraints.a=tp-size > 1"), 2, "breaks the constraint a: tp-size > 1"),
    (("run", "--set", "constraints.a=tp-size > 1"), 2, "Remove the constraint with --set constraints.a=null."),
    (("run", "--model", "llama-3.1-70b", "--set", "parameters.tp-size=1"), 2, "more GPUs with a larger tp-size"),
    (("config", "show", "nosuch.key"), 2, ", benchmark.arrival. `autotune config show --all`"),
    (("run", "--duration", "1", "--max-duration", "0.5"), 2, "--max-duration 0.5 is below --duration 1"),
    (("run", "--set", "only_when.tp-size=enable-chunked-prefil"), 2, "did you mean 'enable-chunked-prefill'"),
    (("run", "--set", "only_when.tp-sise=gpus > 1"), 2, "did you mean 'tp-size'"),
    (("run", "--set", "only_when.tp-size=mem-fraction-static"), 2, "uses mem-fraction-static as true or false"),
    (("run", "--slo", "strict-latensy"), 2, "did you mean 'strict-latency'"),
    (("run", "--slo", "ttfft=1"), 2, "did you mean 'ttft'"),
    (("run", "--slo", "ttft=fast"), 2, "has no number"),
    (("run", "--slo", "ttft=nan"), 2, "--slo ttft is nan, which is not a finite number"),
    (("run", "--slo", "tpot.p90=inf"), 2, "--slo tpot.p90 is inf"),
    (("run", "--slo", "ttft=1,attainment=nan"), 2, "--slo attainment is nan"),
    (("run", "--rate", "2,nan"), 2, "--rate is nan"),
    (("run", "--duration", "inf"), 2, "'--duration': inf is not a finite number"),
    (("run", "--set", "benchmark.warmup=.inf"), 2, "benchmark.warmup is inf"),
    (("bench", "http://127.0.0.1:9", "--rate", "inf"), 2, "--rate is inf"),
    (("run", "--layer", "fp8-defualt"), 2, "did you mean 'fp8-default'"),
    (("run", "--override-mode", "merge"), 2, "merge"),
    (("run", "--total-gpus", "0"), 2, "--total-gpus: input should be"),
    (("run", "--gpu", "Z99"), 2, "Unknown GPU 'Z99'. Known are a10, a100_pcie"),
    (("run", "--gpu", "H1000", "--dry-run"), 2, "did you mean 'H100'"),
    (("run", "--set", "simulate.gpu=H1000"), 2, "did you mean 'H100'"),
    (("run", "--runtime", "vllm", "--model", "m", "--set", "hardware.gpu_type=H1000"), 2, "did you mean 'H100'"),
    (("run", "--price", "0"), 2, "--price: input should be"),
    (("run", "--model", "/nowhere/at/all"), 2, "/nowhere/at/all"),
    (("run", "--resume", "nothing-here"), 3, "is not a run folder"),
    (("run", "--resume"), 3, "There is no run under 'runs'"),
    (("run", "--resume", "--output", "elsewhere"), 3, "There is no run under 'elsewhere'"),
    (("run", "--resume", "x", "--profile", "balanced"), 2, "--profile would change it"),
    (("run", "--profile", "balanced", "--resume"), 2, "--resume keeps the configuration"),
    (("run", "--resume", "--dry-run"), 2, "cannot be combined with --dry-run"),
    (("run", "--config", "missing.yaml"), 2, "missing.yaml"),
    (("run", "--url", "http://127.0.0.1:1", "--model", "m"), 3, "127.0.0.1:1"),
    (("run", "--url", "nonsense", "--model", "m"), 2, "nonsense"),
    (("report",), 3, "There is no run"),
    (("report", "nothing-here"), 3, "is not a run folder"),
    (("command", "nothing-here"), 3, "is not a run folder"),
    (("command",), 3, "There is no run under 'runs'. Start one with `autotune run --profile quick-test`"),
    (("command", "--port", "0"), 2, "--port"),
    (("command", "--port", "65536"), 2, "--port"),
    (("profiles", "show", "balansed"), 2, "did you mean 'balanced'"),
    (("profiles", "diff", "balanced", "balansed"), 2, "did you mean 'balanced'"),
    (("profiles", "check", "missing.yaml"), 2, "missing.yaml"),
    (("profiles", "show", "strict-latensy", "--kind", "slo"), 2, "Unknown SLO 'strict-latensy'"),
    (("profiles", "list", "--kind", "slos"), 2, "did you mean 'slo'"),
    (("config", "show", "--format", "jsn"), 2, "did you mean 'json'"),
    (("config", "show", "optimization.startegy"), 2, "did you mean 'optimization.strategy'"),
    (("config", "show", "--gpu", "H1000"), 2, "did you mean 'H100'"),
    (("predict", "--model", "llama-3.1-8b", "--gpu", "H1000"), 2, "did you mean 'H100'"),
    *(
        (("predict", "point", "--model", "llama-3.1-8b", "--gpu", "H100", "--concurrency", value), 2, message)
        for value, message in (
            ("0", "--concurrency 0 is not between 1 and"),
            ("-3", "--concurrency -3 is not between 1 and"),
            ("1000000000", "as many as a host has ports"),
            ("nan", "valid integer"),
        )
    ),
    (("predict", "rank", "--model", "llama-3.1-8b", "--gpu", "H100", "--slo", "ttft=inf"), 2, "cannot be predicted"),
    (("compare", "missing", "other"), 3, "There is no run or baseline 'missing'"),
    (("compare", "missing", "other"), 3, "a file of `autotune baseline save`"),
    (("rum",), 2, "rum"),
    (("sla", "plan", "p", "--rate", "nan"), 2, "nan is not a finite number"),
    (("command", "--replicas", "1000000000000"), 2, "--replicas"),
    (("run", "--profile", "quick-test", "--price", "1e308"), 2, "--price"),
    (("run", "--profile", "quick-test", "--set", "simulate.skew.sd=1e300"), 2, "simulate.skew.sd"),
    (("run", "--proflie", "x"), 2, "--proflie"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=[" ".join(case[0]) for case in MISTAKES])
def test_a_mistake_is_named_and_starts_nothing(autotune, tmp_path, arguments, code, message):
    ended = autotune(*arguments)
    words = " ".join(ended.err.replace("│", " ").split())
    assert ended.code == code, ended
    assert message in words
    assert "Traceback" not in ended.err
    assert not ended.out
    assert not (tmp_path / "runs").exists()


def test_malformed_yaml_is_reported_with_file_line_and_column(autotune, tmp_path):
    (tmp_path / "mine.yaml").write_text("optimization:\n  max_iterations: [1,\n")
    ended = autotune("run", "--config", "mine.yaml")
    assert ended.code == 2
    assert "mine.yaml:3:1:" in ended.err


def test_with_debug_the_traceback_is_shown(autotune):
    ended = autotune("--debug", "run", "--profile", "quick-tset")
    assert ended.code == 2
    assert "Traceback" in ended.err
