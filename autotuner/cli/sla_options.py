"""The options of `autotune sla run`, with the names of Dynamo's profiler as aliases, and the request they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.load_options import HARDWARE, LOAD, OUTPUT, SEARCH, SERVE, TARGETS, option
from autotuner.errors import UsageError, file_error_reason

if TYPE_CHECKING:
    from autotuner.profiling.request import SlaRequest

MILLISECONDS = 1000.0
COUNTS = "1, 2, 4, 8"


@dataclass(frozen=True, kw_only=True)
class SlaRunOptions:
    """What is profiled; None where an option was not given."""

    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            "--aic-hf-id",
            metavar="PATH|ID",
            help="Model folder, Hugging Face id or bundled name.",
            panel=SERVE,
            default="llama-3.1-8b for sim, the served one for --url",
        ),
    ] = None
    runtime: Annotated[
        str | None,
        option(
            "--runtime",
            "-r",
            "--backend",
            metavar="ENGINE",
            help="Engine: sim (simulated), vllm, sglang or trtllm.",
            panel=SERVE,
            default="sim",
        ),
    ] = None
    file: Annotated[
        Path | None,
        option(
            "--file",
            "-f",
            metavar="FILE",
            help="DynamoGraphDeploymentRequest, v1alpha1 or v1beta1; other options override it.",
            panel=SERVE,
            default="none",
        ),
    ] = None
    url: Annotated[
        str | None,
        option(
            "--url",
            metavar="URL",
            help="Profile the server that runs there instead of launching any.",
            panel=SERVE,
            default="none",
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        option(
            "--set",
            metavar="KEY=VALUE",
            help="Override of a configuration value, such as runtime.image=...; repeatable.",
            panel=SERVE,
            default="none",
        ),
    ] = None
    gpu: Annotated[
        str | None,
        option(
            "--gpu",
            "--aic-system",
            metavar="TYPE",
            help="GPU type, such as H100.",
            panel=HARDWARE,
            default="that of this machine",
        ),
    ] = None
    gpus_per_engine: Annotated[
        str | None,
        option(
            "--gpus-per-engine",
            metavar="N..M|N[,N...]",
            help="GPUs of one worker: the powers of two of a range, or a list.",
            panel=HARDWARE,
            default="1..8; 1 for --url",
        ),
    ] = None
    min_num_gpus: Annotated[
        int | None,
        option(
            "--min-num-gpus",
            "--min-num-gpus-per-engine",
            metavar="N",
            min=1,
            help="Fewest GPUs of one worker, as --gpus-per-engine N..",
            panel=HARDWARE,
            default="1",
        ),
    ] = None
    max_num_gpus: Annotated[
        int | None,
        option(
            "--max-num-gpus",
            "--max-num-gpus-per-engine",
            metavar="N",
            min=1,
            help="Most GPUs of one worker.",
            panel=HARDWARE,
            default="8",
        ),
    ] = None
    total_gpus: Annotated[
        int | None,
        option(
            "--total-gpus",
            metavar="N",
            min=1,
            help="GPU budget of the deployment.",
            panel=HARDWARE,
            default="no limit",
        ),
    ] = None
    max_kv_tokens: Annotated[
        int | None,
        option(
            "--max-kv-tokens",
            metavar="N",
            min=1,
            help="KV cache of one worker in tokens.",
            panel=HARDWARE,
            default="read from its log or metrics",
        ),
    ] = None
    isl: Annotated[
        int | None,
        option("--isl", metavar="TOKENS", min=1, help="Input sequence length.", panel=LOAD, default="3000"),
    ] = None
    osl: Annotated[
        int | None,
        option("--osl", metavar="TOKENS", min=2, help="Output sequence length.", panel=LOAD, default="150"),
    ] = None
    rate: Annotated[
        float | None,
        option("--rate", metavar="R", help="Requests/s to plan replicas for.", panel=LOAD, default="none"),
    ] = None
    concurrency: Annotated[
        int | None,
        option(
            "--concurrency",
            metavar="N",
            min=1,
            help="Requests in flight to plan replicas for, instead of --rate.",
            panel=LOAD,
            default="none",
        ),
    ] = None
    ttft: Annotated[
        float | None,
        option("--ttft", metavar="MS", help="Target on TTFT in milliseconds.", panel=TARGETS, default="200"),
    ] = None
    itl: Annotated[
        float | None,
        option("--itl", metavar="MS", help="Target on ITL in milliseconds.", panel=TARGETS, default="20"),
    ] = None
    evaluator: Annotated[
        str | None,
        option(
            "--evaluator",
            metavar="NAME",
            help="measured on real engines, simulated in virtual time, or predicted.",
            panel=SEARCH,
            default="measured",
        ),
    ] = None
    use_ai_configurator: Annotated[
        bool,
        option("--use-ai-configurator", help="The same as --evaluator predicted.", panel=SEARCH),
    ] = False
    max_seconds: Annotated[
        float | None,
        option(
            "--max-seconds",
            metavar="S",
            help="Time limit: no further load point starts after it.",
            panel=SEARCH,
            default="no limit",
        ),
    ] = None
    prefill_points: Annotated[
        int | None,
        option(
            "--prefill-points",
            "--prefill-interpolation-granularity",
            metavar="N",
            help="Prompt lengths of the TTFT curve.",
            panel=SEARCH,
            default="16",
        ),
    ] = None
    decode_points: Annotated[
        int | None,
        option(
            "--decode-points",
            "--decode-interpolation-granularity",
            metavar="N",
            help="Context lengths of the ITL surface, and batch sizes at each.",
            panel=SEARCH,
            default="6",
        ),
    ] = None
    max_context_length: Annotated[
        int | None,
        option(
            "--max-context-length",
            metavar="TOKENS",
            help="Longest request of the curves.",
            panel=SEARCH,
            default="4 times --isl plus --osl, if engine and model allow it",
        ),
    ] = None
    accept_nearest: Annotated[
        bool,
        option(
            "--accept-nearest",
            help="Where no worker meets a target, go on with the nearest one.",
            panel=SEARCH,
        ),
    ] = False

    def request(self) -> SlaRequest:
        """The request of these options; UsageError for options that do not go together."""
        from autotuner.config import read_overrides
        from autotuner.profiling.request import SlaRequest

        if self.use_ai_configurator and self.evaluator not in (None, "predicted"):
            raise UsageError(
                f"--use-ai-configurator is --evaluator predicted, not {self.evaluator}.", remedy="Give one of them."
            )
        requested = self._requested_values()
        runtime = self.runtime or requested.pop("runtime", None) or ("openai" if self.url is not None else "sim")
        values: dict[str, Any] = {
            "gpu": self.gpu,
            "isl": self.isl,
            "osl": self.osl,
            "ttft": None if self.ttft is None else self.ttft / MILLISECONDS,
            "itl": None if self.itl is None else self.itl / MILLISECONDS,
            "gpus_per_engine": self._gpu_counts(),
            "rate": self.rate,
            "concurrency": self.concurrency,
            "total_gpus": self.total_gpus,
            "max_seconds": self.max_seconds,
            "prefill_points": self.prefill_points,
            "decode_points": self.decode_points,
            "max_context_length": self.max_context_length,
            "evaluator": "predicted" if self.use_ai_configurator else self.evaluator,
            "url": self.url,
            "max_kv_tokens": self.max_kv_tokens,
            "settings": {**read_overrides([], self.set)} if self.set else None,
        }
        given = {**requested, **{name: value for name, value in values.items() if value is not None}}
        model = self.model or requested.get("model") or ("" if self.url is not None else _default_model(runtime))
        for name, other in (("rate", "concurrency"), ("concurrency", "rate")):
            if values[name] is not None and values[other] is None:
                given.pop(other, None)
        return SlaRequest(**{**given, "runtime": runtime, "model": model})

    def _requested_values(self) -> dict[str, Any]:
        """What the DynamoGraphDeploymentRequest of --file sets; keys that change nothing are named in warnings."""
        if self.file is None:
            return {}
        from autotuner.cli import display
        from autotuner.deploy.dynamo import read_request
        from autotuner.input_files import read_text
        from autotuner.profiling.manifests import request_values

        try:
            dynamo = read_request(read_text(self.file))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"'{self.file}' cannot be read.", why=file_error_reason(error)) from error
        values, remarks = request_values(dynamo)
        for remark in remarks:
            display.warning(remark)
        low, high = dynamo.min_gpus_per_engine, dynamo.max_gpus_per_engine
        if low is not None or high is not None:
            values["gpus_per_engine"] = powers_of_two(low or 1, high or max(8, low or 1))
        return values

    def _gpu_counts(self) -> tuple[int, ...] | None:
        """The numbers of GPUs of one worker, ascending; None where no option says and a file may."""
        bounded = self.min_num_gpus is not None or self.max_num_gpus is not None
        if self.gpus_per_engine is not None:
            if bounded:
                raise UsageError(
                    "--gpus-per-engine cannot be combined with --min-num-gpus and --max-num-gpus.",
                    remedy="Give the numbers in one way.",
                )
            return parse_gpu_counts(self.gpus_per_engine)
        if self.url is not None and not bounded:
            return (1,)
        if self.file is not None and not bounded:
            return None
        return powers_of_two(self.min_num_gpus or 1, self.max_num_gpus or max(8, self.min_num_gpus or 1))


def _default_model(runtime: str) -> str:
    if runtime != "sim":
        raise UsageError(f"{runtime} needs a model.", remedy="Name it with --model.")
    return "llama-3.1-8b"


def powers_of_two(low: int, high: int) -> tuple[int, ...]:
    """The powers of two from `low` to `high`, and `low` itself; UsageError if there is none."""
    counts = sorted({low, *(2**exponent for exponent in range(high.bit_length()) if low <= 2**exponent <= high)})
    if low > high:
        raise UsageError(f"The GPUs of one worker go from {low} to {high}.", remedy="Give the smaller number first.")
    return tuple(counts)


def parse_gpu_counts(text: str) -> tuple[int, ...]:
    """Parse `4`, `1..8` (powers of two) or `1,2,4`; UsageError for anything else."""
    low, dots, high = text.partition("..")
    try:
        if dots:
            counts = powers_of_two(int(low or 1), int(high or 8))
        else:
            counts = tuple(sorted({int(part) for part in text.split(",")}))
        if min(counts) < 1:
            raise ValueError("a worker has at least 1 GPU")
    except ValueError as error:
        raise UsageError(
            f"--gpus-per-engine '{text}' is not a number, a range or a list of GPUs.",
            remedy="Write it as 4, 1..8 or 1,2,4.",
        ) from error
    return counts


OUTPUT_OPTION = option(
    "--output",
    "-o",
    "--output-dir",
    metavar="FOLDER",
    help="Folder of the profile; an interrupted one is resumed.",
    panel=OUTPUT,
    default="sla-profile",
)
DEFAULT_FOLDER = Path("sla-profile")
