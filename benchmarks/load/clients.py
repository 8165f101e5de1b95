"""The compared load generators: packages to install, command line, and parser of the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TORCH = "2.13.0"
WARMUP_SECONDS = 2.5
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class BenchmarkLoad:
    """The load every client drives: a closed loop of `streams`, `requests` counted after `warmup` requests."""

    url: str
    streams: int
    requests: int
    warmup: int
    tokens: int
    seconds: float
    tokenizer: Path
    folder: Path
    model: str = "m"
    seed: int = 0


@dataclass(frozen=True)
class ReportedMetrics:
    """What a client reported, in ms and tokens/s; `remark` is a doubt it has of its own results."""

    requests: int
    ttft_mean: float
    ttft_p99: float
    tpot_mean: float
    output_throughput: float
    remark: str = ""


@dataclass(frozen=True)
class Client:
    """A load generator; `packages` are installed into an environment of its own."""

    name: str
    version: str
    packages: tuple[str, ...]
    command: Callable[[Path, BenchmarkLoad], list[str]]
    read: Callable[[BenchmarkLoad], ReportedMetrics]
    environment: Mapping[str, str] = field(default_factory=dict)


def _autotune(_: Path, load: BenchmarkLoad) -> list[str]:
    # a little longer than one request, so that every stream has finished one
    warmup = WARMUP_SECONDS if load.warmup else 0.0
    return [
        *(sys.executable, "-m", "autotuner", "bench", load.url, "--model", load.model, "--json"),
        *("--scenario", f"D(100,{load.tokens})", "--concurrency", str(load.streams)),
        *("--max-requests", str(load.requests), "--duration", f"{load.seconds:g}", "--warmup", f"{warmup:g}"),
    ]


def _autotune_reported(load: BenchmarkLoad) -> ReportedMetrics:
    [point] = _json(load.folder / "stdout.txt")["load_points"]
    report = point["metrics"]
    return ReportedMetrics(
        requests=report["ttft"]["n"],
        ttft_mean=report["ttft"]["mean"] * 1e3,
        ttft_p99=report["ttft"]["p99"] * 1e3,
        tpot_mean=report["tpot"]["mean"] * 1e3,
        output_throughput=report["output_throughput"],
        remark="" if point["verdict"] == "feasible" else point["verdict"],
    )


def _measure_once(_: Path, load: BenchmarkLoad) -> list[str]:
    return [
        *(sys.executable, str(Path(__file__).with_name("measure_once.py")), load.url, "--model", load.model),
        *("--streams", str(load.streams), "--requests", str(load.requests), "--limit", f"{load.seconds:g}"),
        *("--scenario", f"D(100,{load.tokens})", "--vocabulary", str(_vocab_size(load.tokenizer))),
    ]


def _vocab_size(model: Path) -> int:
    size: int = _json(model / "config.json")["vocab_size"]
    return size


def _measured_once(load: BenchmarkLoad) -> ReportedMetrics:
    return ReportedMetrics(**_json(load.folder / "stdout.txt"))


def _vllm(environment: Path, load: BenchmarkLoad) -> list[str]:
    return [
        *(str(environment / "bin" / "vllm"), "bench", "serve", "--backend", "openai", "--base-url", load.url),
        *("--endpoint", "/v1/completions", "--model", load.model, "--tokenizer", str(load.tokenizer)),
        *("--seed", str(load.seed), "--percentile-metrics", "ttft,tpot", "--temperature", "0"),
        *("--dataset-name", "random", "--random-input-len", "100", "--random-output-len", str(load.tokens)),
        *("--num-prompts", str(load.requests), "--max-concurrency", str(load.streams)),
        *("--num-warmups", str(load.warmup), "--ready-check-timeout-sec", "0", "--ignore-eos", "--disable-tqdm"),
        *("--save-result", "--result-dir", str(load.folder), "--result-filename", "reported.json"),
    ]


def _vllm_reported(load: BenchmarkLoad) -> ReportedMetrics:
    report = _json(load.folder / "reported.json")
    return ReportedMetrics(
        report["completed"],
        report["mean_ttft_ms"],
        report["p99_ttft_ms"],
        report["mean_tpot_ms"],
        report["output_throughput"],
    )


def _aiperf(environment: Path, load: BenchmarkLoad) -> list[str]:
    return [
        *(str(environment / "bin" / "aiperf"), "profile", "-m", "m", "--tokenizer", str(load.tokenizer)),
        *("--url", load.url, "--endpoint-type", "completions", "--streaming", "--concurrency", str(load.streams)),
        *("--request-count", str(load.requests), "--warmup-request-count", str(load.warmup)),
        *("--benchmark-duration", f"{load.seconds:g}", "--isl", "100", "--isl-stddev", "0"),
        *("--osl", str(load.tokens), "--osl-stddev", "0"),
        *("--extra-inputs", "ignore_eos:true", "--no-server-metrics", "--ui-type", "none"),
        *("--export-level", "summary", "--artifact-dir", str(load.folder)),
    ]


def _aiperf_reported(load: BenchmarkLoad) -> ReportedMetrics:
    report = _json(load.folder / "profile_export_aiperf.json")
    ttft = report["time_to_first_token"]
    count = round(report["request_count"]["avg"])
    return ReportedMetrics(
        count,
        ttft["avg"],
        ttft["p99"],
        report["inter_token_latency"]["avg"],
        report["output_token_throughput"]["avg"],
    )


def _guidellm(environment: Path, load: BenchmarkLoad) -> list[str]:
    warmup = {"mode": "requests", "value": load.warmup}
    profile = {"kind": "concurrent", "streams": [load.streams], "warmup": warmup}
    return [
        *(str(environment / "bin" / "guidellm"), "run"),
        *("--backend", f"kind=openai_http,target={load.url},model=m,request_format=/v1/completions"),
        *("--profile", json.dumps(profile)),
        *("--constraint", f"kind=max_requests,count={load.requests + load.warmup}"),
        *("--constraint", f"kind=max_duration,seconds={load.seconds:g}"),
        *("--tokenizer", f"kind=hf_auto,model={load.tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=100,output_tokens={load.tokens}"),
        *("--output", f"kind=json,path={load.folder / 'reported.json'}", "--disable-console"),
    ]


def _guidellm_reported(load: BenchmarkLoad) -> ReportedMetrics:
    metrics = _json(load.folder / "reported.json")["benchmarks"][0]["metrics"]
    ttft = metrics["time_to_first_token_ms"]["successful"]
    # its own time_per_output_token_ms divides the whole request, first token included
    tpot = metrics["inter_token_latency_ms"]["successful"]["mean"]
    throughput = metrics["output_tokens_per_second"]["successful"]["mean"]
    return ReportedMetrics(ttft["count"], ttft["mean"], ttft["percentiles"]["p99"], tpot, throughput)


def _genai_bench(environment: Path, load: BenchmarkLoad) -> list[str]:
    total = load.requests + load.warmup
    return [
        *(str(environment / "bin" / "genai-bench"), "benchmark", "--api-backend", "openai", "--api-base", load.url),
        *("--api-key", "none", "--task", "text-to-text", "--api-model-name", "m"),
        *("--model-tokenizer", str(load.tokenizer), "--traffic-scenario", f"D(100,{load.tokens})"),
        *("--num-concurrency", str(load.streams), "--max-requests-per-run", str(total)),
        *("--warmup-ratio", f"{load.warmup / total:.6f}", "--max-time-per-run", str(-(-int(load.seconds) // 60))),
        *("--experiment-base-dir", str(load.folder), "--experiment-folder-name", "run"),
        *("--log-dir", str(load.folder)),
    ]


def _genai_bench_reported(load: BenchmarkLoad) -> ReportedMetrics:
    [path] = (load.folder / "run").glob("D*_text-to-text_num_concurrency_*.json")
    report = _json(path)["aggregated_metrics"]
    ttft, tpot = report["stats"]["ttft"], report["stats"]["tpot"]
    # the warm-up is left out of the statistics, but not of the count
    total = report["num_completed_requests"]
    warmup = int(total * load.warmup / (load.requests + load.warmup))
    throughput = report["mean_output_throughput_tokens_per_s"]
    return ReportedMetrics(total - warmup, ttft["mean"] * 1e3, ttft["p99"] * 1e3, tpot["mean"] * 1e3, throughput)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def vllm_client(version: str) -> Client:
    """`vllm bench serve`, which comes with vLLM; its environment is set up elsewhere."""
    return Client("vllm bench serve", version, (), _vllm, _vllm_reported, OFFLINE)


def autotune_client(version: str) -> Client:
    return Client("autotune", version, (), _autotune, _autotune_reported)


def measuring_client(version: str) -> Client:
    """autotune without probing which model the server has; the tokenizer's folder must hold a model."""
    return Client("autotune", version, (), _measure_once, _measured_once)


# AIPerf takes a folder as tokenizer only where the hub could be asked
PEERS = (
    Client("AIPerf", "0.13.0", ("aiperf==0.13.0",), _aiperf, _aiperf_reported),
    Client("GuideLLM", "0.8.1", ("guidellm==0.8.1",), _guidellm, _guidellm_reported, OFFLINE),
    Client("genai-bench", "0.0.5", ("genai-bench==0.0.5",), _genai_bench, _genai_bench_reported, OFFLINE),
)
