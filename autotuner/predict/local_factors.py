"""Factors on predictions fitted to the user's own runs, three per engine and GPU type, in a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from autotuner.errors import ConfigError
from autotuner.predict.intervals import Interval
from autotuner.predict.predict import Prediction

FACTORS_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class Factors:
    """Measured over predicted time of prefill, decode and the overhead around them; fields are keys of the file.

    `points` load points of `launches` launches were fitted. `before` and `after` are median
    absolute relative errors of TTFT and TPOT, `after` on held-out load points.
    """

    prefill: float
    decode: float
    overhead: float
    points: int
    launches: int
    before: tuple[float, float]
    after: tuple[float, float]
    source: Literal["measured", "simulated"]
    fitted: str
    runs: tuple[str, ...] = ()


def data_folder() -> Path:
    """Folder of this machine's measurements and factors; AUTOTUNE_DATA_HOME moves it."""
    home = os.environ.get("AUTOTUNE_DATA_HOME")
    if home:
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("autotune")


def factors_key(engine: str, gpu: str) -> str:
    return f"{engine} {gpu}"


def all_factors() -> Mapping[str, Factors]:
    """All factors by `factors_key`; empty where nothing was calibrated."""
    path = data_folder() / FACTORS_FILE
    return _read_factors(path, path.stat().st_mtime_ns) if path.is_file() else {}


def factors_for(engine: str, gpu: str) -> Factors | None:
    return all_factors().get(factors_key(engine, gpu))


def save_factors(factors: Mapping[str, Factors]) -> Path:
    """Add factors to the file, replacing those of the same keys, and return its path."""
    path = data_folder() / FACTORS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: asdict(row) for name, row in {**all_factors(), **factors}.items()}
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"version": 1, "factors": rows}, indent=2) + "\n")
    draft.replace(path)
    return path


def delete_factors() -> Path | None:
    """Remove the file of factors; returns its path, None where there was none."""
    path = data_folder() / FACTORS_FILE
    if not path.is_file():
        return None
    path.unlink()
    return path


@cache
def _read_factors(path: Path, modified_ns: int) -> Mapping[str, Factors]:
    try:
        rows: dict[str, dict[str, Any]] = json.loads(path.read_text())["factors"]
        return {name: _parse_factors(row) for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Cannot read the calibrated factors in {path}.",
            why=str(error),
            remedy="Remove it with `autotune calibrate --forget`, then calibrate again.",
        ) from error


def _parse_factors(row: Mapping[str, Any]) -> Factors:
    tuples: dict[str, tuple[Any, ...]] = {name: tuple(row[name]) for name in ("before", "after", "runs")}
    factors = Factors(**{**row, **tuples})
    if not min(factors.prefill, factors.decode, factors.overhead) > 0:
        raise ValueError("a factor is not above 0")
    return factors


def time_parts(prediction: Prediction, single_request: Prediction) -> tuple[float, float, float, float]:
    """Seconds of overhead and prefill, whose sum is TTFT, and of decode and stalls, whose sum is TPOT.

    `single_request` is the same deployment with one request in flight: its TTFT beside its own
    prefill is overhead. Under load the rest of TTFT is waiting for prefills, and the rest of TPOT
    beside a decode iteration is stalls by prefills of other requests.
    """
    overhead = min(max(0.0, single_request.ttft - sum(single_request.prefill.values())), prediction.ttft)
    decode = min(sum(prediction.decode.values()), prediction.tpot)
    return overhead, prediction.ttft - overhead, decode, prediction.tpot - decode


def apply_factors(prediction: Prediction, single_request: Prediction, factors: Factors) -> Prediction:
    """The prediction with these factors on its parts; intervals keep their ratios to the means."""
    overhead, prefill, decode, stalls = time_parts(prediction, single_request)
    ttft = overhead * factors.overhead + prefill * factors.prefill
    tpot = decode * factors.decode + stalls * factors.prefill
    tokens = prediction.throughput / prediction.requests
    in_flight = prediction.requests * (prediction.ttft + (tokens - 1) * prediction.tpot)
    requests = in_flight / (ttft + (tokens - 1) * tpot)
    return replace(
        prediction,
        ttft=ttft,
        tpot=tpot,
        ttft_interval=Interval(*(bound * ttft / prediction.ttft for bound in prediction.ttft_interval)),
        tpot_interval=Interval(*(bound * tpot / prediction.tpot for bound in prediction.tpot_interval)),
        requests=requests,
        throughput=requests * tokens,
        prefill={name: value * factors.prefill for name, value in prediction.prefill.items()},
        decode={name: value * factors.decode for name, value in prediction.decode.items()},
    )
