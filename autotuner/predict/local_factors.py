"""What the user's own runs say about predictions: three factors per engine and GPU type, kept in a file."""

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
    """By how much prefill, decode and everything around them take longer here than predicted.

    `points` load points of `launches` launches were fitted; `before` and `after` are the median
    absolute errors of TTFT and TPOT (shares), `after` on load points the fit had not seen.
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
    """Where what was learnt here is kept; AUTOTUNE_DATA_HOME moves it."""
    home = os.environ.get("AUTOTUNE_DATA_HOME")
    if home:
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("autotune")


def factors_key(engine: str, gpu: str) -> str:
    """Under which name the factors of an engine and a GPU type are kept."""
    return f"{engine} {gpu}"


def all_factors() -> Mapping[str, Factors]:
    """All factors by `key_of`; empty where nothing was calibrated."""
    path = data_folder() / FACTORS_FILE
    return _read_factors(path, path.stat().st_mtime_ns) if path.is_file() else {}


def factors_for(engine: str, gpu: str) -> Factors | None:
    """The factors fitted for an engine and a GPU type here."""
    return all_factors().get(factors_key(engine, gpu))


def save_factors(factors: Mapping[str, Factors]) -> Path:
    """Write factors, replacing those of the same names; returns the file."""
    path = data_folder() / FACTORS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: asdict(row) for name, row in {**all_factors(), **factors}.items()}
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"version": 1, "factors": rows}, indent=2) + "\n")
    draft.replace(path)
    return path


def delete_factors() -> Path | None:
    """Remove all factors; returns the file that held them, None where there was none."""
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
            f"Cannot read what was calibrated in {path}.",
            why=str(error),
            remedy="Remove it with `autotune calibrate --forget`, then calibrate again.",
        ) from error


def _parse_factors(row: Mapping[str, Any]) -> Factors:
    pairs: dict[str, tuple[Any, ...]] = {name: tuple(row[name]) for name in ("before", "after", "runs")}
    made = Factors(**{**row, **pairs})
    if not min(made.prefill, made.decode, made.overhead) > 0:
        raise ValueError("a factor is not above 0")
    return made


def time_parts(prediction: Prediction, single_request: Prediction) -> tuple[float, float, float, float]:
    """A prediction as overhead and prefill, which make TTFT, and decode and stalls, which make TPOT; seconds.

    `alone` is the same deployment with one request in flight: what its TTFT has besides its
    prefill is overhead; what is more under load is waiting for prefills. A token takes a decode
    iteration, and what it takes besides is prefills of others.
    """
    overhead = min(max(0.0, single_request.ttft - sum(single_request.prefill.values())), prediction.ttft)
    decode = min(sum(prediction.decode.values()), prediction.tpot)
    return overhead, prediction.ttft - overhead, decode, prediction.tpot - decode


def apply_factors(prediction: Prediction, single_request: Prediction, factors: Factors) -> Prediction:
    """A prediction as it would be with these factors; intervals keep their ratios."""
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
        ttft_interval=Interval(*(edge * ttft / prediction.ttft for edge in prediction.ttft_interval)),
        tpot_interval=Interval(*(edge * tpot / prediction.tpot for edge in prediction.tpot_interval)),
        requests=requests,
        throughput=requests * tokens,
        prefill={name: value * factors.prefill for name, value in prediction.prefill.items()},
        decode={name: value * factors.decode for name, value in prediction.decode.items()},
    )
