"""Measured rows as arrays: work of their iterations, their load, and the measured times."""

from __future__ import annotations

import csv
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.planning.table import model_from_row, with_server_flags, worker_concurrency
from autotuner.predict.calibration import effect_basis, gpu_generation
from autotuner.predict.geometry import Attention
from autotuner.predict.harness import Harness, harness_from_row
from autotuner.predict.kernels import KernelConstants, kernel_constants
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.operators import Work
from autotuner.predict.predict import effect_keys
from autotuner.predict.step_curves import StepWork, step_work

# Series measured with a multi-token predictor on, which the table has no column for: the same
# configuration is measured without it elsewhere, and is 1.3 to 2 times slower per token.
SPECULATIVE = {
    ("deepseek-r1", "trtllm", "1.1.0rc2.post2"),
    ("deepseek-r1", "trtllm", "1.2.0rc6.post3"),
    ("qwen3.5-397b-a17b", "sglang", "0.5.9"),
}

READS_ALL_EXPERTS = ("vllm 0.12.0",)
"""Engine versions whose decodes take as long at 4 in flight as at 48: as if every expert were read."""


@dataclass
class Row:
    """One measurement: its deployment, its load, and times in seconds."""

    deployment: ModelOnGpus
    isl: int
    osl: int
    concurrency: int
    load: int
    separate_prefill: bool
    ttft: float
    tpot: float
    harness: Harness
    weight: float = 1.0

    @property
    def in_flight(self) -> float:
        """Requests in flight on one replica."""
        return max(1.0, self.load / self.deployment.layout.dp)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of its model, series and layout."""
        return effect_keys(self.deployment)

    @property
    def speculative(self) -> bool:
        """Whether it may have run with speculative decoding."""
        deployment = self.deployment
        series = (deployment.shape.name, deployment.engine, deployment.version)
        return series in SPECULATIVE and not (deployment.engine == "sglang" and deployment.layout.ep_size > 1)

    @property
    def late_first_token(self) -> bool:
        """Whether its first token came with the twentieth: of this series only where both lengths are 1,024."""
        deployment, short = self.deployment, (self.isl, self.osl) == (1024, 1024)
        return (
            short
            and deployment.shape.name == "llama-3.1-70b"
            and deployment.engine == "trtllm"
            and deployment.layout.tp < 8
        )

    @property
    def configuration(self) -> tuple[Hashable, ...]:
        """Equal for rows that repeat one measurement."""
        deployment = self.deployment
        return (
            self.keys[0],
            deployment.engine,
            deployment.gpu.name,
            deployment.layout,
            deployment.dtypes,
            self.isl,
            self.osl,
            self.concurrency,
        )


def read(path: Path) -> list[Row]:
    """Read rows; exact copies share a weight of 1."""
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            deployment, workers = model_from_row(line)
            concurrency = int(line["concurrency"])
            load = worker_concurrency(concurrency, workers), workers > 1
            times = float(line["ttft_ms"]) / 1000, float(line["tpot_ms"]) / 1000
            harness = harness_from_row(line, concurrency)
            deployment = with_server_flags(deployment, line, harness)
            rows.append(Row(deployment, int(line["isl"]), int(line["osl"]), concurrency, *load, *times, harness))
    copies: dict[tuple[Hashable, ...], int] = {}
    for row in rows:
        key = (row.configuration, row.ttft, row.tpot)
        copies[key] = copies.get(key, 0) + 1
    for row in rows:
        row.weight = 1 / copies[(row.configuration, row.ttft, row.tpot)]
    return rows


PerRow = Any
"""An array over rows given to the predictor's formulas, which are annotated for the numbers of one row."""


def stack(items: Sequence[Work]) -> Work:
    """One `Work` whose fields are arrays over the items."""
    columns: Iterator[PerRow] = (
        np.array([getattr(item, field.name) for item in items], float) for field in fields(Work)
    )
    return Work(*columns)


@dataclass
class Arrays:
    """What a fit needs of rows, as arrays; indices are into the lists of names given.

    `works` are those of `StepWork`: four of decodes, the prompt, the second and the mixed step.
    """

    rows: tuple[Row, ...]
    step_work: tuple[StepWork, ...]
    works: tuple[Work, ...]
    counts: dict[str, np.ndarray]
    kernels: dict[str, np.ndarray]
    engine: np.ndarray
    generation: np.ndarray
    version: np.ndarray
    attention_proj: np.ndarray
    mlp: np.ndarray
    expert: np.ndarray
    mixes_phases: np.ndarray
    recv_interval: np.ndarray
    in_flight: np.ndarray
    prompt_tokens: np.ndarray
    osl: np.ndarray
    dp: np.ndarray
    ttft: np.ndarray
    tpot: np.ndarray
    weight: np.ndarray
    speculative: np.ndarray
    late_first_token: np.ndarray
    separate_prefill: np.ndarray
    basis: np.ndarray


