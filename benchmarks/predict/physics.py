"""Fit of the constants: their priors, and robust least squares shrunk towards shared values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rows import Arrays, PerRow, Record, fields_of
from scipy.linalg import solve

from autotuner.predict.calibration import ServingConstants
from autotuner.predict.efficiencies import Efficiencies, step_parts
from autotuner.predict.queueing import IterationSeconds, mean_tpot, mean_ttft

ENGINES = ["vllm", "sglang", "trtllm"]
GENERATIONS = ["hopper", "blackwell"]
DTYPES = ["bf16", "fp8", "fp4", "int4"]
KERNEL_SECONDS = 4e-6
"""Seconds between the starts of two kernels that a graph replays."""
# name: (prior of the shared value, what it may differ by: e(ngine) g(eneration) d(type),
# standard deviation of its logarithm, and of the logarithm of a multiplier)
PRIORS = {
    "gemm_compute": (1 / 0.6, "eg", 0.15, 0.15),
    "attention_proj_memory": (1 / 0.75, "egd", 0.1, 0.11),
    "mlp_memory": (1 / 0.7, "egd", 0.1, 0.11),
    "expert_compute": (1 / 0.4, "egd", 0.2, 0.19),
    "expert_memory": (1 / 0.7, "egd", 0.1, 0.11),
    "prefill_attention": (1 / 0.45, "eg", 0.2, 0.19),
    "prefill_mla": (1 / 0.35, "eg", 0.2, 0.19),
    "decode_memory": (1 / 0.55, "eg", 0.2, 0.19),
    "decode_compute": (1 / 0.3, "eg", 0.2, 0.15),
    "state_memory": (1 / 0.5, "e", 0.2, 0.15),
    "elementwise": (6.0, "eg", 0.25, 0.22),
    "permute": (6.0, "eg", 0.25, 0.22),
    "allreduce_latency": (7e-6, "eg", 0.2, 0.22),
    "allreduce_bytes": (1 / 0.6, "eg", 0.15, 0.15),
    "allreduce_oneshot": (1.0, "eg", 0.25, 0.22),
    "dispatch_latency": (15e-6, "e", 0.25, 0.22),
    "dispatch_bytes": (1 / 0.5, "e", 0.25, 0.15),
    "expert_imbalance": (1.15, "e", 0.1, 0.15),
    "launch_attention": (7 * KERNEL_SECONDS, "eg", 0.125, 0.22),
    "launch_mla": (13 * KERNEL_SECONDS, "eg", 0.125, 0.22),
    "launch_linear": (13 * KERNEL_SECONDS, "eg", 0.125, 0.15),
    "launch_indexer": (7 * KERNEL_SECONDS, "eg", 0.125, 0.15),
    "launch_moe": (11 * KERNEL_SECONDS, "eg", 0.125, 0.22),
    "launch_mlp": (4 * KERNEL_SECONDS, "eg", 0.125, 0.22),
    "host_standard": (150e-6, "e", 0.35, 0.38),
    "host_other": (500e-6, "e", 0.35, 0.38),
    "host_moe": (400e-6, "e", 0.35, 0.5),
    "step": (8e-4, "e", 0.35, 0.38),
    "overhead": (125e-6, "e", 0.25, 0.38),
    "wait_iterations": (2.5, "e", 0.25, 0.3),
    "poll_iterations": (5.0, "", 0.15, 0.0),
    "gather_iterations": (40.0, "", 0.35, 0.0),
    "host_per_token": (2e-6, "e", 0.35, 0.3),
    "burst_share": (0.05, "", 0.1, 0.0),
    "replica_interference": (0.5, "e", 0.25, 0.22),
    "queue_scale": (0.9, "e", 0.075, 0.08),
}
VERSION_SD = {"launch": 0.05, "expert_memory": 0.05, "wait_iterations": 0.04}
"""Deviations of the multipliers of an engine version; larger ones were worse on held-out models."""
# name: (deviation of what its constants share, of what they share by engine and GPU generation)
GROUPS = {"launch": (0.25, 0.2), "memory": (0.0, 0.1), "collective": (0.0, 0.2)}
MEMBERS = {
    "launch": tuple(name for name in PRIORS if name.startswith("launch_")),
    "memory": ("attention_proj_memory", "mlp_memory", "expert_memory", "decode_memory"),
    "collective": ("allreduce_latency", "allreduce_bytes", "allreduce_oneshot", "dispatch_latency", "dispatch_bytes"),
}
"""Constants that share multipliers, so that a new kind of layer is estimated from the others of its group."""
LEVELS = {"e": ENGINES, "g": GENERATIONS, "d": DTYPES}
DTYPE_OF = {"mlp_memory": "mlp", "expert_compute": "expert", "expert_memory": "expert"}
"""Whose dtype a constant depends on; the others depend on that of the attention projections."""
ROBUST_SCALES = (0.10, 0.30)
"""Scales of the pseudo-Huber loss on residuals of log TPOT and log TTFT."""
ITERATIONS, DIFFERENCE_STEP = 20, 1e-5


class Design:
    """Design matrices: which entries of the vector add up to the logarithm of each constant, row by row.

    `columns[name]` has a row for each measurement and a column for each entry, which are those
    of `slices[name]`; `labels` names all entries in order.
    """

    def __init__(self, a: Arrays, versions: list[str]) -> None:
        self.columns: dict[str, np.ndarray] = {}
        self.slices: dict[str, slice] = {}
        self.labels: list[tuple[str, str]] = []
        prior: list[float] = []
        deviation: list[float] = []

        def add(
            name: str,
            columns: Sequence[np.ndarray],
            keys: Sequence[str],
            values: Sequence[float],
            deviations: Sequence[float],
        ) -> None:
            self.slices[name] = slice(len(prior), len(prior) + len(keys))
            self.columns[name] = np.array(columns, float).T
            self.labels += [(name, key) for key in keys]
            prior.extend(values)
            deviation.extend(deviations)

        for name, (value, levels, base_sd, delta) in PRIORS.items():
            columns, keys = [np.ones(len(a.ttft))], ["base"]
            for level in levels:
                index = {"e": a.engine, "g": a.generation, "d": getattr(a, DTYPE_OF.get(name, "attention_proj"))}[level]
                columns += [index == code for code in range(len(LEVELS[level]))]
                keys += LEVELS[level]
            others = len(keys) - 1
            add(name, columns, keys, [np.log(value)] + [0.0] * others, [base_sd] + [delta] * others)
        for name, (shared, delta) in GROUPS.items():
            columns, keys, deviations = ([np.ones(len(a.ttft))], ["base"], [shared]) if shared else ([], [], [])
            for index, codes in ((a.engine, ENGINES), (a.generation, GENERATIONS)):
                columns += [index == code for code in range(len(codes))]
                keys, deviations = keys + codes, deviations + [delta] * len(codes)
            add(f"group {name}", columns, keys, [0.0] * len(keys), deviations)
        for name, delta in VERSION_SD.items():
            columns = [a.version == code for code in range(len(versions))]
            add(f"version {name}", columns, versions, [0.0] * len(versions), [delta] * len(versions))
        self.prior, self.deviation = np.array(prior), np.array(deviation)

    def logs(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The logarithm of each constant of each row, groups added to their members."""
        logs = {name: columns @ vector[self.slices[name]] for name, columns in self.columns.items()}
        for group, members in MEMBERS.items():
            for name in members:
                logs[name] = logs[name] + logs[f"group {group}"]
        return logs


