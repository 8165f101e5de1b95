"""The constants as a vector: priors, and a robust fit regularised toward shared values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from rows import Arrays
from scipy.linalg import solve

from autotuner.predict.calibration import ServingConstants
from autotuner.predict.efficiencies import Efficiencies, step_parts
from autotuner.predict.queueing import IterationSeconds, mean_tpot, mean_ttft

ENGINES = ["vllm", "sglang", "trtllm"]
GENERATIONS = ["hopper", "blackwell"]
DTYPES = ["bf16", "fp8", "fp4", "int4"]
KERNEL = 4e-6
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
    "state": (1 / 0.5, "e", 0.2, 0.15),
    "elementwise": (6.0, "eg", 0.25, 0.22),
    "permute": (6.0, "eg", 0.25, 0.22),
    "allreduce_latency": (7e-6, "eg", 0.2, 0.22),
    "allreduce_bytes": (1 / 0.6, "eg", 0.15, 0.15),
    "allreduce_oneshot": (1.0, "eg", 0.25, 0.22),
    "dispatch_latency": (15e-6, "e", 0.25, 0.22),
    "dispatch_bytes": (1 / 0.5, "e", 0.25, 0.15),
    "imbalance": (1.15, "e", 0.1, 0.15),
    "launch_plain": (7 * KERNEL, "eg", 0.125, 0.22),
    "launch_latent": (13 * KERNEL, "eg", 0.125, 0.22),
    "launch_linear": (13 * KERNEL, "eg", 0.125, 0.15),
    "launch_index": (7 * KERNEL, "eg", 0.125, 0.15),
    "launch_expert": (11 * KERNEL, "eg", 0.125, 0.22),
    "launch_dense": (4 * KERNEL, "eg", 0.125, 0.22),
    "host_plain": (150e-6, "e", 0.35, 0.38),
    "host_other": (500e-6, "e", 0.35, 0.38),
    "host_expert": (400e-6, "e", 0.35, 0.5),
    "step": (8e-4, "e", 0.35, 0.38),
    "overhead": (125e-6, "e", 0.25, 0.38),
    "wait": (2.5, "e", 0.25, 0.3),
    "poll": (5.0, "", 0.15, 0.0),
    "gather": (40.0, "", 0.35, 0.0),
    "per_token": (2e-6, "e", 0.35, 0.3),
    "burst": (0.05, "", 0.1, 0.0),
    "replicas": (0.5, "e", 0.25, 0.22),
    "saturation": (0.9, "e", 0.075, 0.08),
}
VERSION = {"floor": 0.05, "expert": 0.05, "wait": 0.04}
"""Deviations of the multipliers of an engine version; larger ones were worse on held-out models."""
# name: (deviation of what its constants share, of what they share by engine and GPU generation)
GROUPS = {"launch": (0.25, 0.2), "memory": (0.0, 0.1), "collective": (0.0, 0.2)}
MEMBERS = {
    "launch": tuple(name for name in PRIORS if name.startswith("launch_")),
    "memory": ("attention_proj_memory", "mlp_memory", "expert_memory", "decode_memory"),
    "collective": ("allreduce_latency", "allreduce_bytes", "allreduce_oneshot", "dispatch_latency", "dispatch_bytes"),
}
"""Constants that are alike: what a new kind of layer or of traffic takes is guessed from the others of its group."""
LEVELS = {"e": ENGINES, "g": GENERATIONS, "d": DTYPES}
TYPED = {"mlp_memory": "dense", "expert_compute": "expert", "expert_memory": "expert"}
"""Whose dtype a constant goes by; the others go by the mixer's."""
SCALES = (0.10, 0.30)
"""Residuals of log TPOT and log TTFT beyond which a row pulls less."""
ITERATIONS, NUDGE = 20, 1e-5


