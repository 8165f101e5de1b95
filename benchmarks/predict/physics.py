"""The constants as a vector: priors, and a robust fit regularised toward shared values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from rows import Arrays
from scipy.optimize import least_squares

from autotuner.predict.calibration import Serving
from autotuner.predict.queueing import Steps, tpot_of, ttft_of
from autotuner.predict.rates import Rates, step_parts

ENGINES = ["vllm", "sglang", "trtllm"]
GENERATIONS = ["hopper", "blackwell"]
DTYPES = ["bf16", "fp8", "fp4", "int4"]
# name: (prior of the shared value, what it may differ by: e(ngine) g(eneration) d(type),
# standard deviation of its logarithm, and of the logarithm of a multiplier)
PRIORS = {
    "gemm_compute": (1 / 0.6, "egd", 0.3, 0.2),
    "mixer_memory": (1 / 0.75, "egd", 0.2, 0.15),
    "dense_memory": (1 / 0.7, "egd", 0.2, 0.15),
    "expert_compute": (1 / 0.4, "egd", 0.4, 0.25),
    "expert_memory": (1 / 0.6, "egd", 0.3, 0.2),
    "context": (1 / 0.45, "eg", 0.4, 0.25),
    "latent_context": (1 / 0.35, "eg", 0.4, 0.25),
    "decode_memory": (1 / 0.55, "eg", 0.4, 0.25),
    "decode_compute": (1 / 0.3, "eg", 0.4, 0.2),
    "state": (1 / 0.5, "e", 0.4, 0.2),
    "elementwise": (6.0, "eg", 0.5, 0.3),
    "permute": (6.0, "eg", 0.5, 0.3),
    "reduce_latency": (7e-6, "eg", 0.4, 0.3),
    "reduce_bytes": (1 / 0.6, "eg", 0.3, 0.2),
    "dispatch_latency": (15e-6, "e", 0.5, 0.3),
    "dispatch_bytes": (1 / 0.5, "e", 0.5, 0.2),
    "imbalance": (1.15, "e", 0.2, 0.2),
    "launch_plain": (15e-6, "eg", 0.5, 0.3),
    "launch_latent": (30e-6, "eg", 0.5, 0.3),
    "launch_linear": (25e-6, "eg", 0.5, 0.2),
    "launch_index": (25e-6, "eg", 0.5, 0.2),
    "launch_expert": (25e-6, "eg", 0.5, 0.3),
    "launch_dense": (8e-6, "eg", 0.5, 0.3),
    "host_plain": (150e-6, "e", 0.7, 0.5),
    "host_other": (500e-6, "e", 0.7, 0.5),
    "host_expert": (400e-6, "e", 0.7, 0.7),
    "step": (8e-4, "e", 0.7, 0.5),
    "overhead": (8e-3, "e", 0.5, 0.5),
    "wait": (2.5, "e", 0.5, 0.7),
    "poll": (5.0, "", 0.3, 0.0),
    "per_token": (2e-6, "e", 0.7, 0.4),
    "burst": (0.05, "e", 0.2, 0.2),
    "stall": (1.0, "e", 0.03, 0.03),
    "replicas": (0.5, "e", 0.5, 0.3),
    "saturation": (1.0, "e", 0.5, 0.3),
    "draft_tpot": (0.65, "", 0.3, 0.0),
    "draft_ttft": (1.2, "", 0.3, 0.0),
}
VERSION = {"floor": 0.05, "expert": 0.05, "wait": 0.04}
"""Deviations of the multipliers of an engine version; larger ones were worse on held-out models."""
LEVELS = {"e": ENGINES, "g": GENERATIONS, "d": DTYPES}
DELTA = 0.75
"""Multipliers' deviations are this share of the above, chosen on folds of held-out models."""
SCALES = (0.10, 0.20)
"""Residuals of log TPOT and log TTFT beyond which a row pulls less."""


class Names:
    """Where each constant is in the vector, with its prior and its deviation."""

    def __init__(self, versions: list[str]) -> None:
        self.versions, self.index, prior, deviation = versions, {}, [], []
        for name, (value, levels, own, delta) in PRIORS.items():
            self.index[name, "base"] = len(prior)
            prior.append(np.log(value))
            deviation.append(own)
            for level in levels:
                for key in LEVELS[level]:
                    self.index[name, key] = len(prior)
                    prior.append(0.0)
                    deviation.append(delta * DELTA)
        for name, delta in VERSION.items():
            for key in versions:
                self.index[name, key] = len(prior)
                prior.append(0.0)
                deviation.append(delta)
        self.prior, self.deviation = np.array(prior), np.array(deviation)

    def value(self, vector, name: str, a: Arrays, dtype=None):
        """The constant of each row."""
        levels, found = PRIORS[name][1], vector[self.index[name, "base"]]
        for level, row in (("e", a.engine), ("g", a.generation), ("d", dtype)):
            if level in levels:
                start = self.index[name, LEVELS[level][0]]
                found = found + vector[start : start + len(LEVELS[level])][row]
        return np.exp(found)

    def version(self, vector, name: str, a: Arrays):
        """The multiplier of each row's engine version."""
        start = self.index[name, self.versions[0]]
        return np.exp(vector[start : start + len(self.versions)][a.version])