def times(logs: dict[str, np.ndarray], a: Arrays) -> tuple[PerRow, PerRow]:
    """TTFT and TPOT of every row in seconds, by the code that predicts single points."""
    value: dict[str, PerRow] = {name: np.exp(log) for name, log in logs.items()}
    efficiencies = _efficiencies(value, a.counts)
    decode = step_parts(a.works[0], efficiencies, eager=False).total
    alone, mixed, batched = (step_parts(work, efficiencies, eager=True).total for work in a.works[1:])
    prompts: PerRow = a.prompts
    # An engine that does not mix phases runs a prompt alone, beside a decode iteration.
    mixed_or_alone: PerRow = np.where(a.mixes_phases, mixed, alone)
    steps = IterationSeconds(decode, alone, mixed_or_alone, batched, prompts)
    wait: PerRow = np.where(
        a.polling_iterations > 0,
        value["poll_iterations"] * a.polling_iterations,
        value["wait_iterations"] * value["version wait_iterations"],
    )
    constants = ServingConstants(
        overhead=value["overhead"] * a.counts["layers"],
        wait_iterations=wait,
        gather_iterations=value["gather_iterations"] * a.counts["gathering"],
        host_per_token=value["host_per_token"],
        burst_share=value["burst_share"],
        replica_interference=value["replica_interference"],
        queue_scale=value["queue_scale"],
        mixes_phases=True,
    )
    mixed_or_both: PerRow = np.where(a.mixes_phases, mixed, alone + decode)
    delaying_requests: PerRow = np.where(a.separate_prefill, 0.0, a.load.other_requests)
    tpot = mean_tpot(a.load._replace(other_requests=delaying_requests), steps._replace(mixed=mixed_or_both), constants)
    return mean_ttft(a.load, steps, constants, tpot), tpot


