"""Drives the load points of a load plan on one running server, and summarizes what it observes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from autotuner import load
from autotuner.core import (
    SKIPPED_EVENT,
    LoadPoint,
    LoadPointResult,
    LoadStep,
    Observation,
    Source,
    Stage,
    Workload,
)
from autotuner.endpoints import token_ids
from autotuner.endpoints.tls import TlsTrust
from autotuner.endpoints.token_ids import Vocabulary
from autotuner.experiment import Model, Slo
from autotuner.launchers.gpu_meter import GpuMeter
from autotuner.model_files import tokenizer_file
from autotuner.predict.parallel_rules import local_dimensions
from autotuner.search.launch import LoadPlan, ObservingLoadPlan

log = logging.getLogger(__name__)


class ProgressCallback(Protocol):
    """Receives the progress of load points."""

    def __call__(
        self,
        stage: Stage,
        /,
        *,
        load_point: LoadPoint,
        position: int,
        expected_seconds: float = 0.0,
        result: LoadPointResult | None = None,
    ) -> None:
        """Handle one step of the load point at `position`, counted from 1."""


@dataclass(frozen=True)
class LoadDriver:
    """Drives a load plan on one server; `meter` reads the server's GPUs, if they are known.

    `salt` and the position of a load point make its prompts unique, so that no load point gets prefix cache
    hits from an earlier one, not even on the prefix that its own requests share.
    """

    endpoint: load.Endpoint
    load_plan: LoadPlan
    source: Source
    slo: Slo
    on_progress: ProgressCallback
    meter: GpuMeter | None = None
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    def steps(self) -> Iterator[tuple[int, LoadStep]]:
        """Yield the plan's load points with their positions from 1; call `record_result` before the next one."""
        return enumerate(iter(self.load_plan.ask, None), start=1)

    def observe(self, position: int, step: LoadStep) -> Observation:
        """Drive one load point, once more if the load generator's process ended; MachineError if it fails again."""
        load_point, workload = step.load_point, step.workload
        stages: dict[str, tuple[Stage, float]] = {
            "warming-up": ("warming-up", workload.warmup),
            "measuring": ("measuring", workload.duration),
        }

        def on_phase(phase: str) -> None:
            stage, expected_seconds = stages[phase]
            self.on_progress(stage, load_point=load_point, position=position, expected_seconds=expected_seconds)

        def measure(salt: str) -> Observation:
            return load.measure(
                self.endpoint, load_point, workload, salt=salt, on_phase=on_phase, stop_rule=step.stop_rule
            )

        try:
            return measure(f"{self.salt} {position}")
        except load.WorkerEndedError as error:
            log.warning("%s The load point is driven once more.", error.what)
        # prompts that the server has not seen
        return measure(f"{self.salt} {position} again")

    def record_result(self, position: int, observation: Observation) -> LoadPointResult:
        """Summarize and check an observation, and pass the result to the load plan and the progress callback."""
        gpu_use = self.meter.usage(*observation.window) if self.meter else None
        result = replace(summarize_observation(observation, self.source, self.slo), gpu_use=gpu_use)
        if isinstance(self.load_plan, ObservingLoadPlan):
            self.load_plan.observe(observation)
        self.load_plan.tell(result)
        self.on_progress("measured", load_point=observation.load_point, position=position, result=result)
        return result


def summarize_observation(observation: Observation, source: Source, slo: Slo) -> LoadPointResult:
    """Compute the metrics and validity checks of a load point; the verdict is left open."""
    from autotuner.scoring import metrics, validity  # numpy would delay the first request

    summary = metrics.summarize(observation, slo)
    checks = validity.check_validity(observation, summary, slo)
    shown = (*summary.errors, SKIPPED_EVENT)
    return LoadPointResult(
        observation.load_point,
        source,
        summary,
        checks,
        decided=observation.stop_reason,
        error_messages={name: text for name, text in observation.error_messages.items() if name in shown},
        ended_early=observation.abort_reason,
        retry_after=observation.retry_after,
    )


def find_vocabulary(
    url: str,
    served_model: str,
    model: Model,
    headers: Mapping[str, str],
    workload: Workload,
    tls: TlsTrust | None = None,
) -> Vocabulary | None:
    """The vocabulary for prompts of token ids; None for chat and for text, whose prompts are words.

    The server at `url` is probed only if the configuration of `model` is not available locally.
    """
    if workload.endpoint == "chat" or workload.request_form.prompts == "text":
        return None
    vocab_size = local_dimensions(model).vocab_size
    if vocab_size is not None:
        return Vocabulary(vocab_size, "model")
    assumed, timeout = load.Endpoint.vocab_size, workload.request_timeout
    form = workload.request_form
    return token_ids.find_vocabulary(url, headers, served_model, assumed=assumed, timeout=timeout, form=form, tls=tls)


def load_endpoint(
    url: str,
    served_model: str,
    model: Model,
    headers: Mapping[str, str],
    vocabulary: Vocabulary | None = None,
    tls: TlsTrust | None = None,
) -> load.Endpoint:
    """The load generator's endpoint for the server at `url`, with prompts from `vocabulary`.

    Prompts use the tokenizer of `model` if it is available locally.
    """
    tokenizer_path = tokenizer_file(model)
    path = str(tokenizer_path) if tokenizer_path else None
    endpoint = load.Endpoint(url, served_model, headers, tokenizer_path=path, tls=tls or TlsTrust())
    return replace(endpoint, vocab_size=vocabulary.size) if vocabulary else endpoint
