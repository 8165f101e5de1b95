"""`autotune predict`: what-if questions, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autotuner.predict.traffic import Software, Target, Traffic

MODEL, HARDWARE, LOAD, FIND, OUTPUT = "The model", "The GPUs", "The load", "What to find", "Output"
ENGINES = ("vllm", "sglang", "trtllm")


def _option(*names: str, help: str, panel: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **more)


@dataclass(frozen=True)
class Question:
    """What the command line asks about, in the predictor's words."""

    model: str
    gpus: tuple[str, ...]
    traffic: Traffic
    software: Software
    target: Target
    prices: dict[str, float]
    decode_gpu: str | None
    total_gpus: int | None
    bundled_only: bool


def predict(
    model: Annotated[
        str, _option("--model", "-m", help="Bundled name, or a folder or file with a config.json.", panel=MODEL)
    ] = "",
    runtime: Annotated[str, _option("--runtime", "-r", help="Engine: vllm, sglang, trtllm.", panel=MODEL)] = "vllm",
    engine_version: Annotated[str, _option("--engine-version", help="Version of the engine.", panel=MODEL)] = "",
    dtype: Annotated[
        str, _option("--dtype", help="Type of the weights, such as fp8; default: the checkpoint's.", panel=MODEL)
    ] = "",
    kv_dtype: Annotated[str, _option("--kv-dtype", help="Type of the KV cache: bf16 or fp8.", panel=MODEL)] = "",
    gpu: Annotated[
        str, _option("--gpu", help="GPU type; several to compare: H100,H200,B200; or any.", panel=HARDWARE)
    ] = "",
    tp: Annotated[int, _option("--tp", min=1, help="Tensor-parallel size.", panel=HARDWARE)] = 1,
    pp: Annotated[int, _option("--pp", min=1, help="Pipeline stages.", panel=HARDWARE)] = 1,
    dp: Annotated[int, _option("--dp", min=1, help="Data-parallel attention replicas.", panel=HARDWARE)] = 1,
    ep: Annotated[int, _option("--ep", min=1, help="Groups the experts are dealt to.", panel=HARDWARE)] = 1,
    total_gpus: Annotated[
        int | None, _option("--total-gpus", min=1, help="Rank all ways to use this many GPUs.", panel=FIND)
    ] = None,
    decode_gpu: Annotated[
        str, _option("--decode-gpu", help="Other GPU type for decode workers; --gpu prefills.", panel=HARDWARE)
    ] = "",
    price: Annotated[
        list[str] | None,
        _option("--price", help="Price of a GPU for an hour; repeat for each type.", panel=HARDWARE, metavar="GPU=2.5"),
    ] = None,
    isl: Annotated[int, _option("--isl", min=1, help="Prompt tokens.", panel=LOAD)] = 1024,
    osl: Annotated[int, _option("--osl", min=1, help="Output tokens.", panel=LOAD)] = 1024,
    concurrency: Annotated[
        int | None,
        _option("--concurrency", min=1, help="Requests in flight over all GPUs of --tp, --pp, --dp (16).", panel=LOAD),
    ] = None,
    rate: Annotated[
        float | None, _option("--rate", help="Requests/s that arrive by chance, instead of --concurrency.", panel=LOAD)
    ] = None,
    prefix_hit: Annotated[
        float, _option("--prefix-hit", help="Share of prompt tokens in the prefix cache.", panel=LOAD)
    ] = 0,
    draft_tokens: Annotated[
        int, _option("--draft-tokens", min=0, help="Tokens a draft proposes per step.", panel=LOAD)
    ] = 0,
    acceptance: Annotated[
        float, _option("--acceptance", help="Chance that a proposed token is kept.", panel=LOAD)
    ] = 0.7,
    sweep: Annotated[
        bool, _option("--sweep", help="Rank all parallelisms and loads on --total-gpus (8).", panel=FIND)
    ] = False,
    target_rate: Annotated[
        float | None,
        _option("--target-rate", help="Find the fewest GPUs that carry this many requests/s.", panel=FIND),
    ] = None,
    slo: Annotated[
        str | None, _option("--slo", help="Targets on the means, in seconds: ttft=1.0,tpot=0.05.", panel=FIND)
    ] = None,
    table: Annotated[
        Path | None, _option("--table", help="Predict every row of this CSV; write to --output.", panel=FIND)
    ] = None,
    output: Annotated[
        Path | None, _option("--output", "-o", help="CSV for --table; else a folder for table and plot.", panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None, _option("--plot", help="PNG of output tokens/s per GPU against tokens/s per user.", panel=OUTPUT)
    ] = None,
    predicted: Annotated[
        bool, _option("--predicted", help="Leave out what was measured and calibrated here.", panel=FIND)
    ] = False,
    as_json: Annotated[bool, _option("--json", help="Machine-readable result on stdout.", panel=OUTPUT)] = False,
) -> None:
    """Predict TTFT, TPOT, throughput, memory and cost without a GPU.

    \b
    How fast is one deployment, and where does the time go?
      autotune predict --model qwen3-32b --gpu H100 --tp 2 --isl 4000 --osl 500 --concurrency 32
    Does it keep up with requests that arrive at a rate?
      autotune predict --model qwen3-32b --gpu H100 --tp 2 --isl 4000 --osl 500 --rate 1.5
    Which GPUs, and how many, for this load within these targets, at what cost?
      autotune predict --model qwen3-32b --gpu H100,H200,B200 --isl 4000 --osl 500 --target-rate 50
        --slo ttft=1.0,tpot=0.03 --price H100=2.5 --price H200=3.2 --price B200=5.5
    What is the best use of the 32 GPUs I have?
      autotune predict --model qwen3-32b --gpu H100 --isl 4000 --osl 500 --total-gpus 32 --slo tpot=0.03
    """
    from autotuner.errors import UsageError

    if table is not None:
        from autotuner.cli.predict_table import predict_table

        predict_table(table, output)
        return
    asked = Question(
        model=model,
        gpus=_gpus(model, gpu, several=target_rate is not None),
        traffic=_traffic(isl, osl, prefix_hit, draft_tokens, acceptance),
        software=_software(runtime, engine_version, dtype, kv_dtype),
        target=_target(slo),
        prices=_prices(price or []),
        decode_gpu=_gpus(model, decode_gpu, several=False)[0] if decode_gpu else None,
        total_gpus=total_gpus,
        bundled_only=predicted,
    )
    ranked = sweep or total_gpus is not None or target_rate is not None
    sizes = {"--tp": tp - 1, "--pp": pp - 1, "--dp": dp - 1, "--ep": ep - 1}
    given = {"--rate": rate, "--concurrency": concurrency, **sizes} if ranked else {}
    _refuse_chosen(given, target_rate)
    if target_rate is not None:
        from autotuner.cli.predict_options import size

        size(asked, target_rate, output=output, plot=plot, as_json=as_json)
    elif sweep or total_gpus is not None:
        from autotuner.cli.predict_options import rank

        rank(asked, output=output, plot=plot, as_json=as_json)
    else:
        from autotuner.cli.predict_point import point
        from autotuner.predict.layout import Layout

        _refuse_leftovers({"--decode-gpu": decode_gpu, "--plot": plot, "--output": output})
        if rate is not None and concurrency is not None:
            raise UsageError(
                "--rate and --concurrency are two kinds of load.",
                why="Requests either arrive by themselves, or the next is sent when one ends.",
                remedy="Give one of them.",
            )
        point(asked, Layout(tp=tp, pp=pp, dp=dp, ep=ep), concurrency or 16, rate, as_json=as_json)


def _refuse_chosen(given: dict[str, Any], target_rate: float | None) -> None:
    """Refuse to rank what the command line has fixed: the ranking chooses layouts and loads."""
    from autotuner.errors import UsageError

    for option, value in given.items():
        if value:
            load = option in ("--rate", "--concurrency")
            other = "give --target-rate R for a load in requests/s" if load and target_rate is None else "leave it out"
            raise UsageError(
                f"{option} is one of the things a ranking chooses.",
                remedy=f"{other[:1].upper()}{other[1:]}, or leave --sweep, --total-gpus and --target-rate out.",
            )


def _refuse_leftovers(given: dict[str, Any]) -> None:
    from autotuner.errors import UsageError

    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} says nothing about a single deployment.",
                remedy="Add --sweep, --total-gpus or --target-rate to compare deployments, or leave it out.",
            )