def arrays(
    rows: Sequence[Row],
    engines: Sequence[str],
    generations: Sequence[str],
    versions: Sequence[str],
    dtypes: Sequence[str],
) -> Arrays:
    """Stack rows."""
    shares = [row.harness.mean_length_share for row in rows]
    works = [
        step_work(row.deployment, isl=row.isl * share, osl=row.osl * share, in_flight=row.in_flight)
        for row, share in zip(rows, shares, strict=True)
    ]
    deployments = [row.deployment for row in rows]

    kernels = [kernel_constants(d.shape, d.gpu, d.dtypes, d.engine) for d in deployments]

    def layers(test: Callable[[Attention], object]) -> np.ndarray:
        return np.array([sum(k.layers for k in d.shape.attentions if test(k)) for d in deployments], float)

    generation = [gpu_generation(d.gpu) for d in deployments]
    return Arrays(
        rows=tuple(rows),
        step_work=tuple(works),
        works=tuple(
            [stack([work.decode[index] for work in works]) for index in range(4)]
            + [stack([getattr(work, kind) for work in works]) for kind in ("prompt", "second", "mixed")]
        ),
        counts={
            "attention": layers(lambda k: k.cache_elements and not k.is_latent),
            "mla": layers(lambda k: k.is_latent),
            "linear": layers(lambda k: k.state_elements),
            "indexer": layers(lambda k: k.indexer_ops),
            "mlp": np.array(
                [sum(k.layers for k in d.shape.feed_forwards if not k.experts) for d in deployments], float
            ),
            "moe": np.array([d.shape.moe_layers for d in deployments], float),
            "gathering": np.array([d.layout.dp > 1 and d.engine == "trtllm" for d in deployments], float),
            "idle_experts": np.array([f"{d.engine} {d.version}" in READS_ALL_EXPERTS for d in deployments], float),
            "layers": np.array([d.shape.layers for d in deployments], float),
            "groups": np.array([d.layout.ep_size > 1 for d in deployments], float),
        },
        kernels={
            field.name: np.array([getattr(constants, field.name) for constants in kernels])
            for field in fields(KernelConstants)
        },
        engine=np.array([engines.index(d.engine) for d in deployments]),
        generation=np.array([generations.index(g) for g in generation]),
        version=np.array([versions.index(f"{d.engine} {d.version or '-'}") for d in deployments]),
        attention_proj=np.array([dtypes.index(d.dtypes.attention_proj) for d in deployments]),
        mlp=np.array([dtypes.index(d.dtypes.mlp) for d in deployments]),
        expert=np.array([dtypes.index(d.dtypes.expert) for d in deployments]),
        mixes_phases=np.array([d.engine != "sglang" for d in deployments]),
        recv_interval=np.array([d.recv_interval - 1.0 for d in deployments]),
        in_flight=np.array([row.in_flight for row in rows]),
        prompt_tokens=np.array([row.isl * share for row, share in zip(rows, shares, strict=True)]),
        osl=np.array([row.osl * share for row, share in zip(rows, shares, strict=True)]),
        dp=np.array([float(d.layout.dp) for d in deployments]),
        ttft=np.array([row.ttft for row in rows]),
        tpot=np.array([row.tpot for row in rows]),
        weight=np.array([row.weight for row in rows]),
        speculative=np.array([row.speculative for row in rows]),
        late_first_token=np.array([row.late_first_token for row in rows]),
        separate_prefill=np.array([row.separate_prefill for row in rows]),
        basis=np.array([effect_basis(row.isl, row.osl, row.load, row.deployment.layout) for row in rows]),
    )


def part(a: Arrays, rows: np.ndarray) -> Arrays:
    """Some of the rows."""
    picked: dict[str, Any] = {
        name: getattr(a, name)[rows]
        for name in a.__dataclass_fields__
        if name not in ("works", "counts", "kernels", "rows", "step_work")
    }
    return replace(
        a,
        rows=tuple(a.rows[index] for index in rows.tolist()),
        step_work=tuple(a.step_work[index] for index in rows.tolist()),
        works=tuple(Work(*(getattr(work, field.name)[rows] for field in fields(Work))) for work in a.works),
        counts={name: values[rows] for name, values in a.counts.items()},
        kernels={name: values[rows] for name, values in a.kernels.items()},
        **picked,
    )
