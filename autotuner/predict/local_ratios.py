"""Measured over predicted times of the user's own load points, in a JSON file, and predictions corrected by them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from autotuner.errors import ConfigError, file_error_reason
from autotuner.input_files import read_json
from autotuner.predict.intervals import Interval
from autotuner.predict.log_ratios import MeasuredRatio, RatioPosterior, posterior, regressors
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import Prediction, geometry_name
from autotuner.predict.traffic import Traffic
from autotuner.redaction import write_redacted_json

RATIOS_FILE = "calibration.json"
FORMAT_VERSION = 2
Z_80 = 1.2816
"""Standard deviations to either end of an 80% interval."""


@dataclass(frozen=True, slots=True)
class LocalRatios:
    """Load points of one model on one engine and GPU type; fields are keys of the file.

    `before` and `after` are median absolute relative errors of TTFT and TPOT without and with the others of these
    points, each launch (or, of one launch, each load point) held out; None of a single point.
    """

    ratios: tuple[MeasuredRatio, ...]
    source: Literal["measured", "simulated"] = "measured"
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None
    fitted: str = ""
    runs: tuple[str, ...] = ()

    @property
    def launches(self) -> int:
        return len({ratio.launch for ratio in self.ratios})


def data_folder() -> Path:
    """Folder of this machine's measurements and calibration; AUTOTUNE_DATA_HOME moves it."""
    home = os.environ.get("AUTOTUNE_DATA_HOME")
    if home:
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("autotune")


def ratios_key(deployment: ModelOnGpus) -> str:
    """Engine, GPU type and model: retrained and requantised ones of the same sizes share a key."""
    return f"{deployment.engine} {deployment.gpu.name} {geometry_name(deployment.shape)}"


def all_ratios() -> Mapping[str, LocalRatios]:
    """All ratios by `ratios_key`; empty where nothing was calibrated."""
    path = data_folder() / RATIOS_FILE
    return _read_ratios(path, path.stat().st_mtime_ns) if path.is_file() else {}


def ratios_for(deployment: ModelOnGpus) -> LocalRatios | None:
    return all_ratios().get(ratios_key(deployment))


def save_ratios(ratios: Mapping[str, LocalRatios]) -> Path:
    """Add ratios to the file, replacing those of the same keys, and return its path."""
    path = data_folder() / RATIOS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: asdict(row) for name, row in {**all_ratios(), **ratios}.items()}
    write_redacted_json(path, {"version": FORMAT_VERSION, "ratios": rows}, indent=2)
    return path


def delete_ratios() -> Path | None:
    """Remove the file; returns its path, None where there was none."""
    path = data_folder() / RATIOS_FILE
    if not path.is_file():
        return None
    path.unlink()
    return path