def _gpus(model: str, gpu: str, *, several: bool) -> tuple[str, ...]:
    from autotuner.errors import UsageError
    from autotuner.predict.hardware import gpu as find
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


def _software(runtime: str, version: str, dtype: str, kv_dtype: str) -> Software:
    from autotuner.errors import UsageError, unknown
    from autotuner.predict.traffic import Software

    if runtime not in ENGINES:
        raise UsageError(unknown("engine", runtime, ENGINES), remedy="Give one of them with --runtime.")
    return Software(runtime, version or None, dtype or None, kv_dtype or None)


def _traffic(isl: int, osl: int, prefix_hit: float, draft_tokens: int, acceptance: float) -> Traffic:
    from autotuner.predict.traffic import Traffic

    return Traffic(isl, osl, prefix_hit, draft_tokens, acceptance)


def _prices(given: list[str]) -> dict[str, float]:
    from autotuner.errors import UsageError
    from autotuner.predict.hardware import gpu as find

    found = {}
    for text in (part for item in given for part in item.split(",")):
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


def _target(slo: str | None) -> Target:
    """The most that mean TTFT and mean TPOT may be, in seconds."""
    from autotuner.cli.load_options import slo_of
    from autotuner.errors import UsageError
    from autotuner.predict.traffic import Target

    terms = slo_of(slo) or {}
    known = isinstance(terms, dict) and not terms.keys() - {"ttft", "tpot"}
    if not known or any("threshold" not in term or not term["threshold"] > 0 for term in terms.values()):
        raise UsageError(
            f"--slo '{slo}' is not a target that can be predicted.",
            why="Means of TTFT and TPOT are, in seconds above 0.",
            remedy="Write it as ttft=1.0,tpot=0.05.",
        )
    return Target(terms.get("ttft", {}).get("threshold"), terms.get("tpot", {}).get("threshold"))
