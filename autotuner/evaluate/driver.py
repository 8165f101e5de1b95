"""Drives a course of load points on one running server: what is asked, seen, summed up and told."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from autotuner import load
from autotuner.core import LoadPoint, LoadPointResult, LoadStep, Observation, Source, Stage, Workload
from autotuner.engines.model import model_dimensions, tokenizer_file
from autotuner.experiment import Model, Slo
from autotuner.launchers import token_ids
from autotuner.launchers.gpu_meter import GpuMeter
from autotuner.launchers.token_ids import Vocabulary
from autotuner.search.launch import LoadPlan


class ProgressCallback(Protocol):
    """Hears of each step of a load point."""

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
        """Take note; load point number `position`, counted from 1."""


@dataclass(frozen=True)
class LoadDriver:
    """A course on one server. `salt` sets its prompts apart from every other's.

    So does its number for a load point: none finds in a prefix cache what one before it left there,
    not even the prefix that its own requests share. `meter` reads the server's GPUs, where they are known.
    """

    endpoint: load.Endpoint
    load_plan: LoadPlan
    source: Source
    slo: Slo
    on_progress: ProgressCallback
    meter: GpuMeter | None = None
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    def steps(self) -> Iterator[tuple[int, LoadStep]]:
        """The course's load points with their numbers, from 1; `keep` each before the next is asked for."""
        return enumerate(iter(self.load_plan.ask, None), start=1)

    def observe(self, position: int, step: LoadStep) -> Observation:
        """Drive one load point; MachineError when the load generator itself failed."""
        point, workload = step.load_point, step.workload
        expected: dict[str, tuple[Stage, float]] = {
            "warming-up": ("warming-up", workload.warmup),
            "measuring": ("measuring", workload.duration),
        }

        def on_phase(phase: str) -> None:
            stage, seconds = expected[phase]
            self.on_progress(stage, load_point=point, position=position, expected_seconds=seconds)

        return load.measure(
            self.endpoint,
            point,
            workload,
            salt=f"{self.salt} {position}",
            on_phase=on_phase,
            stop_rule=step.stop_rule,
        )

    def record_result(self, position: int, observation: Observation) -> LoadPointResult:
        """Sum up and check what was seen, and let the course and the watcher know."""
        use = self.meter.usage(*observation.window) if self.meter else None
        result = replace(summarize_observation(observation, self.source, self.slo), gpu_use=use)
        self.load_plan.tell(result)
        self.on_progress("measured", load_point=observation.load_point, position=position, result=result)
        return result


def summarize_observation(observation: Observation, source: Source, slo: Slo) -> LoadPointResult:
    """One load point in figures, checked, not yet judged."""
    from autotuner.scoring import metrics, validity  # numpy would delay the first request

    figures = metrics.summarize(observation, slo)
    checks = validity.check_validity(observation, figures, slo)
    return LoadPointResult(observation.load_point, source, figures, checks, decided=observation.stop_reason)


def find_vocabulary(
    url: str, served_model: str, model: Model, headers: Mapping[str, str], workload: Workload
) -> Vocabulary | None:
    """The token ids of prompts for the server at `url`; None for chat, whose prompts are words.

    The server is asked only where the configuration of `model` is not at hand.
    """
    if workload.endpoint == "chat":
        return None
    known = model_dimensions(model).vocab_size
    if known is not None:
        return Vocabulary(known, "model")
    timeout = min(token_ids.REQUEST_TIMEOUT_SECONDS, workload.request_timeout)
    return token_ids.find_vocabulary(url, headers, served_model, assumed=load.Endpoint.vocab_size, timeout=timeout)


def load_endpoint(
    url: str, served_model: str, model: Model, headers: Mapping[str, str], vocabulary: Vocabulary | None = None
) -> load.Endpoint:
    """The server at `url` as the load generator sees it, with prompts of `ids`.

    Prompts use the tokenizer of `model` where it is at hand.
    """
    tokenizer = tokenizer_file(model)
    endpoint = load.Endpoint(url, served_model, headers, tokenizer_path=str(tokenizer) if tokenizer else None)
    return replace(endpoint, vocab_size=vocabulary.size) if vocabulary else endpoint
