"""The user's overrides: files and --set settings, merged in the order given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotuner.config import yaml_documents
from autotuner.config.merging import MergedConfig, nest, split_path
from autotuner.errors import ConfigError

COMMAND_LINE = "the command line"
"""Place of a value that was given as a command-line option."""

SLO_OPTION = "--slo"
"""Place of a term that was given with that option."""

OPTION_BY_PATH = {
    "model.id_or_path": "--model",
    "base_runtime": "--runtime",
    "deployment.mode": "--deployment",
    "deployment.url": "--url",
    "deployment.api_key_env": "--api-key-env",
    "deployment.executor": "--executor",
    "deployment.slurm.partition": "--partition",
    "deployment.slurm.account": "--account",
    "deployment.slurm.time_limit": "--time-limit",
    "hardware.gpu_type": "--gpu",
    "hardware.gpus": "--gpus",
    "hardware.total_gpus": "--total-gpus",
    "hardware.price_per_gpu_hour": "--price",
    "benchmark.traffic_scenarios": "--scenario",
    "benchmark.num_concurrency": "--concurrency",
    "benchmark.request_rates": "--rate",
    **{
        f"{section}.{key}": f"--{key.replace('_', '-')}"
        for section, keys in {
            "benchmark": (
                "arrival",
                "max_in_flight",
                "duration",
                "max_duration",
                "warmup",
                "max_requests",
                "request_timeout",
                "endpoint",
                "seed",
                "find_capacity",
                "trace_scale",
            ),
            "optimization": ("objective", "strategy", "evaluator", "max_iterations", "parallel_trials", "seed"),
        }.items()
        for key in keys
    },
}
"""Dotted path -> the command-line option that sets it."""


TEXT_SECTION = "runtime.env."
"""Settings below this path are text, whatever they look like."""


def written_name(path: str, place: str) -> str:
    """A value as the user wrote it: its option, or its dotted path and the file that holds it."""
    if place == COMMAND_LINE:
        return OPTION_BY_PATH.get(path, path)
    if place == SLO_OPTION:
        return f"{SLO_OPTION} {path.removeprefix('slo.').removesuffix('.threshold')}"
    return f"{path} ({place})" if place else path


class Overrides(dict[str, Any]):
    """Merged overrides; `places` maps each dotted leaf to its file and line, or its --set."""

    def __init__(self, data: Mapping[str, Any], places: Mapping[str, str]) -> None:
        super().__init__(data)
        self.places = dict(places)


def read_overrides(files: Sequence[str | Path] = (), settings: Sequence[str] = ()) -> Overrides:
    """Merge override files, then `path=value` settings; later ones win."""
    merged = MergedConfig()
    for file in files:
        document = yaml_documents.read(Path(file))
        data = yaml_documents.plain_data(
            yaml_documents.root_mapping(document),
            "",
            lambda path, source=document: written_name(path, source.locate(split_path(path))),  # type: ignore[misc]
        )
        if "layers" in data:
            raise ConfigError(
                f"{document.source} is a profile, not an override file.",
                why="It has 'layers'.",
                remedy=f"Use it as a profile: --profile {file}.",
            )
        merged.add(document.source, data, lambda path, source=document: source.locate(split_path(path)))  # type: ignore[misc]
    for setting in settings:
        merged.add(setting, parse_set(setting), lambda path, text=setting: f"--set {text}")  # type: ignore[misc]
    return Overrides(merged.data, merged.places)


def parse_set(text: str) -> dict[str, Any]:
    """Parse `optimization.max_iterations=5`: a dotted path and a YAML value; null removes a parameter or SLO term."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path or not all(path.split(".")):
        raise ConfigError(
            f"Cannot read --set '{text}'.",
            why="It must be a dotted path, an equals sign and a value.",
            remedy="For example: --set optimization.max_iterations=5, or --set 'parameters.tp-size=[1, 2]'.",
        )
    if path.startswith(TEXT_SECTION) and not value.strip().startswith(('"', "'")) and value.strip() != "null":
        return nest(path, value)  # variables are text, and a shell has removed the quotes
    document = yaml_documents.parse(value, source=f"--set {path}")
    return nest(path, yaml_documents.plain_data(document.data, path))
