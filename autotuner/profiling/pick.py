"""A prefill and a decode worker that somebody picks of a profile: their figures, their manifest, and their files."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.core import Source
from autotuner.deploy import render, with_comment, with_port
from autotuner.deploy.dynamo import deployment_documents, to_yaml
from autotuner.engines import LaunchContext
from autotuner.errors import AutotuneError, RunStoreError, UsageError, pluralize
from autotuner.evaluate.launch_script import simulation_remark
from autotuner.profiling.manifests import dynamo_workers_deployment, runs_on_dynamo
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.points import DecodePoint, PrefillPoint
from autotuner.profiling.select import RankedWorker
from autotuner.profiling.session import prepare
from autotuner.profiling.workers import WorkerSetup
from autotuner.redaction import redact, write_redacted, write_redacted_json

PICKED_FILE = "picked.json"
MANIFEST_FILE, COMMANDS_FILE = "picked_deployment.yaml", "picked_commands.sh"
FORMAT = 1


@dataclass(frozen=True)
class WorkerPair:
    """A prefill worker, and a decode worker at a number of requests in flight."""

    prefill: RankedWorker[PrefillPoint]
    decode: RankedWorker[DecodePoint]

    @property
    def meets_targets(self) -> bool:
        """Whether both latencies are within their targets."""
        return self.prefill.meets_target and self.decode.meets_target


@dataclass(frozen=True)
class PairManifest:
    """What starts a pair: the name of its file, and its text."""

    name: str
    text: str


def chosen_pair(outcome: ProfileOutcome) -> WorkerPair | None:
    """The pair that the profile chose, or its nearest miss; None while a phase has no good point."""
    prefill, decode = outcome.selection.prefill_pick, outcome.selection.decode_pick
    return WorkerPair(prefill, decode) if prefill is not None and decode is not None else None


def find_pair(outcome: ProfileOutcome, prefill: str, decode: str, requests: int) -> WorkerPair:
    """The pair of two mappings by their names, such as 2gpus_tp2; UsageError if the profile has no such point."""
    selection = outcome.selection
    prefill_worker = next((worker for worker in selection.prefill if worker.mapping.name == prefill), None)
    decode_worker = next(
        (w for w in selection.decode if w.mapping.name == decode and w.point.concurrency == requests), None
    )
    if prefill_worker is None or decode_worker is None:
        missing = "prefill" if prefill_worker is None else "decode"
        raise UsageError(f"The profile has no such {missing} worker.", remedy="Reload the page.")
    return WorkerPair(prefill_worker, decode_worker)


def gpu_hours_per_1000_requests(outcome: ProfileOutcome, pair: WorkerPair) -> float:
    """GPU-hours of both workers for 1,000 requests of the asked lengths."""
    request = outcome.record.request
    prefill_seconds = request.isl / pair.prefill.point.throughput_per_gpu
    decode_seconds = request.osl / pair.decode.point.throughput_per_gpu
    return (prefill_seconds + decode_seconds) / 3.6


def worker_counts(outcome: ProfileOutcome, pair: WorkerPair) -> tuple[int, int] | None:
    """Prefill and decode workers for the asked load, as planned or by the points' throughput; None without a load."""
    request = outcome.record.request
    if pair == chosen_pair(outcome) and outcome.plan is not None:
        return outcome.plan.prefill_workers, outcome.plan.decode_workers
    prefill, decode = pair.prefill, pair.decode
    rate = request.rate
    if request.concurrency is not None:
        rate = request.concurrency / (prefill.point.ttft + request.osl * decode.point.itl)
    if rate is None:
        return None
    prefill_rate = prefill.point.throughput_per_gpu * prefill.mapping.gpus / request.isl
    decode_rate = decode.point.throughput_per_gpu * decode.mapping.gpus / request.osl
    return max(1, math.ceil(rate / prefill_rate - 1e-9)), max(1, math.ceil(rate / decode_rate - 1e-9))


