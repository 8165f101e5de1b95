"""Fit of the constants: their priors, and robust least squares shrunk towards shared values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rows import Arrays, PerRow, part
from schedules import Schedules, linear_schedules
from scipy.linalg import solve

from autotuner.predict.efficiencies import Efficiencies, step_parts

ENGINES = ["vllm", "sglang", "trtllm"]
GENERATIONS = ["hopper", "blackwell"]
DTYPES = ["bf16", "fp8", "fp4", "int4"]
# name: (prior of the shared value, what it may differ by: e(ngine) g(eneration) d(type),
# standard deviation of its logarithm, and of the logarithm of a multiplier)
PRIORS = {
    "gemm_compute": (1.0, "e", 0.08, 0.1),
    "attention_proj_memory": (1.0, "ed", 0.06, 0.08),
    "mlp_memory": (1.0, "ed", 0.06, 0.08),
    "expert_compute": (1.0, "ed", 0.15, 0.15),
    "expert_memory": (1.0, "ed", 0.1, 0.11),
    "prefill_attention": (1.0, "e", 0.15, 0.1),
    "prefill_mla": (1.0, "e", 0.15, 0.1),
    "decode_memory": (1.0, "e", 0.1, 0.1),
    "decode_compute": (1.0, "e", 0.1, 0.1),
    "state_memory": (1 / 0.5, "e", 0.2, 0.15),
    "elementwise": (6.0, "eg", 0.25, 0.22),
    "permute": (6.0, "eg", 0.25, 0.22),
    "allreduce_latency": (1.2, "e", 0.2, 0.15),
    "allreduce_bytes": (1.1, "e", 0.15, 0.15),
    "allreduce_oneshot": (1.0, "e", 0.25, 0.15),
    "dispatch_latency": (15e-6, "e", 0.25, 0.22),
    "dispatch_bytes": (1 / 0.5, "e", 0.25, 0.15),
    "expert_imbalance": (1.15, "e", 0.1, 0.15),
    "launch_kernels": (1.0, "eg", 0.1, 0.1),
    "launch_attention": (8e-6, "e", 0.25, 0.3),
    "launch_mla": (12e-6, "e", 0.25, 0.3),
    "launch_linear": (30e-6, "e", 0.25, 0.3),
    "launch_indexer": (28e-6, "e", 0.25, 0.3),
    "launch_moe": (12e-6, "e", 0.25, 0.3),
    "launch_mlp": (4e-6, "e", 0.25, 0.3),
    "host_standard": (150e-6, "e", 0.35, 0.38),
    "host_other": (500e-6, "e", 0.35, 0.38),
    "host_moe": (400e-6, "e", 0.35, 0.5),
    "step": (8e-4, "e", 0.35, 0.38),
    "overhead": (125e-6, "e", 0.25, 0.38),
    "wait_iterations": (2.5, "e", 0.25, 0.3),
    "poll_share": (0.5, "", 0.1, 0.0),
    "gather_iterations": (40.0, "", 0.35, 0.0),
    "host_per_token": (2e-6, "e", 0.35, 0.3),
    "replica_interference": (0.5, "e", 0.25, 0.22),
}
VERSION_SD = {"launch": 0.05, "expert_memory": 0.05, "wait_iterations": 0.04}
"""Deviations of the multipliers of an engine version; larger ones were worse on held-out models."""
# name: (deviation of what its constants share, of what they share by engine and GPU generation)
GROUPS = {"launch": (0.25, 0.2), "memory": (0.0, 0.06), "collective": (0.0, 0.15)}
MEMBERS = {
    "launch": tuple(name for name in PRIORS if name.startswith("launch_") and name != "launch_kernels"),
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


def step_seconds(logs: dict[str, np.ndarray], a: Arrays) -> tuple[np.ndarray, ...]:
    """Seconds of the steps of `Arrays.works`, by the code that predicts single points."""
    value: dict[str, PerRow] = {name: np.exp(log) for name, log in logs.items()}
    efficiencies = _efficiencies(a, value)
    eager = [False] * 4 + [True] * 3
    parts: list[PerRow] = [
        step_parts(work, efficiencies, eager=e).total for work, e in zip(a.works, eager, strict=True)
    ]
    return tuple(parts)


def times(logs: dict[str, np.ndarray], a: Arrays, schedules: Schedules) -> tuple[PerRow, PerRow]:
    """TTFT and TPOT of every row in seconds; mirrors `autotuner.predict.predict`."""
    value: dict[str, PerRow] = {name: np.exp(log) for name, log in logs.items()}
    schedule = schedules.at(step_seconds(logs, a))
    wait = value["wait_iterations"] * value["version wait_iterations"] + value["poll_share"] * a.recv_interval
    gather = value["gather_iterations"] * a.counts["gathering"]
    gather = gather / (1 + gather * a.in_flight / a.osl)
    stall = schedule.stall * (1 + value["replica_interference"] * (a.dp - 1))
    tpot = schedule.decode + np.where(a.separate_prefill, 0.0, stall)
    overhead = value["overhead"] * a.counts["layers"] + value["host_per_token"] * a.prompt_tokens
    waiting = (wait + gather) * tpot * (1 - 1 / a.in_flight)
    return overhead + waiting + schedule.queue + schedule.prefill, tpot


def _efficiencies(a: Arrays, value: dict[str, PerRow]) -> Efficiencies:
    """Constants of the operators of every row; mirrors Calibration.efficiencies."""
    count: dict[str, PerRow] = a.counts
    kernels: dict[str, PerRow] = a.kernels
    launch = sum(
        count[kind] * value[f"launch_{kind}"] for kind in ("attention", "mla", "linear", "indexer", "mlp", "moe")
    )
    host = (count["attention"] + count["mlp"]) * value["host_standard"]
    host = host + (count["mla"] + count["linear"] + count["indexer"]) * value["host_other"]
    host = host + count["moe"] * value["host_moe"]
    alone = ("state_memory", "elementwise", "permute", "dispatch_latency", "dispatch_bytes", "step")
    measured = (
        "gemm_compute",
        "attention_proj_memory",
        "mlp_memory",
        "expert_compute",
        "prefill_attention",
        "prefill_mla",
        "decode_compute",
        "decode_memory",
        "allreduce_latency",
        "allreduce_bytes",
        "allreduce_oneshot",
    )
    return Efficiencies(
        mlp_compute=kernels["mlp_compute"] * value["gemm_compute"],
        expert_memory=kernels["expert_memory"] * value["expert_memory"] * value["version expert_memory"],
        idle_expert_memory=count["idle_experts"],
        expert_imbalance=value["expert_imbalance"] ** count["groups"],
        launch=launch * value["version launch"] + kernels["launch"] * value["launch_kernels"],
        host=host * value["version launch"],
        **{name: value[name] for name in alone},
        **{name: kernels[name] * value[name] for name in measured},
    )


@dataclass
class Fit:
    """A fitted vector and the names of its entries."""

    labels: list[tuple[str, str]]
    vector: np.ndarray
    versions: list[str]

    def predict(self, a: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """TTFT and TPOT of rows in seconds, each row's schedule simulated."""
        logs = Design(a, self.versions).logs(self.vector)
        return times(logs, a, linear_schedules(a, step_seconds(logs, a), with_slopes=False))

    def approximate(self, a: Arrays, schedules: Schedules) -> tuple[np.ndarray, np.ndarray]:
        """As `predict`, with these schedules, which are only linear in the seconds of the steps."""
        return times(Design(a, self.versions).logs(self.vector), a, schedules)