class Design:
    """Which entries of the vector make up the logarithm of each constant of each row.

    `columns[name]` has a row for each measurement and a column for each entry, which are those
    of `slices[name]`; `labels` names all entries in order.
    """

    def __init__(self, a: Arrays, versions: list[str]) -> None:
        self.columns: dict[str, np.ndarray] = {}
        self.slices: dict[str, slice] = {}
        self.labels: list[tuple[str, str]] = []
        prior, deviation = [], []

        def add(name, columns, keys, values, deviations):
            self.slices[name] = slice(len(prior), len(prior) + len(keys))
            self.columns[name] = np.array(columns, float).T
            self.labels += [(name, key) for key in keys]
            prior.extend(values)
            deviation.extend(deviations)

        for name, (value, levels, own, delta) in PRIORS.items():
            columns, keys = [np.ones(len(a.ttft))], ["base"]
            for level in levels:
                index = {"e": a.engine, "g": a.generation, "d": getattr(a, TYPED.get(name, "mixer"))}[level]
                columns += [index == at for at in range(len(LEVELS[level]))]
                keys += LEVELS[level]
            others = len(keys) - 1
            add(name, columns, keys, [np.log(value)] + [0.0] * others, [own] + [delta] * others)
        for name, (shared, delta) in GROUPS.items():
            columns, keys, deviations = [], [], []
            if shared:
                columns, keys, deviations = [np.ones(len(a.ttft))], ["base"], [shared]
            for index, level in ((a.engine, ENGINES), (a.generation, GENERATIONS)):
                columns += [index == at for at in range(len(level))]
                keys, deviations = keys + level, deviations + [delta] * len(level)
            add(f"group {name}", columns, keys, [0.0] * len(keys), deviations)
        for name, delta in VERSION.items():
            columns = [a.version == at for at in range(len(versions))]
            add(f"version {name}", columns, versions, [0.0] * len(versions), [delta] * len(versions))
        self.prior, self.deviation = np.array(prior), np.array(deviation)

    def logs(self, vector) -> dict[str, np.ndarray]:
        """The logarithm of each constant of each row, groups added to their members."""
        found = {name: columns @ vector[self.slices[name]] for name, columns in self.columns.items()}
        for group, members in MEMBERS.items():
            for name in members:
                found[name] = found[name] + found[f"group {group}"]
        return found


def times(logs: dict[str, np.ndarray], a: Arrays):
    """TTFT and TPOT of every row in seconds, by the code that predicts single points."""
    value = {name: np.exp(log) for name, log in logs.items()}
    rates = _rates(value, a.counts)
    decode = step_parts(a.works[0], rates, eager=False).total
    alone, mixed, batched = (step_parts(work, rates, eager=True).total for work in a.works[1:])
    # What does not mix prompts with decodes sees a prompt alone, beside a decode iteration.
    steps = IterationSeconds(decode, alone, np.where(a.mixes, mixed, alone), batched, a.prompts)
    wait = np.where(a.polls > 0, value["poll"] * a.polls, value["wait"] * value["version wait"])
    serving = ServingConstants(
        overhead=value["overhead"] * a.counts["layers"],
        wait_iterations=wait,
        gather_iterations=value["gather"] * a.counts["gathering"],
        host_per_token=value["per_token"],
        burst_share=value["burst"],
        replica_interference=value["replicas"],
        queue_scale=value["saturation"],
        mixes_phases=True,
    )
    sequential = steps._replace(mixed=np.where(a.mixes, mixed, alone + decode))
    tpot = mean_tpot(a.loop._replace(other_requests=np.where(a.apart, 0.0, a.loop.other_requests)), sequential, serving)
    return mean_ttft(a.loop, steps, serving, tpot), tpot


def _rates(value: dict[str, np.ndarray], count: dict[str, np.ndarray]) -> Efficiencies:
    """Constants of the operators of every row; mirrors Calibration.rates."""
    launch = sum(
        count[kind] * value[f"launch_{kind}"] for kind in ("plain", "latent", "linear", "index", "dense", "expert")
    )
    host = (count["plain"] + count["dense"]) * value["host_plain"]
    host = host + (count["latent"] + count["linear"] + count["index"]) * value["host_other"]
    host = host + count["expert"] * value["host_expert"]
    same = ("gemm_compute", "attention_proj_memory", "mlp_memory", "prefill_attention", "prefill_mla", "decode_compute")
    same += ("decode_memory", "state", "elementwise", "permute", "allreduce_latency", "allreduce_bytes", "allreduce_oneshot")
    same += ("dispatch_latency", "dispatch_bytes", "step")
    return Efficiencies(
        expert_compute=value["expert_compute"],
        expert_memory=value["expert_memory"] * value["version expert"],
        idle=count["idle"],
        imbalance=value["imbalance"] ** count["groups"],
        launch=launch * value["version floor"],
        host=host * value["version floor"],
        **{name: value[name] for name in same},
    )