def pair_manifest(outcome: ProfileOutcome, pair: WorkerPair) -> PairManifest:
    """Dynamo's deployment of a pair, or the commands that start its workers; AutotuneError where there are none."""
    request = outcome.record.request
    if request.url is not None:
        raise UsageError(
            "The profiled server was already running, and autotune does not know how it is started.",
            remedy="Start further ones as that one.",
        )
    setup = prepare(request)
    counts = worker_counts(outcome, pair) or (1, 1)
    if runs_on_dynamo(request):
        deployment = dynamo_workers_deployment(
            outcome,
            setup,
            (pair.prefill.mapping, pair.decode.mapping),
            counts,
            with_planner=pair == chosen_pair(outcome),
        )
        return PairManifest(MANIFEST_FILE, redact(to_yaml(deployment_documents(deployment))))
    parts = [
        _commands(setup, role, worker.mapping, count, worker.point.source)
        for role, worker, count in (("prefill", pair.prefill, counts[0]), ("decode", pair.decode, counts[1]))
    ]
    return PairManifest(COMMANDS_FILE, redact("\n".join(parts)))


def _commands(setup: WorkerSetup, role: str, mapping: ParallelMapping, count: int, source: Source) -> str:
    context = LaunchContext.from_experiment(setup.experiment)
    spec = setup.engine.server_spec(setup.candidate(mapping), context)
    text = render(with_port(spec, setup.engine.default_port), "shell")
    remark = simulation_remark(setup.experiment, source)
    return with_comment(text, f"{role}: {pluralize(count, 'worker')} of {mapping.label}\n{remark}".rstrip())


def write_pick(outcome: ProfileOutcome, pair: WorkerPair) -> list[Path]:
    """Write what was picked, and its manifest where there is one; returns the paths. RunStoreError if it cannot be."""
    folder, request = outcome.record.path, outcome.record.request
    manifest: PairManifest | None = None
    counts: tuple[int, int] | None = None
    # a pair that is not launched by autotune, or that the GPU budget does not hold, is picked all the same
    with suppress(AutotuneError):
        counts = worker_counts(outcome, pair)
        manifest = pair_manifest(outcome, pair)
    data: dict[str, Any] = {
        "format": FORMAT,
        "picked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prefill": _worker_json(pair.prefill, ttft=pair.prefill.point.ttft),
        "decode": _worker_json(pair.decode, itl=pair.decode.point.itl, requests=pair.decode.point.concurrency),
        "targets": {"ttft": request.ttft, "itl": request.itl, "isl": request.isl, "osl": request.osl},
        "meets_targets": pair.meets_targets,
        "is_choice_of_profile": pair == chosen_pair(outcome),
        "workers": {"prefill": counts[0], "decode": counts[1]} if counts else None,
        "gpu_hours_per_1000_requests": gpu_hours_per_1000_requests(outcome, pair),
        "manifest": manifest.name if manifest else None,
    }
    try:
        for name in (MANIFEST_FILE, COMMANDS_FILE):
            if manifest is None or name != manifest.name:
                (folder / name).unlink(missing_ok=True)
        paths = [folder / PICKED_FILE]
        if manifest is not None:
            write_redacted(folder / manifest.name, manifest.text)
            paths.append(folder / manifest.name)
        write_redacted_json(folder / PICKED_FILE, data)
    except OSError as error:
        raise RunStoreError(
            f"The pick cannot be written to '{folder}'.", why=f"{error.strerror}.", remedy="Nothing was picked."
        ) from error
    return paths


def _worker_json(worker: RankedWorker[Any], **figures: float) -> dict[str, Any]:
    return {
        "mapping": worker.mapping.name,
        "gpus": worker.mapping.gpus,
        "source": worker.point.source,
        "tokens_per_second_per_gpu": worker.point.throughput_per_gpu,
        **figures,
    }
