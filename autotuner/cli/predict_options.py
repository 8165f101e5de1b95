"""The options that the commands of `autotune predict` share, and the question that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.load_options import HARDWARE, JSON_OPTION, LOAD, OUTPUT, SERVE, TARGETS, option

if TYPE_CHECKING:
    from autotuner.planning.question import LatencyTarget, Question

PREDICTED_ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """What is served, on which GPU type, under which traffic, and within which targets."""

    model: Annotated[
        str,
        option(
            "--model",
            "-m",
            metavar="NAME|PATH",
            help="Bundled model name, such as qwen3-32b, or a folder or file with a config.json.",
            panel=SERVE,
        ),
    ]
    runtime: Annotated[
        str, option("--runtime", "-r", metavar="ENGINE", help="Engine: vllm, sglang or trtllm.", panel=SERVE)
    ] = "vllm"
    engine_version: Annotated[
        str,
        option(
            "--engine-version",
            metavar="VERSION",
            help="Engine version, such as 0.12.0.",
            panel=SERVE,
            default="any version",
        ),
    ] = ""
    dtype: Annotated[
        str,
        option(
            "--dtype",
            metavar="TYPE",
            help="Weight data type: bf16, fp8, int8, int4 or fp4.",
            panel=SERVE,
            default="that of the checkpoint",
        ),
    ] = ""
    kv_dtype: Annotated[
        str,
        option("--kv-dtype", metavar="TYPE", help="KV cache data type: bf16 or fp8.", panel=SERVE, default="bf16"),
    ] = ""
    bundled_only: Annotated[
        bool,
        option("--predicted", help="Ignore measurements and calibrations of this machine.", panel=SERVE),
    ] = False
    gpu: Annotated[str, option("--gpu", metavar="TYPE", help="GPU type, such as H100.", panel=HARDWARE)]
    price: Annotated[
        list[str] | None,
        option(
            "--price",
            metavar="TYPE=PRICE",
            help="Price per GPU-hour, such as H100=2.5; repeatable.",
            panel=HARDWARE,
            default="none",
        ),
    ] = None
    isl: Annotated[
        int, option("--isl", metavar="TOKENS", min=1, help="Input sequence length: prompt tokens.", panel=LOAD)
    ] = 1024
    osl: Annotated[
        int, option("--osl", metavar="TOKENS", min=1, help="Output sequence length: output tokens.", panel=LOAD)
    ] = 1024
    prefix_hit: Annotated[
        float,
        option(
            "--prefix-hit", metavar="SHARE", help="Prefix cache hit rate: share of prompt tokens, 0 to 1.", panel=LOAD
        ),
    ] = 0
    draft_tokens: Annotated[
        int,
        option("--draft-tokens", metavar="N", min=0, help="Speculative decoding: draft tokens per step.", panel=LOAD),
    ] = 0
    acceptance: Annotated[
        float,
        option(
            "--acceptance",
            metavar="SHARE",
            help="Speculative decoding: acceptance probability of a draft token.",
            panel=LOAD,
        ),
    ] = 0.7
    slo: Annotated[
        str | None,
        option(
            "--slo",
            metavar="TERMS",
            help="Targets on mean TTFT and TPOT in seconds, such as ttft=1.0,tpot=0.05.",
            panel=TARGETS,
            default="none",
        ),
    ] = None

    def question(self, decode_gpu: str = "") -> Question:
        """The options as inputs of planning."""
        from autotuner.errors import UsageError, unknown_name_message
        from autotuner.planning.question import Question
        from autotuner.predict.hardware import find_gpu
        from autotuner.predict.traffic import Software, Traffic

        if self.runtime not in PREDICTED_ENGINES:
            raise UsageError(
                unknown_name_message("engine", self.runtime, PREDICTED_ENGINES),
                remedy="Give one of them with --runtime.",
            )
        return Question(
            model=self.model,
            traffic=Traffic(self.isl, self.osl, self.prefix_hit, self.draft_tokens, self.acceptance),
            software=Software(self.runtime, self.engine_version or None, self.dtype or None, self.kv_dtype or None),
            target=_parse_target(self.slo),
            prices=_parse_prices(self.price or []),
            decode_gpu=find_gpu(decode_gpu).name if decode_gpu else None,
            bundled_only=self.bundled_only,
        )

    def gpu_type(self) -> str:
        """The name of the GPU type in the table of GPUs."""
        from autotuner.errors import UsageError
        from autotuner.predict.hardware import find_gpu

        if "," in self.gpu:
            raise UsageError(
                f"--gpu '{self.gpu}' is more than one GPU type.",
                remedy="Name one, or compare them for a rate with `autotune predict size`.",
            )
        return find_gpu(self.gpu).name


@dataclass(frozen=True, kw_only=True)
class SizingQuestionOptions(QuestionOptions):
    """The same for several GPU types."""

    gpu: Annotated[
        str,
        option(
            "--gpu",
            metavar="TYPE[,TYPE...]",
            help="GPU types to compare, such as H100 or H100,H200,B200, or any for all.",
            panel=HARDWARE,
        ),
    ]

    def gpu_types(self) -> tuple[str, ...]:
        """The names of the GPU types in the table of GPUs."""
        from autotuner.predict.hardware import find_gpu, gpus

        if self.gpu.strip().lower() == "any":
            return tuple(gpus())
        return tuple(dict.fromkeys(find_gpu(name).name for name in self.gpu.split(",")))


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Options of the commands that rank ways to serve a load."""

    decode_gpu: Annotated[
        str,
        option(
            "--decode-gpu",
            metavar="TYPE",
            help="GPU type of decode workers in disaggregated (P/D) serving; prefill workers use --gpu.",
            panel=HARDWARE,
            default="same as --gpu",
        ),
    ] = ""
    output: Annotated[
        Path | None,
        option(
            "--output", "-o", metavar="FOLDER", help="Folder for the table and the plot.", panel=OUTPUT, default="none"
        ),
    ] = None
    plot: Annotated[
        Path | None,
        option(
            "--plot",
            metavar="FILE",
            help="Plot of output tokens/s per GPU against per-user speed (PNG).",
            panel=OUTPUT,
            default="none; pareto.png in --output",
        ),
    ] = None
    as_json: Annotated[bool, JSON_OPTION] = False