def prior_schedules(a: Arrays, versions: list[str], vector: np.ndarray | None = None) -> Schedules:
    """Schedules of all rows near these constants, by default the priors, for fits of many folds."""
    design = Design(a, versions)
    return linear_schedules(a, step_seconds(design.logs(design.prior if vector is None else vector), a))


def fit(a: Arrays, versions: list[str], families: np.ndarray, schedules: Schedules) -> Fit:
    """Fit by robust least squares on log times; families are weighted by the root of their number of rows.

    Series that may have been run with a draft, and rows whose first token came late, neither of
    which a column tells, take no part. `schedules` are linear in the logs of the steps' seconds.
    """
    plain = np.flatnonzero(~a.speculative & ~a.late_first_token)
    a, families, schedules = part(a, plain), families[plain], schedules.part(plain)
    size = {family: a.weight[families == family].sum() for family in set(families)}
    share = np.sqrt(np.array([200 / size[family] for family in families]))
    weight = np.tile(a.weight * np.minimum(share, 2.0), 2)
    design = Design(a, versions)
    scale = np.repeat(ROBUST_SCALES, len(plain))
    measured = np.concatenate([np.log(a.tpot), np.log(a.ttft)])

    def predict(logs: dict[str, np.ndarray]) -> np.ndarray:
        ttft, tpot = times(logs, a, schedules)
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