def _efficiencies(value: dict[str, PerRow], count: dict[str, PerRow]) -> Efficiencies:
    """Constants of the operators of every row; mirrors Calibration.efficiencies."""
    launch = sum(
        count[kind] * value[f"launch_{kind}"] for kind in ("attention", "mla", "linear", "indexer", "mlp", "moe")
    )
    host = (count["attention"] + count["mlp"]) * value["host_standard"]
    host = host + (count["mla"] + count["linear"] + count["indexer"]) * value["host_other"]
    host = host + count["moe"] * value["host_moe"]
    same = (
        "gemm_compute",
        "attention_proj_memory",
        "mlp_memory",
        "prefill_attention",
        "prefill_mla",
        "decode_compute",
        "decode_memory",
        "state_memory",
        "elementwise",
        "permute",
        "allreduce_latency",
        "allreduce_bytes",
        "allreduce_oneshot",
        "dispatch_latency",
        "dispatch_bytes",
        "step",
    )
    return Efficiencies(
        expert_compute=value["expert_compute"],
        expert_memory=value["expert_memory"] * value["version expert_memory"],
        idle_expert_memory=count["idle_experts"],
        expert_imbalance=value["expert_imbalance"] ** count["groups"],
        launch=launch * value["version launch"],
        host=host * value["version launch"],
        **{name: value[name] for name in same},
    )


@dataclass
class Fit:
    """A fitted vector and the names of its entries."""

    labels: list[tuple[str, str]]
    vector: np.ndarray
    versions: list[str]

    def predict(self, a: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """TTFT and TPOT of rows in seconds."""
        return times(Design(a, self.versions).logs(self.vector), a)


def fit(a: Arrays, versions: list[str], families: np.ndarray) -> Fit:
    """Fit by robust least squares on log times; families are weighted by the root of their number of rows.

    Series that may have been run with a draft, and rows whose first token came late, neither of
    which a column tells, take no part.
    """
    plain = np.flatnonzero(~a.speculative & ~a.late_first_token)
    a, families = part(a, plain), families[plain]
    size = {family: a.weight[families == family].sum() for family in set(families)}
    share = np.sqrt(np.array([200 / size[family] for family in families]))
    weight = np.tile(a.weight * np.minimum(share, 2.0), 2)
    design = Design(a, versions)
    scale = np.repeat(ROBUST_SCALES, len(plain))
    measured = np.concatenate([np.log(a.tpot), np.log(a.ttft)])

    def predict(logs: dict[str, np.ndarray]) -> np.ndarray:
        ttft, tpot = times(logs, a)
        return np.concatenate([np.log(tpot), np.log(ttft)])

    def cost(vector: np.ndarray, residual: np.ndarray) -> float:
        loss = weight * 2 * (np.sqrt(1 + residual * residual) - 1)
        return float(loss.sum() + np.square((vector - design.prior) / design.deviation).sum())

    vector, damping = design.prior.copy(), 1e-3
    predicted = predict(design.logs(vector))
    residual = (predicted - measured) / scale
    for _ in range(ITERATIONS):
        jacobian = _jacobian(design, vector, predict, predicted) / scale[:, None]
        row_weight = weight / np.sqrt(1 + residual * residual)
        hessian = jacobian.T @ (jacobian * row_weight[:, None])
        hessian[np.diag_indices_from(hessian)] += 1 / design.deviation**2
        gradient = jacobian.T @ (row_weight * residual) + (vector - design.prior) / design.deviation**2
        old_cost = cost(vector, residual)
        while damping < 1e6:
            new = vector - solve(hessian + damping * np.diag(np.diag(hessian)), gradient, assume_a="pos")
            predicted_new = predict(design.logs(new))
            new_cost = cost(new, (predicted_new - measured) / scale)
            if new_cost < old_cost:
                break
            damping *= 8
        vector, predicted, residual, damping = (
            new,
            predicted_new,
            (predicted_new - measured) / scale,
            max(damping / 8, 1e-6),
        )
        if old_cost - new_cost < 1e-4 * old_cost:
            break
    return Fit(design.labels, vector, versions)


def _jacobian(
    design: Design,
    vector: np.ndarray,
    predict: Callable[[dict[str, np.ndarray]], np.ndarray],
    predicted: np.ndarray,
) -> np.ndarray:
    """Jacobian of the predictions; one finite difference per constant serves all its entries."""
    logs, rows = design.logs(vector), len(predicted) // 2
    derivatives: dict[str, np.ndarray] = {}
    jacobian = np.zeros((2 * rows, len(vector)))
    for name, columns in design.columns.items():
        members = MEMBERS.get(name.removeprefix("group "))
        if members is None:
            derivatives[name] = (predict({**logs, name: logs[name] + DIFFERENCE_STEP}) - predicted) / DIFFERENCE_STEP
        else:
            derivatives[name] = sum((derivatives[member] for member in members), start=np.zeros(2 * rows))
        jacobian[:, design.slices[name]] = derivatives[name][:, None] * np.tile(columns, (2, 1))
    return jacobian


def part(a: Arrays, rows: np.ndarray) -> Arrays:
    """Some of the rows."""

    def pick(record: Record) -> Record:
        return type(record)(*(getattr(record, name)[rows] for name in fields_of(record)))

    return replace(
        a,
        works=tuple(pick(work) for work in a.works),
        load=pick(a.load),
        counts={name: values[rows] for name, values in a.counts.items()},
        **{name: getattr(a, name)[rows] for name in a.__dataclass_fields__ if name not in ("works", "load", "counts")},
    )