@dataclass
class Fit:
    """A fitted vector and the names of its entries."""

    labels: list[tuple[str, str]]
    vector: np.ndarray
    versions: list[str]

    def predict(self, a: Arrays):
        """TTFT and TPOT of rows as a table is predicted."""
        return times(Design(a, self.versions).logs(self.vector), a)


def fit(a: Arrays, versions: list[str], families: np.ndarray) -> Fit:
    """Fit by robust least squares on log times; families weigh by the root of their rows.

    Series that may have been run with a draft, and rows whose first token came late, neither of
    which a column tells, take no part.
    """
    plain = np.flatnonzero(~a.speculative & ~a.late)
    a, families = part(a, plain), families[plain]
    size = {family: a.weight[families == family].sum() for family in set(families)}
    share = np.sqrt(np.array([200 / size[family] for family in families]))
    weight = np.tile(a.weight * np.minimum(share, 2.0), 2)
    design = Design(a, versions)
    scale = np.repeat(SCALES, len(plain))
    wanted = np.concatenate([np.log(a.tpot), np.log(a.ttft)])

    def said(logs):
        ttft, tpot = times(logs, a)
        return np.concatenate([np.log(tpot), np.log(ttft)])

    def cost(vector, off):
        far = weight * 2 * (np.sqrt(1 + off * off) - 1)
        return far.sum() + np.square((vector - design.prior) / design.deviation).sum()

    vector, damping = design.prior.copy(), 1e-3
    base = said(design.logs(vector))
    off = (base - wanted) / scale
    for _ in range(ITERATIONS):
        slope = _slope(design, vector, said, base) / scale[:, None]
        pull = weight / np.sqrt(1 + off * off)
        normal = slope.T @ (slope * pull[:, None])
        normal[np.diag_indices_from(normal)] += 1 / design.deviation**2
        down = slope.T @ (pull * off) + (vector - design.prior) / design.deviation**2
        before = cost(vector, off)
        while damping < 1e6:
            new = vector - solve(normal + damping * np.diag(np.diag(normal)), down, assume_a="pos")
            said_new = said(design.logs(new))
            after = cost(new, (said_new - wanted) / scale)
            if after < before:
                break
            damping *= 8
        vector, base, off, damping = new, said_new, (said_new - wanted) / scale, max(damping / 8, 1e-6)
        if before - after < 1e-4 * before:
            break
    return Fit(design.labels, vector, versions)


def _slope(design: Design, vector, said, base) -> np.ndarray:
    """Derivatives of what is said of each row; one difference per constant serves all its entries."""
    logs, rows, changes = design.logs(vector), len(base) // 2, {}
    slope = np.zeros((2 * rows, len(vector)))
    for name, columns in design.columns.items():
        members = MEMBERS.get(name.removeprefix("group "))
        if members is None:
            changes[name] = (said({**logs, name: logs[name] + NUDGE}) - base) / NUDGE
        else:
            changes[name] = sum(changes[member] for member in members)
        slope[:, design.slices[name]] = changes[name][:, None] * np.tile(columns, (2, 1))
    return slope


def part(a: Arrays, rows) -> Arrays:
    """Some of the rows."""

    def pick(thing):
        return type(thing)(*(getattr(thing, name)[rows] for name in fields_of(thing)))

    return replace(
        a,
        works=tuple(pick(work) for work in a.works),
        loop=pick(a.loop),
        counts={name: values[rows] for name, values in a.counts.items()},
        **{name: getattr(a, name)[rows] for name in a.__dataclass_fields__ if name not in ("works", "loop", "counts")},
    )


def fields_of(thing):
    """Names of the fields of a tuple or a dataclass."""
    return getattr(thing, "_fields", None) or list(thing.__dataclass_fields__)
