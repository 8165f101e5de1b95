"""Fit the constants of the predictor on measured rows and write them.

python benchmarks/predict/fit.py MEASURED.csv autotuner/predict/constants.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import effects
import numpy as np
from errors import INTERVAL_QUANTILES, TARGETS, held_out, labels, load
from physics import MEMBERS, PRIORS, Fit, fit, prior_schedules
from rows import READS_ALL_EXPERTS, Arrays, Row
from schedules import Schedules

CLOSED_FORM = {"burst_share": {"base": 0.0613}, "queue_scale": {"base": 0.8987}}
"""Constants that only the closed form has: half the share of requests that wait for each other's prompts, and the share
of an answer that a request waits for where the KV cache is full."""
MIN_EFFECT = 0.004
"""Log multipliers below this are left out of the file; chosen by hand."""


def constants(model: Fit) -> dict[str, dict[str, float]]:
    """Shared values and multipliers, what a group shares included."""
    logs: dict[str, dict[str, float]] = {name: {} for name in PRIORS}
    for (name, key), value in zip(model.labels, model.vector, strict=True):
        for member in MEMBERS.get(name.removeprefix("group "), (name,)):
            if member in logs:
                logs[member][key] = logs[member].get(key, 0.0) + float(value)
    fitted = {
        name: {key: float(np.exp(value)) for key, value in row.items() if key == "base" or abs(value) > MIN_EFFECT}
        for name, row in logs.items()
    }
    return fitted | CLOSED_FORM


def version_multipliers(model: Fit) -> dict[str, dict[str, float]]:
    """Multipliers of engine versions."""
    result: dict[str, dict[str, float]] = {}
    for (name, key), value in zip(model.labels, model.vector, strict=True):
        if name.startswith("version ") and abs(value) > MIN_EFFECT:
            result.setdefault(key, {})[name.removeprefix("version ")] = float(np.exp(value))
    for key in READS_ALL_EXPERTS:
        result.setdefault(key, {})["idle_experts"] = 1.0
    return result


def residual_quantiles(
    rows: Sequence[Row], a: Arrays, keys: Sequence[tuple[str, ...]], versions: list[str], schedules: Schedules
) -> dict[str, dict[str, list[float]]]:
    """Quantiles of held-out log residuals around 80% of them, by how much was known of a model."""
    result: dict[str, dict[str, list[float]]] = {target: {} for target in TARGETS}
    queued = np.array([row.in_flight > row.deployment.memory_plan.sequence_capacity(row.isl + row.osl) for row in rows])
    for name, kind in (("unknown", "model"), ("known", "layout")):
        predicted = held_out(a, keys, versions, labels(rows, kind), schedules)
        for target in TARGETS:
            residual = np.log(getattr(a, target)) - np.log(predicted[target])
            pick = ~queued if target == "ttft" else slice(None)
            levels = INTERVAL_QUANTILES.get(kind, INTERVAL_QUANTILES[""])
            result[target][name] = [float(q) for q in np.quantile(residual[pick], levels)]
            if name == "unknown" and target == "ttft":
                result[target]["queued"] = [float(q) for q in np.quantile(residual[queued], levels)]
    return result


def flow_yaml(value: object) -> str:
    """A value as one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow_yaml(k)}: {flow_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow_yaml(item) for item in value) + "]"
    if isinstance(value, float):
        text = f"{value:.4g}"
        return text if "e" not in text else text.replace("e", "0e" if "." not in text else "e").replace("0e", ".0e")
    return f'"{value}"' if not str(value).isidentifier() else str(value)


def series_effects(model: Fit, a: Arrays, keys: Sequence[tuple[str, ...]]) -> dict[str, dict[str, list[float]]]:
    """What each series differs by, as coefficients of `effect_basis`."""
    result: dict[str, dict[str, list[float]]] = {}
    for target, predicted in zip(TARGETS, model.predict(a), strict=True):
        residual = np.log(getattr(a, target)) - np.log(predicted)
        for series, values in effects.estimate(target, keys, a.basis, residual, a.weight).items():
            row = [round(float(value), 2) + 0.0 for value in values]
            while row and not row[-1]:
                row.pop()
            result.setdefault(series, {})[target] = row
    return result


def main() -> None:
    rows, a, keys, versions = load(Path(sys.argv[1]))
    families = np.array([key[0] for key in keys])
    schedules = prior_schedules(a, versions)
    schedules = prior_schedules(a, versions, fit(a, versions, families, schedules).vector)
    model = fit(a, versions, families, schedules)
    lines = [
        "# Fitted by benchmarks/predict/fit.py; not edited by hand. `constants` are shared values with",
        "# multipliers by engine, GPU generation and dtype; `versions` multipliers of engine versions;",
        "# `models` those among the measured ones; `effects` what measured series differ by (log;",
        "# constant, load, prompt, output, tp, dp, ep); `intervals` quantiles of held-out log residuals around",
        "# 80% of them, of models that were not measured and of layouts of those that were.",
        "constants:",
    ]
    lines += [f"  {name}: {flow_yaml(row)}" for name, row in constants(model).items()]
    lines += [
        "versions:",
        *(f"  {flow_yaml(key)}: {flow_yaml(row)}" for key, row in version_multipliers(model).items()),
    ]
    lines += ["models:", *(f"- {flow_yaml(name)}" for name in sorted({key[0] for key in keys})), "effects:"]
    lines += [f"  {flow_yaml(series)}: {flow_yaml(row)}" for series, row in series_effects(model, a, keys).items()]
    lines.append("intervals:")
    for target, result in residual_quantiles(rows, a, keys, versions, schedules).items():
        lines.append(f"  {target}: {flow_yaml(result)}")
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