@cache
def _read_ratios(path: Path, modified_ns: int) -> Mapping[str, LocalRatios]:
    try:
        content: dict[str, Any] = read_json(path)
        if "factors" in content and "ratios" not in content:
            return {}  # factors of earlier versions, of other constants
        version = content["version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"it has format {version}, and this version of autotune reads {FORMAT_VERSION}")
        return {name: _parse_row(row) for name, row in content["ratios"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Cannot read the calibration in {path}.",
            why=file_error_reason(error),
            remedy="Remove it with `autotune calibrate --forget`, then calibrate again.",
        ) from error


def _parse_row(row: Mapping[str, Any]) -> LocalRatios:
    ratios = tuple(
        MeasuredRatio(launch, tuple(float(value) for value in position), float(ttft), float(tpot))
        for launch, position, ttft, tpot in row["ratios"]
    )
    if not ratios or not all(math.isfinite(value) for ratio in ratios for value in (*ratio.position, *ratio[2:])):
        raise ValueError("a ratio is not a number")
    pairs = {name: tuple(row[name]) if row[name] else None for name in ("before", "after")}
    return LocalRatios(ratios, row["source"], fitted=row["fitted"], runs=tuple(row["runs"]), **pairs)


def position_of(deployment: ModelOnGpus, traffic: Traffic, concurrency: float) -> tuple[float, ...]:
    """The regressors of a load point of this deployment."""
    return regressors(concurrency, traffic.isl, traffic.osl, deployment.layout.tp * deployment.layout.dp)


def measured_ratio(
    launch: str,
    deployment: ModelOnGpus,
    traffic: Traffic,
    concurrency: float,
    prediction: Prediction,
    ttft: float,
    tpot: float,
) -> MeasuredRatio:
    """The ratio of measured mean TTFT and TPOT, in seconds, to their prediction by the bundled constants."""
    position = position_of(deployment, traffic, concurrency)
    return MeasuredRatio(launch, position, math.log(ttft / prediction.ttft), math.log(tpot / prediction.tpot))


class Correction:
    """What load points measured here say of a deployment's other predictions."""

    def __init__(self, ratios: Sequence[MeasuredRatio], deployment: ModelOnGpus, traffic: Traffic) -> None:
        self.ratios = tuple(ratios)
        self._deployment, self._traffic = deployment, traffic
        self._posteriors: dict[str, RatioPosterior] = {
            metric: posterior(self.ratios, metric) for metric in ("ttft", "tpot")
        }

    def apply(
        self, prediction: Prediction, concurrency: float, offsets: Mapping[str, float] | None = None
    ) -> Prediction:
        """The corrected prediction; its intervals are those of the posterior, or shifted ones if narrower.

        The ratios are those to the simulated schedule of our own load generator. `offsets` are the logs of its TTFT and
        TPOT over those of a prediction that was made otherwise.
        """
        position, fields = position_of(self._deployment, self._traffic, concurrency), dict[str, Any]()
        for metric, after in self._posteriors.items():
            mean, deviation = after.at(position)
            mean += offsets[metric] if offsets else 0.0
            factor, margin = math.exp(mean), math.exp(Z_80 * deviation)
            value, bundled = getattr(prediction, metric) * factor, getattr(prediction, f"{metric}_interval")
            shifted = Interval(min(value, bundled.lower * factor), max(value, bundled.upper * factor))
            is_narrower = shifted.upper < margin**2 * shifted.lower  # one of both: mixed ends would hold less than 80%
            interval = shifted if is_narrower else Interval(value / margin, value * margin)
            parts = {name: part * factor for name, part in getattr(prediction, f"{metric}_parts").items()}
            fields |= {metric: value, f"{metric}_interval": interval, f"{metric}_parts": parts}
        tokens = prediction.throughput / prediction.requests
        in_flight = prediction.requests * (prediction.ttft + (tokens - 1) * prediction.tpot)
        requests = in_flight / (fields["ttft"] + (tokens - 1) * fields["tpot"])
        return replace(prediction, **fields, requests=requests, throughput=requests * tokens)


def held_out_errors(
    ratios: Sequence[MeasuredRatio],
) -> tuple[tuple[float, float], tuple[float, float]] | tuple[None, None]:
    """Median absolute relative errors of TTFT and TPOT before and after correction, as in `LocalRatios`."""
    import statistics

    folds = {ratio.launch: ratio.launch for ratio in ratios}
    groups = [[ratio for ratio in ratios if ratio.launch == launch] for launch in folds]
    if len(groups) == 1:
        groups = [[ratio] for ratio in ratios]
    if len(groups) < 2:
        return None, None
    before: dict[str, list[float]] = {"ttft": [], "tpot": []}
    after: dict[str, list[float]] = {"ttft": [], "tpot": []}
    for group in groups:
        others = [ratio for ratio in ratios if ratio not in group]
        for metric in before:
            fitted = posterior(others, metric)
            for ratio in group:
                log_ratio = getattr(ratio, metric)
                before[metric].append(abs(math.exp(-log_ratio) - 1))
                after[metric].append(abs(math.exp(fitted.at(ratio.position)[0] - log_ratio) - 1))
    medians = [tuple(statistics.median(errors[metric]) for metric in before) for errors in (before, after)]
    return (medians[0][0], medians[0][1]), (medians[1][0], medians[1][1])
