"""Drives a course of load points on one running server: what is asked, seen, summed up and told."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from autotuner import load
from autotuner.core import LoadPoint, LoadPointResult, LoadStep, Observation, Source, Stage, Workload
from autotuner.engines.model import geometry, tokenizer_file
from autotuner.experiment import Model, Slo
from autotuner.launchers import token_ids
from autotuner.launchers.gpu_meter import Meter
from autotuner.launchers.token_ids import Vocabulary
from autotuner.search.launch import Course


class Tell(Protocol):
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
class Drive:
    """A course on one server. `salt` sets its prompts apart from every other's.

    So does its number for a load point: none finds in a prefix cache what one before it left there,
    not even the prefix that its own requests share. `meter` reads the server's GPUs, where they are known.
    """

    endpoint: load.Endpoint
    course: Course
    source: Source
    slo: Slo
    tell: Tell
    meter: Meter | None = None
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    def steps(self) -> Iterator[tuple[int, LoadStep]]:
        """The course's load points with their numbers, from 1; `keep` each before the next is asked for."""
        return enumerate(iter(self.course.ask, None), start=1)

    def observe(self, position: int, step: LoadStep) -> Observation:
        """Drive one load point; MachineError when the load generator itself failed."""
        point, workload = step.load_point, step.workload
        expected: dict[str, tuple[Stage, float]] = {
            "warming-up": ("warming-up", workload.warmup),
            "measuring": ("measuring", workload.duration),
        }

        def on_phase(phase: str) -> None:
            stage, seconds = expected[phase]
            self.tell(stage, load_point=point, position=position, expected_seconds=seconds)

        return load.measure(
            self.endpoint,
            point,
            workload,
            salt=f"{self.salt} {position}",
            on_phase=on_phase,
            enough=step.enough,
        )

    def keep(self, position: int, seen: Observation) -> LoadPointResult:
        """Sum up and check what was seen, and let the course and the watcher know."""
        use = self.meter.use(*seen.window) if self.meter else None
        result = replace(summed_up(seen, self.source, self.slo), gpu_use=use)
        self.course.tell(result)
        self.tell("measured", load_point=seen.load_point, position=position, result=result)
        return result


def summed_up(seen: Observation, source: Source, slo: Slo) -> LoadPointResult:
    """One load point in figures, checked, not yet judged."""
    from autotuner.scoring import metrics, validity  # numpy would delay the first request

    figures = metrics.summarize(seen, slo)
    checks = validity.check(seen, figures, slo)
    return LoadPointResult(seen.load_point, source, figures, checks, decided=seen.decided)


def vocabulary_of(
    url: str, served: str, model: Model, headers: Mapping[str, str], workload: Workload
) -> Vocabulary | None:
    """The token ids of prompts for the server at `url`; None for chat, whose prompts are words.

    The server is asked only where the configuration of `model` is not at hand.
    """
    if workload.endpoint == "chat":
        return None
    known = geometry(model).vocabulary
    if known is not None:
        return Vocabulary(known, "model")
    timeout = min(token_ids.PATIENCE, workload.request_timeout)
    return token_ids.find(url, headers, served, assumed=load.Endpoint.vocabulary, timeout=timeout)


def endpoint_of(
    url: str, served: str, model: Model, headers: Mapping[str, str], ids: Vocabulary | None = None
) -> load.Endpoint:
    """The server at `url` as the load generator sees it, with prompts of `ids`.

    Prompts use the tokenizer of `model` where it is at hand.
    """
    tokenizer = tokenizer_file(model)
    endpoint = load.Endpoint(url, served, headers, tokenizer=str(tokenizer) if tokenizer else None)
    return replace(endpoint, vocabulary=ids.size) if ids else endpoint