def _parse_prices(texts: Sequence[str]) -> dict[str, float]:
    from autotuner.errors import UsageError
    from autotuner.experiment import MAX_PRICE
    from autotuner.predict.hardware import find_gpu

    prices = {}
    for text in (part for item in texts for part in item.split(",")):
        name, _, value = text.partition("=")
        try:
            price = float(value)
        except ValueError:
            price = 0.0
        if not 0 < price <= MAX_PRICE:
            raise UsageError(
                f"--price '{text}' is not a price.", remedy="Write it as --price H100=2.5: one GPU for one hour."
            )
        prices[find_gpu(name).name] = price
    return prices


def _parse_target(slo: str | None) -> LatencyTarget:
    """Parse upper limits on mean TTFT and mean TPOT, in seconds."""
    from autotuner.cli import display
    from autotuner.cli.load_options import parse_slo
    from autotuner.config.advice import millisecond_hint
    from autotuner.errors import UsageError
    from autotuner.planning.question import LatencyTarget

    terms = parse_slo(slo) or {}
    is_predictable = isinstance(terms, dict) and not terms.keys() - {"ttft", "tpot"}
    if not is_predictable or any(not 0 < term.get("threshold", 0) < math.inf for term in terms.values()):
        raise UsageError(
            f"--slo '{slo}' cannot be predicted.",
            why="Only targets on the means of TTFT and TPOT can be, in seconds above 0.",
            remedy="Write it as ttft=1.0,tpot=0.05.",
        )
    for metric, term in terms.items():
        if hint := millisecond_hint(metric, term["threshold"]):
            display.warning(f"the target {metric} is {hint}")
    return LatencyTarget(terms.get("ttft", {}).get("threshold"), terms.get("tpot", {}).get("threshold"))