def rates_of(names: Names, vector, a: Arrays) -> Rates:
    """Constants of the operators of every row; mirrors Calibration.rates."""

    def value(name, dtype=None):
        return names.value(vector, name, a, dtype)

    floor, expert, count = names.version(vector, "floor", a), names.version(vector, "expert", a), a.counts
    launch = sum(
        count[kind] * value(f"launch_{kind}") for kind in ("plain", "latent", "linear", "index", "dense", "expert")
    )
    host = (count["plain"] + count["dense"]) * value("host_plain")
    host += (count["latent"] + count["linear"] + count["index"]) * value("host_other")
    host += count["expert"] * value("host_expert")
    same = ("context", "latent_context", "decode_compute", "decode_memory", "state", "elementwise", "permute")
    same += ("reduce_latency", "reduce_bytes", "dispatch_latency", "dispatch_bytes", "step")
    return Rates(
        gemm_compute=value("gemm_compute", a.mixer),
        mixer_memory=value("mixer_memory", a.mixer),
        dense_memory=value("dense_memory", a.dense),
        expert_compute=value("expert_compute", a.expert) * expert,
        expert_memory=value("expert_memory", a.expert) * expert,
        imbalance=value("imbalance") ** count["groups"],
        launch=launch * floor,
        host=host * floor,
        **{name: value(name) for name in same},
    )


def times(names: Names, vector, a: Arrays, speculative):
    """TTFT and TPOT of every row in seconds, by the code that predicts single points."""
    rates = rates_of(names, vector, a)
    decode = step_parts(a.works[0], rates, eager=False).total
    alone, mixed, batched = (step_parts(work, rates, eager=True).total for work in a.works[1:])
    steps = Steps(decode, alone, np.where(a.mixes, mixed, alone), batched, a.prompts)

    def value(name):
        return names.value(vector, name, a)

    scale = names.version(vector, "wait", a)
    wait = np.where(a.polls > 0, value("poll") * a.polls, value("wait"))
    serving = Serving(
        overhead=value("overhead") * scale,
        wait=wait * scale,
        per_token=value("per_token"),
        burst=value("burst"),
        stall=value("stall"),
        replicas=value("replicas"),
        saturation=value("saturation"),
        mixes=True,
    )
    tpot = tpot_of(a.loop, steps, serving)
    ttft = ttft_of(a.loop, steps, serving, tpot)
    return ttft * value("draft_ttft") ** speculative, tpot * value("draft_tpot") ** speculative


@dataclass
class Fit:
    """A fitted vector, and which rows it takes to have run a draft."""

    names: Names
    vector: np.ndarray
    speculative: np.ndarray

    def predict(self, a: Arrays):
        """TTFT and TPOT of rows as a table is predicted: nothing is known of drafts."""
        return times(self.names, self.vector, a, np.zeros(len(a.ttft)))


def fit(a: Arrays, versions: list[str], families: np.ndarray) -> Fit:
    """Fit by robust least squares on log times; families weigh by the root of their rows."""
    names = Names(versions)
    size = {family: a.weight[families == family].sum() for family in set(families)}
    share = np.sqrt(np.array([200 / size[family] for family in families]))
    weight = np.sqrt(a.weight * np.minimum(share, 2.0))
    wanted, speculative, vector = (np.log(a.tpot), np.log(a.ttft)), a.speculative.astype(float), names.prior.copy()

    def residuals(vector):
        ttft, tpot = times(names, vector, a, speculative)
        off = [(np.log(tpot) - wanted[0]) / SCALES[0], (np.log(ttft) - wanted[1]) / SCALES[1]]
        soft = [np.sign(r) * np.sqrt(2 * (np.sqrt(1 + r * r) - 1)) * weight for r in off]
        return np.concatenate([*soft, (vector - names.prior) / names.deviation])

    for last in (False, True):
        found = least_squares(residuals, vector, x_scale="jac", max_nfev=60 if last else 25, ftol=1e-5)
        vector = found.x
        on, off = (np.log(times(names, vector, a, np.full(len(a.tpot), flag))[1]) for flag in (1.0, 0.0))
        speculative = (a.speculative & (abs(on - wanted[0]) < abs(off - wanted[0]))).astype(float)
    return Fit(names, vector, speculative)


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
