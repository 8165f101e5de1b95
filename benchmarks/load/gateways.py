"""What gateways add to TTFT and TPOT: real servers measured directly and through each, in turn.

    PYTHONPATH=. python tests/gateways/loopback_only.py python benchmarks/load/gateways.py \\
        --gateways FOLDER --vllm-env ENV --model FOLDER --write docs/reference/gateways.md

The folders are those that tests/gateways/setup_gateways.py and tests/real/setup_vllm.py made. The second table
compares TTFT with the histogram of Dynamo's frontend.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import machine, table, today, write_section

import autotuner
from autotuner.core import Progress
from tests.gateways.bench_command import run_autotune
from tests.gateways.gateway_servers import KEY, KEY_VARIABLE, MODEL, GatewayServers
from tests.gateways.ttft_histogram import TtftHistogram

VLLM_LOAD, DYNAMO_LOAD = ("D(64,32)", (1, 4)), ("D(100,100)", (1, 16))
HISTOGRAM_PROMPTS, HISTOGRAM_IN_FLIGHT, HISTOGRAM_OUTPUT = (100, 3000), (1, 16), 20
MILLISECONDS = 1e3


@dataclass(frozen=True)
class GatewayCase:
    """A gateway under its name, how to start it, the options it is measured with, and the load: lengths, in flight."""

    name: str
    gateway: AbstractContextManager[str]
    load: tuple[str, Sequence[int]]
    options: tuple[str, ...] = ()


def measure(url: str, load: tuple[str, Sequence[int]], seconds: float, options: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON of a load test; RuntimeError with its words if it gives none."""
    scenario, in_flight = load
    window = ["--duration", f"{seconds:g}", "--max-duration", f"{seconds:g}", "--warmup", "2", "--fail-on", "none"]
    concurrency = ",".join(map(str, in_flight))
    outcome = run_autotune(
        *("bench", url, "--json", "--scenario", scenario, "--concurrency", concurrency, *window, *options),
        folder=Path.cwd(),
        env={KEY_VARIABLE: KEY},
    )
    if not outcome.record:
        raise RuntimeError(outcome.stderr)
    return outcome.record


def gateway_rows(direct_url: str, case: GatewayCase, seconds: float) -> Iterator[list[str]]:
    """Measure a server directly and then through a gateway; one row for each number of requests in flight."""
    direct = measure(direct_url, case.load, seconds)
    with case.gateway as url:
        through = measure(url, case.load, seconds, case.options)
    prompts = "chat" if through["endpoint"] == "chat" else through["request"]["prompts"].replace("-", " ")
    for before, after in zip(direct["load_points"], through["load_points"], strict=True):
        figures = [
            f"{point['metrics'][name]['p50'] * MILLISECONDS:.1f}" if point["metrics"][name] else "-"
            for name in ("ttft", "tpot")
            for point in (before, after)
        ]
        streamed = after["validity"]["streamed"]["value"]
        streamed_text = "-" if streamed is None else f"{streamed:.0%}"
        counts = f"{before['metrics']['requests']}, {after['metrics']['requests']}"
        yield [case.name, prompts, str(after["concurrency"]), counts, *figures, streamed_text]


def histogram_rows(url: str, seconds: float) -> Iterator[list[str]]:
    """Mean TTFT of the client beside that of the frontend's histogram over the same window.

    The warm-up, and the few short requests that are sent before it, are not among either.
    """
    for prompt_tokens in HISTOGRAM_PROMPTS:
        for in_flight in HISTOGRAM_IN_FLIGHT:
            readings: dict[str, TtftHistogram] = {}

            def read_histogram(progress: Progress, readings: dict[str, TtftHistogram] = readings) -> None:
                if progress.stage in ("measuring", "measured"):
                    readings.setdefault(progress.stage, TtftHistogram.read(url))

            result = autotuner.bench(
                url,
                model=MODEL,
                scenarios=[f"D({prompt_tokens},{HISTOGRAM_OUTPUT})"],
                concurrency=[in_flight],
                duration=seconds,
                max_duration=seconds,
                warmup=2.0,
                observe=read_histogram,
            )
            client = result.load_points[0].metrics.ttft
            assert client is not None
            server = readings["measured"].since(readings["measuring"]).mean
            times = [f"{time * MILLISECONDS:.1f}" for time in (client.mean, server)]
            yield [f"{prompt_tokens:,}", str(in_flight), *times, f"{client.mean / server - 1:+.1%}"]


@contextmanager
def started_servers(servers: GatewayServers) -> Iterator[tuple[str, str]]:
    """A running vLLM and a running Dynamo."""
    with ExitStack() as stack:
        yield stack.enter_context(servers.vllm()), stack.enter_context(servers.dynamo())


def measured_tables(servers: GatewayServers, seconds: float) -> tuple[str, str]:
    """Both tables as Markdown."""
    with_key = ("--api-key-env", KEY_VARIABLE)
    with started_servers(servers) as (vllm, dynamo):
        cases = [
            (vllm, GatewayCase("nginx, vLLM", servers.nginx(vllm), VLLM_LOAD)),
            (
                vllm,
                GatewayCase("nginx unbuffered, vLLM", servers.nginx(vllm, "proxy_buffering off", port=8051), VLLM_LOAD),
            ),
            (vllm, GatewayCase("LiteLLM, vLLM", servers.litellm(vllm), VLLM_LOAD, with_key)),
            (vllm, GatewayCase("LiteLLM, vLLM", servers.litellm(vllm), VLLM_LOAD, (*with_key, "--endpoint", "chat"))),
            (vllm, GatewayCase("SGLang's router, vLLM", servers.sglang_router(vllm), VLLM_LOAD, ("--model", MODEL))),
            (dynamo, GatewayCase("nginx, Dynamo", servers.nginx(dynamo, port=8052), DYNAMO_LOAD)),
            (
                dynamo,
                GatewayCase(
                    "nginx unbuffered, Dynamo", servers.nginx(dynamo, "proxy_buffering off", port=8053), DYNAMO_LOAD
                ),
            ),
        ]
        rows = []
        for direct_url, case in cases:
            print(case.name, file=sys.stderr)
            rows += list(gateway_rows(direct_url, case, seconds))
        comparison = list(histogram_rows(dynamo, seconds))
    header = [
        "gateway, server",
        "prompts",
        "in flight",
        "requests",
        "TTFT/ms direct",
        "through",
        "TPOT/ms direct",
        "through",
    ]
    return (
        table([*header, "streamed"], rows),
        table(
            ["prompt tokens", "in flight", "TTFT/ms, autotune", "TTFT/ms, the frontend's histogram", "difference"],
            comparison,
        ),
    )


def main() -> None:
    """Measure, and write both tables into a page or to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=Path, required=True, help="folder of setup_gateways.py")
    parser.add_argument("--vllm-env", type=Path, required=True, help="virtual environment with vLLM for CPU")
    parser.add_argument("--model", type=Path, required=True, help="folder of the tiny model")
    parser.add_argument("--seconds", type=float, default=15.0, help="window of each load point")
    parser.add_argument("--write", type=Path, help="page with the sections 'gateways' and 'histogram'")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs:
        servers = GatewayServers(arguments.gateways, arguments.vllm_env, arguments.model, Path(logs))
        gateways, histogram = measured_tables(servers, arguments.seconds)
    origin = f"Measured {today()} on {machine()}."
    if arguments.write is None:
        print(gateways, histogram, sep="\n\n")
        return
    write_section(arguments.write, "gateways", f"{origin}\n\n{gateways}")
    write_section(arguments.write, "histogram", f"{origin}\n\n{histogram}")


if __name__ == "__main__":
    main()
