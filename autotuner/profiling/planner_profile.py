"""The profile as the Dynamo planner reads it: arrays in milliseconds, in .npz or JSON files; and their checks."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import ConfigError, pluralize
from autotuner.input_files import read_json
from autotuner.profiling.measurements import CONSISTENCY_BOUNDS
from autotuner.profiling.points import DecodePoint, PrefillPoint
from autotuner.profiling.request import MIN_DECODE_POINTS, MIN_PREFILL_POINTS

NPZ_FILE = "raw_data.npz"
PREFILL_FOLDER, DECODE_FOLDER = "selected_prefill_interpolation", "selected_decode_interpolation"
PREFILL_JSON, DECODE_JSON = "prefill_raw_data.json", "decode_raw_data.json"
PREFILL_KEYS = ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu")
DECODE_KEYS = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
MIN_SURFACE_POINTS = 4
Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlannerProfile:
    """The arrays of one prefill and one decode worker.

    `prefill_isl` is in tokens, ascending, `prefill_ttft` and `z_itl` in milliseconds, `*_thpt_per_gpu` in tokens/s per
    GPU. `x_kv_usage` is the share of the `max_kv_tokens` of a worker in use, `y_context_length` in tokens.
    """

    prefill_isl: Array
    prefill_ttft: Array
    prefill_thpt_per_gpu: Array
    x_kv_usage: Array
    y_context_length: Array
    z_itl: Array
    z_thpt_per_gpu: Array
    max_kv_tokens: int

    @classmethod
    def from_points(
        cls, prefill: Sequence[PrefillPoint], decode: Sequence[DecodePoint], kv_tokens: int
    ) -> PlannerProfile:
        """The profile of the points that are not rejected, prompt lengths ascending."""
        lengths = sorted((point for point in prefill if point.rejection is None), key=lambda point: point.prompt_tokens)
        surface = [point for point in decode if point.rejection is None]
        return cls(
            np.array([point.prompt_tokens for point in lengths], dtype=float),
            np.array([1000 * point.ttft for point in lengths]),
            np.array([point.throughput_per_gpu for point in lengths]),
            np.array([point.kv_usage for point in surface]),
            np.array([point.context_length for point in surface]),
            np.array([1000 * point.itl for point in surface]),
            np.array([point.throughput_per_gpu for point in surface]),
            kv_tokens,
        )

    @classmethod
    def read(cls, prefill_folder: Path, decode_folder: Path | None = None) -> PlannerProfile:
        """Read the files of a folder, or the prefill files of one and the decode files of another.

        As the planner does, a folder's .npz is read before its JSON. ConfigError if files are missing or damaged.
        """
        prefill = _read_part(prefill_folder, PREFILL_FOLDER, PREFILL_JSON, PREFILL_KEYS)
        decode = _read_part(
            decode_folder or prefill_folder, DECODE_FOLDER, DECODE_JSON, (*DECODE_KEYS, "max_kv_tokens")
        )
        max_kv_tokens = decode.pop("max_kv_tokens").ravel()
        if len(max_kv_tokens) != 1 or not max_kv_tokens[0] >= 1:
            raise ConfigError("max_kv_tokens of the decode profile is not one number of at least 1.")
        return cls(**prefill, **decode, max_kv_tokens=int(max_kv_tokens[0]))

    @property
    def requests(self) -> Array:
        """Requests in flight at each decode point."""
        return np.rint(self.x_kv_usage * self.max_kv_tokens / self.y_context_length)

    def prefill_json(self) -> dict[str, Any]:
        """The content of prefill_raw_data.json."""
        lists = {name: getattr(self, name).tolist() for name in PREFILL_KEYS}
        return {**lists, "prefill_isl": [int(value) for value in self.prefill_isl]}

    def decode_json(self) -> dict[str, Any]:
        """The content of decode_raw_data.json."""
        return {**{name: getattr(self, name).tolist() for name in DECODE_KEYS}, "max_kv_tokens": self.max_kv_tokens}

    def write(self, folder: Path, file_name: str = NPZ_FILE) -> None:
        """Write the .npz of both phases into their folders below `folder`."""
        for name in (PREFILL_FOLDER, DECODE_FOLDER):
            (folder / name).mkdir(parents=True, exist_ok=True)
        prefill = {name: getattr(self, name) for name in PREFILL_KEYS}
        np.savez(folder / PREFILL_FOLDER / file_name, **{**prefill, "prefill_isl": self.prefill_isl.astype(np.int64)})
        decode = {name: getattr(self, name) for name in DECODE_KEYS}
        np.savez(folder / DECODE_FOLDER / file_name, **decode, max_kv_tokens=np.array([self.max_kv_tokens], np.int64))

    def problems(self) -> list[str]:
        """What makes a planner fail or interpolate nonsense; empty for a profile that it can use."""
        problems = [*_array_problems(self, PREFILL_KEYS), *_array_problems(self, DECODE_KEYS)]
        if problems:
            return problems
        if len(self.prefill_isl) < MIN_PREFILL_POINTS:
            problems.append(
                f"The planner's curve needs {MIN_PREFILL_POINTS} prefill points, and there are {len(self.prefill_isl)}"
            )
        if (np.diff(self.prefill_isl) <= 0).any():
            problems.append("prefill_isl is not ascending, or names a length twice")
        contexts = len(set(self.y_context_length.tolist()))
        if len(self.z_itl) < MIN_SURFACE_POINTS or contexts < MIN_DECODE_POINTS:
            problems.append(
                f"The planner's surface needs {MIN_SURFACE_POINTS} decode points of {MIN_DECODE_POINTS} context "
                f"lengths, and there are {len(self.z_itl)} of {contexts}"
            )
        elif _are_on_one_line(self.x_kv_usage, self.y_context_length / self.y_context_length.max()):
            problems.append("all decode points lie on one line of KV usage and context length, which is no surface")
        if (self.x_kv_usage > 1).any():
            problems.append(f"x_kv_usage reaches {self.x_kv_usage.max():.2f}, more than the whole KV cache")
        return problems

    def inconsistent_points(self, decode_gpus: int | None = None) -> list[tuple[int, float]]:
        """(Requests in flight, throughput x ITL / requests) of decode points that the engine cannot have run so.

        By Little's law the figure is 1. `decode_gpus` are the GPUs of a decode worker, by default the number that
        brings the points with the fewest requests nearest to 1.
        """
        requests = np.maximum(self.requests, 1)
        per_gpu = self.z_thpt_per_gpu * self.z_itl / 1000 / requests
        few = per_gpu[requests <= np.quantile(requests, 0.5)]
        gpus = decode_gpus or max(1, round(1 / max(float(np.median(few)), 1e-9)))
        low, high = CONSISTENCY_BOUNDS
        values = per_gpu * gpus
        return [
            (int(number), float(value))
            for number, value in zip(requests, values, strict=True)
            if not low <= value <= high
        ]


def _array_problems(profile: PlannerProfile, names: Sequence[str]) -> list[str]:
    arrays = {name: getattr(profile, name) for name in names}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        return [f"The arrays differ in length: {', '.join(f'{name} {count}' for name, count in lengths.items())}"]
    problems = []
    for name, values in arrays.items():
        holes = int((~np.isfinite(values)).sum())
        if holes:
            problems.append(f"{name} has {pluralize(holes, 'hole')}: values that are no numbers")
        elif len(values) and values.min() <= 0:
            problems.append(f"{name} has {int((values <= 0).sum())} values that are not above 0")
    return problems


def _are_on_one_line(xs: Array, ys: Array) -> bool:
    """Whether points span no area."""
    centred = np.stack([xs - xs.mean(), ys - ys.mean()], axis=1)
    singular = np.linalg.svd(centred, compute_uv=False)
    return bool(singular[-1] < 1e-9 * max(singular[0], 1e-12))


def _read_part(folder: Path, subfolder: str, json_file: str, keys: Sequence[str]) -> dict[str, Array]:
    npz = next((path for path in (folder / subfolder / NPZ_FILE, folder / NPZ_FILE) if path.is_file()), None)
    path = npz or folder / json_file
    try:
        if npz is not None:
            with npz.open("rb") as file, np.load(file, allow_pickle=False) as data:
                return _arrays(dict(data), keys)
        return _arrays(read_json(path), keys)
    except FileNotFoundError as error:
        raise ConfigError(
            f"'{folder}' has no profile of this phase.",
            why=f"There is neither {subfolder}/{NPZ_FILE} nor {json_file}.",
            remedy="Name a folder that `autotune sla run` or Dynamo's profiler wrote.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        why = f"It has no {error}." if isinstance(error, KeyError) else f"{error}."
        if isinstance(error, zipfile.BadZipFile | EOFError):
            why = "It is no .npz file, or was cut off."
        raise ConfigError(
            f"The profile '{path}' cannot be read.", why=why, remedy="Copy it again, or profile again."
        ) from error


def _arrays(data: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Array]:
    return {key: np.asarray(data[key], dtype=float) for key in keys}
