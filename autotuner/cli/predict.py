"""`autotune predict`: performance predictions without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.load_options import HARDWARE, JSON_OPTION, LOAD, OUTPUT, SERVE, TARGETS, option

if TYPE_CHECKING:
    from autotuner.predict.traffic import LatencyTarget, Software, Traffic

TASK_OPTIONS = "Task"
PREDICTED_ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True)
class Question:
    """The options of the command line as inputs of the predictor."""

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
            help="Bundled model name, such as qwen3-32b, or a folder or file with a config.json.",
            panel=SERVE,
            default="none; required without --table",
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
            help="Engine version, such as 0.12.0.",
            panel=SERVE,
            default="any version",
        ),
    ] = "",
    dtype: Annotated[
        str,
        option(
            "--dtype",
            metavar="TYPE",
            help="Weight data type: bf16, fp8, int8, int4 or fp4.",
            panel=SERVE,
            default="that of the checkpoint",
        ),
    ] = "",
    kv_dtype: Annotated[
        str,
        option("--kv-dtype", metavar="TYPE", help="KV cache data type: bf16 or fp8.", panel=SERVE, default="bf16"),
    ] = "",
    gpu: Annotated[
        str,
        option(
            "--gpu",
            metavar="TYPE[,TYPE...]",
            help="GPU type; with --target-rate also several to compare, such as H100,H200,B200, or any for all.",
            panel=HARDWARE,
            default="none; required without --table",
        ),
    ] = "",
    tp: Annotated[int, option("--tp", metavar="N", min=1, help="Tensor-parallel size.", panel=HARDWARE)] = 1,
    pp: Annotated[int, option("--pp", metavar="N", min=1, help="Pipeline-parallel size.", panel=HARDWARE)] = 1,
    dp: Annotated[int, option("--dp", metavar="N", min=1, help="Data-parallel size (attention).", panel=HARDWARE)] = 1,
    ep: Annotated[
        int,
        option("--ep", metavar="N", min=1, help="Expert-parallel size (mixture-of-experts models).", panel=HARDWARE),
    ] = 1,
    decode_gpu: Annotated[
        str,
        option(
            "--decode-gpu",
            metavar="TYPE",
            help="GPU type of decode workers in disaggregated (P/D) serving; prefill workers use --gpu.",
            panel=HARDWARE,
            default="same as --gpu",
        ),
    ] = "",
    price: Annotated[
        list[str] | None,
        option(
            "--price",
            metavar="TYPE=PRICE",
            help="Price per GPU-hour, such as H100=2.5; repeatable.",
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
            help="Closed loop: requests in flight across the deployment.",
            panel=LOAD,
            default="16",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        option(
            "--rate",
            metavar="R",
            help="Open loop: requests per second with Poisson arrivals, instead of --concurrency.",
            panel=LOAD,
            default="none",
        ),
    ] = None,
    prefix_hit: Annotated[
        float,
        option(
            "--prefix-hit", metavar="SHARE", help="Prefix cache hit rate: share of prompt tokens, 0 to 1.", panel=LOAD
        ),
    ] = 0,
    draft_tokens: Annotated[
        int,
        option(
            "--draft-tokens",
            metavar="N",
            min=0,
            help="Speculative decoding: draft tokens per step.",
            panel=LOAD,
        ),
    ] = 0,
    acceptance: Annotated[
        float,
        option(
            "--acceptance",
            metavar="SHARE",
            help="Speculative decoding: acceptance probability of a draft token.",
            panel=LOAD,
        ),
    ] = 0.7,
    slo: Annotated[
        str | None,
        option(
            "--slo",
            metavar="TERMS",
            help="Targets on mean TTFT and TPOT in seconds, such as ttft=1.0,tpot=0.05.",
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
            help="Rank all parallel layouts and loads on this many GPUs.",
            panel=TASK_OPTIONS,
            default="none; 8 with --sweep",
        ),
    ] = None,
    sweep: Annotated[
        bool,
        option(
            "--sweep", help="Rank all parallel layouts and loads on 8 GPUs, or on --total-gpus.", panel=TASK_OPTIONS
        ),
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
            help="Predict every row of this CSV and write the results to --output.",
            panel=TASK_OPTIONS,
            default="none",
        ),
    ] = None,
    bundled_only: Annotated[
        bool,
        option("--predicted", help="Ignore measurements and calibrations of this machine.", panel=TASK_OPTIONS),
    ] = False,
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="CSV file for --table; otherwise a folder for the table and the plot.",
            panel=OUTPUT,
            default="none",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        option(
            "--plot",
            metavar="FILE",
            help="Plot of output tokens/s per GPU against per-user speed (PNG).",
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
    question = Question(
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
    is_ranking = sweep or total_gpus is not None or target_rate is not None
    sizes = {"--tp": tp - 1, "--pp": pp - 1, "--dp": dp - 1, "--ep": ep - 1}
    chosen_options = {"--rate": rate, "--concurrency": concurrency, **sizes} if is_ranking else {}
    _reject_chosen_options(chosen_options, target_rate)
    if target_rate is not None:
        from autotuner.cli.predict_options import size_deployment

        size_deployment(question, target_rate, output=output, plot=plot, as_json=as_json)
    elif sweep or total_gpus is not None:
        from autotuner.cli.predict_options import rank_deployments

        rank_deployments(question, output=output, plot=plot, as_json=as_json)
    else:
        from autotuner.cli.predict_point import predict_point
        from autotuner.predict.layout import Layout

        _reject_ranking_options({"--decode-gpu": decode_gpu, "--plot": plot, "--output": output})
        if rate is not None and concurrency is not None:
            raise UsageError(
                "--rate and --concurrency cannot be combined.",
                why="--rate is an open loop, --concurrency a closed loop.",
                remedy="Give one of them.",
            )
        predict_point(question, Layout(tp=tp, pp=pp, dp=dp, ep=ep), concurrency or 16, rate, as_json=as_json)


def _reject_chosen_options(options: dict[str, Any], target_rate: float | None) -> None:
    """Reject layouts and loads as options, because a ranking chooses them."""
    from autotuner.errors import UsageError

    for name, value in options.items():
        if value:
            is_load = name in ("--rate", "--concurrency")
            remedy = (
                "give --target-rate R for a load in requests/s" if is_load and target_rate is None else "leave it out"
            )
            raise UsageError(
                f"{name} is chosen by the ranking.",
                remedy=f"{remedy[:1].upper()}{remedy[1:]}, or leave --sweep, --total-gpus and --target-rate out.",
            )


def _reject_ranking_options(options: dict[str, Any]) -> None:
    from autotuner.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(
                f"{name} does not apply to a single deployment.",
                remedy="Add --sweep, --total-gpus or --target-rate to compare deployments, or leave it out.",
            )


def _parse_gpus(model: str, gpu: str, *, several: bool) -> tuple[str, ...]:
    from autotuner.errors import UsageError
    from autotuner.predict.hardware import find_gpu, gpus

    if not model or not gpu:
        raise UsageError(
            f"predict needs {'--model and --gpu' if not model and not gpu else '--gpu' if model else '--model'}.",
            remedy="As in --model qwen3-32b --gpu H100; or give --table FILE.csv --output FILE.csv.",
        )
    names = tuple(gpus()) if gpu.strip().lower() == "any" else tuple(find_gpu(name).name for name in gpu.split(","))
    if len(names) > 1 and not several:
        raise UsageError(
            f"{len(names)} GPU types cannot be compared at one load.",
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
    from autotuner.predict.hardware import find_gpu

    prices = {}
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
        prices[find_gpu(name).name] = price
    return prices


def _parse_target(slo: str | None) -> LatencyTarget:
    """Parse upper limits on mean TTFT and mean TPOT, in seconds."""
    from autotuner.cli.load_options import parse_slo
    from autotuner.errors import UsageError
    from autotuner.predict.traffic import LatencyTarget

    terms = parse_slo(slo) or {}
    is_predictable = isinstance(terms, dict) and not terms.keys() - {"ttft", "tpot"}
    if not is_predictable or any("threshold" not in term or not term["threshold"] > 0 for term in terms.values()):
        raise UsageError(
            f"--slo '{slo}' cannot be predicted.",
            why="Only targets on the means of TTFT and TPOT can be, in seconds above 0.",
            remedy="Write it as ttft=1.0,tpot=0.05.",
        )
    return LatencyTarget(terms.get("ttft", {}).get("threshold"), terms.get("tpot", {}).get("threshold"))
