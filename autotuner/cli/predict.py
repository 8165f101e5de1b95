"""`autotune predict`: what-if questions, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.load_options import HARDWARE, JSON_OPTION, LOAD, OUTPUT, SERVE, TARGETS, option

if TYPE_CHECKING:
    from autotuner.predict.traffic import LatencyTarget, Software, Traffic

TASK_OPTIONS = "What to find"
PREDICTED_ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True)
class Question:
    """What the command line asks about, in the predictor's words."""

    model: str
    gpus: tuple[str, ...]
    traffic: Traffic
    software: Software
    target: LatencyTarget
    prices: dict[str, float]
    decode_gpu: str | None
    total_gpus: int | None
    bundled_only: bool


def predict(
    model: Annotated[
        str,
        option(
            "--model",
            "-m",
            metavar="NAME|PATH",
            help="Model: a bundled name, such as qwen3-32b, or a folder or file with a config.json.",
            panel=SERVE,
            default="none; needed unless --table is given",
        ),
    ] = "",
    runtime: Annotated[
        str, option("--runtime", "-r", metavar="ENGINE", help="Engine: vllm, sglang or trtllm.", panel=SERVE)
    ] = "vllm",
    engine_version: Annotated[
        str,
        option(
            "--engine-version",
            metavar="VERSION",
            help="Version of the engine, such as 0.12.0.",
            panel=SERVE,
            default="any version",
        ),
    ] = "",
    dtype: Annotated[
        str,
        option(
            "--dtype",
            metavar="TYPE",
            help="Type of the weights: bf16, fp8, int8, int4 or fp4.",
            panel=SERVE,
            default="the checkpoint's",
        ),
    ] = "",
    kv_dtype: Annotated[
        str,
        option("--kv-dtype", metavar="TYPE", help="Type of the KV cache: bf16 or fp8.", panel=SERVE, default="bf16"),
    ] = "",
    gpu: Annotated[
        str,
        option(
            "--gpu",
            metavar="TYPE[,TYPE...]",
            help="GPU type; with --target-rate several to compare, such as H100,H200,B200, or any.",
            panel=HARDWARE,
            default="none; needed unless --table is given",
        ),
    ] = "",
    tp: Annotated[int, option("--tp", metavar="N", min=1, help="Tensor-parallel size.", panel=HARDWARE)] = 1,
    pp: Annotated[int, option("--pp", metavar="N", min=1, help="Pipeline-parallel size.", panel=HARDWARE)] = 1,
    dp: Annotated[
        int, option("--dp", metavar="N", min=1, help="Data-parallel size of the attention layers.", panel=HARDWARE)
    ] = 1,
    ep: Annotated[
        int,
        option("--ep", metavar="N", min=1, help="Expert-parallel size, for mixture-of-experts models.", panel=HARDWARE),
    ] = 1,
    decode_gpu: Annotated[
        str,
        option(
            "--decode-gpu",
            metavar="TYPE",
            help="GPU type of the decode workers in disaggregated (P/D) serving; --gpu is that of the prefill workers.",
            panel=HARDWARE,
            default="as --gpu",
        ),
    ] = "",
    price: Annotated[
        list[str] | None,
        option(
            "--price",
            metavar="TYPE=PRICE",
            help="Price of one GPU for an hour, such as H100=2.5; repeatable, for each type.",
            panel=HARDWARE,
            default="none",
        ),
    ] = None,
    isl: Annotated[
        int, option("--isl", metavar="TOKENS", min=1, help="Input sequence length: prompt tokens.", panel=LOAD)
    ] = 1024,
    osl: Annotated[
        int, option("--osl", metavar="TOKENS", min=1, help="Output sequence length: output tokens.", panel=LOAD)
    ] = 1024,
    concurrency: Annotated[
        int | None,
        option(
            "--concurrency",
            metavar="N",
            min=1,
            help="Closed loop: requests in flight on the whole deployment.",
            panel=LOAD,
            default="16",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        option(
            "--rate",
            metavar="R",
            help="Open loop: requests per second, Poisson arrivals, instead of --concurrency.",
            panel=LOAD,
            default="none",
        ),
    ] = None,
    prefix_hit: Annotated[
        float,
        option(
            "--prefix-hit", metavar="SHARE", help="Share of the prompt tokens that hit the prefix cache.", panel=LOAD
        ),
    ] = 0,
    draft_tokens: Annotated[
        int,
        option(
            "--draft-tokens",
            metavar="N",
            min=0,
            help="Speculative decoding: tokens proposed in each step.",
            panel=LOAD,
        ),
    ] = 0,
    acceptance: Annotated[
        float,
        option(
            "--acceptance",
            metavar="SHARE",
            help="Speculative decoding: probability that a proposed token is accepted.",
            panel=LOAD,
        ),
    ] = 0.7,
    slo: Annotated[
        str | None,
        option(
            "--slo",
            metavar="TERMS",
            help="Targets on the mean TTFT and TPOT, in seconds, such as ttft=1.0,tpot=0.05.",
            panel=TARGETS,
            default="none",
        ),
    ] = None,
    total_gpus: Annotated[
        int | None,
        option(
            "--total-gpus",
            metavar="N",
            min=1,
            help="Rank all parallelisms and loads on this many GPUs.",
            panel=TASK_OPTIONS,
            default="none; 8 with --sweep",
        ),
    ] = None,
    sweep: Annotated[
        bool,
        option("--sweep", help="Rank all parallelisms and loads on 8 GPUs, or on --total-gpus.", panel=TASK_OPTIONS),
    ] = False,
    target_rate: Annotated[
        float | None,
        option(
            "--target-rate",
            metavar="R",
            help="Find the fewest GPUs that sustain this many requests per second.",
            panel=TASK_OPTIONS,
            default="none",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        option(
            "--table",
            metavar="FILE",
            help="Predict every row of this CSV; the answers go to --output.",
            panel=TASK_OPTIONS,
            default="none",
        ),
    ] = None,
    bundled_only: Annotated[
        bool,
        option("--predicted", help="Use neither measurements nor calibrations of this machine.", panel=TASK_OPTIONS),
    ] = False,
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="CSV file for --table; else a folder for the table and the plot.",
            panel=OUTPUT,
            default="none",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        option(
            "--plot",
            metavar="FILE",
            help="PNG of output tokens/s per GPU against per-user speed.",
            panel=OUTPUT,
            default="none; pareto.png in --output",
        ),
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Predict TTFT, TPOT, throughput, memory and cost without a GPU."""
    from autotuner.errors import UsageError

    if table is not None:
        from autotuner.cli.predict_table import predict_table

        predict_table(table, output)
        return
    asked = Question(
        model=model,
        gpus=_parse_gpus(model, gpu, several=target_rate is not None),
        traffic=_make_traffic(isl, osl, prefix_hit, draft_tokens, acceptance),
        software=_make_software(runtime, engine_version, dtype, kv_dtype),
        target=_parse_target(slo),
        prices=_parse_prices(price or []),
        decode_gpu=_parse_gpus(model, decode_gpu, several=False)[0] if decode_gpu else None,
        total_gpus=total_gpus,
        bundled_only=bundled_only,
    )
    ranked = sweep or total_gpus is not None or target_rate is not None
    sizes = {"--tp": tp - 1, "--pp": pp - 1, "--dp": dp - 1, "--ep": ep - 1}
    given = {"--rate": rate, "--concurrency": concurrency, **sizes} if ranked else {}
    _reject_chosen_options(given, target_rate)
    if target_rate is not None:
        from autotuner.cli.predict_options import size_deployment

        size_deployment(asked, target_rate, output=output, plot=plot, as_json=as_json)
    elif sweep or total_gpus is not None:
        from autotuner.cli.predict_options import rank_options

        rank_options(asked, output=output, plot=plot, as_json=as_json)
    else:
        from autotuner.cli.predict_point import predict_point
        from autotuner.predict.layout import Layout

        _reject_ranking_options({"--decode-gpu": decode_gpu, "--plot": plot, "--output": output})
        if rate is not None and concurrency is not None:
            raise UsageError(
                "--rate and --concurrency are two kinds of load.",
                why="Requests either arrive by themselves, or the next is sent when one ends.",
                remedy="Give one of them.",
            )
        predict_point(asked, Layout(tp=tp, pp=pp, dp=dp, ep=ep), concurrency or 16, rate, as_json=as_json)


def _reject_chosen_options(options: dict[str, Any], target_rate: float | None) -> None:
    """Refuse to rank what the command line has fixed: the ranking chooses layouts and loads."""
    from autotuner.errors import UsageError

    for name, value in options.items():
        if value:
            load = name in ("--rate", "--concurrency")
            other = "give --target-rate R for a load in requests/s" if load and target_rate is None else "leave it out"
            raise UsageError(
                f"{name} is one of the things a ranking chooses.",
                remedy=f"{other[:1].upper()}{other[1:]}, or leave --sweep, --total-gpus and --target-rate out.",
            )


def _reject_ranking_options(options: dict[str, Any]) -> None:
    from autotuner.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(
                f"{name} says nothing about a single deployment.",
                remedy="Add --sweep, --total-gpus or --target-rate to compare deployments, or leave it out.",
            )


def _parse_gpus(model: str, gpu: str, *, several: bool) -> tuple[str, ...]:
    from autotuner.errors import UsageError
    from autotuner.predict.hardware import find_gpu as find
    from autotuner.predict.hardware import gpus

    if not model or not gpu:
        raise UsageError(
            f"predict needs {'--model and --gpu' if not model and not gpu else '--gpu' if model else '--model'}.",
            remedy="As in --model qwen3-32b --gpu H100; or give --table FILE.csv --output FILE.csv.",
        )
    names = tuple(gpus()) if gpu.strip().lower() == "any" else tuple(find(name).name for name in gpu.split(","))
    if len(names) > 1 and not several:
        raise UsageError(
            f"{len(names)} GPU types are compared at one load.",
            remedy="Add --target-rate R (requests per second), or name one GPU.",
        )
    return tuple(dict.fromkeys(names))


def _make_software(runtime: str, version: str, dtype: str, kv_dtype: str) -> Software:
    from autotuner.errors import UsageError, unknown_name_message
    from autotuner.predict.traffic import Software

    if runtime not in PREDICTED_ENGINES:
        raise UsageError(
            unknown_name_message("engine", runtime, PREDICTED_ENGINES), remedy="Give one of them with --runtime."
        )
    return Software(runtime, version or None, dtype or None, kv_dtype or None)


def _make_traffic(isl: int, osl: int, prefix_hit: float, draft_tokens: int, acceptance: float) -> Traffic:
    from autotuner.predict.traffic import Traffic

    return Traffic(isl, osl, prefix_hit, draft_tokens, acceptance)


def _parse_prices(texts: list[str]) -> dict[str, float]:
    from autotuner.errors import UsageError
    from autotuner.predict.hardware import find_gpu as find

    found = {}
    for text in (part for item in texts for part in item.split(",")):
        name, _, value = text.partition("=")
        try:
            price = float(value)
        except ValueError:
            price = 0.0
        if not 0 < price < float("inf"):
            raise UsageError(
                f"--price '{text}' is not a price.", remedy="Write it as --price H100=2.5: one GPU for one hour."
            )
        found[find(name).name] = price
    return found


def _parse_target(slo: str | None) -> LatencyTarget:
    """The most that mean TTFT and mean TPOT may be, in seconds."""
    from autotuner.cli.load_options import parse_slo
    from autotuner.errors import UsageError
    from autotuner.predict.traffic import LatencyTarget

    terms = parse_slo(slo) or {}
    known = isinstance(terms, dict) and not terms.keys() - {"ttft", "tpot"}
    if not known or any("threshold" not in term or not term["threshold"] > 0 for term in terms.values()):
        raise UsageError(
            f"--slo '{slo}' is not a target that can be predicted.",
            why="Means of TTFT and TPOT are, in seconds above 0.",
            remedy="Write it as ttft=1.0,tpot=0.05.",
        )
    return LatencyTarget(terms.get("ttft", {}).get("threshold"), terms.get("tpot", {}).get("threshold"))
