"""The settings of Dynamo's SLA planner: checked, completed with the defaults of a release, and as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from autotuner.errors import ConfigError, unknown_name_message

RELEASES = ("1.6.1", "1.0.2", "0.9.1")
"""Releases of Dynamo whose planners are known, newest first."""

PROFILE_FOLDER = "/workspace/profiling_results"
"""Where the ConfigMap with the profile is mounted."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "object": (dict,),
}


def planner_settings(
    release: str,
    *,
    backend: str,
    model: str,
    ttft_ms: float | None,
    itl_ms: float | None,
    prefill_gpus: int | None = None,
    decode_gpus: int | None = None,
    max_gpu_budget: int | None = None,
    aggregated: bool = False,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The complete settings of a planner that holds an SLA with measured profiles; `given` are the user's own.

    GPUs are those of one engine, times milliseconds. What is None keeps the planner's default. Keys are
    those of `release`, also in `given`, whose values win; ConfigError names a key or a value that the
    planner would not take.
    """
    units = "_ms" if release == "1.6.1" else ""
    settings: dict[str, Any] = {
        "backend": backend,
        "model_name": model,
        f"ttft{units}": ttft_ms,
        f"itl{units}": itl_ms,
        "prefill_engine_num_gpu": prefill_gpus,
        "decode_engine_num_gpu": decode_gpus,
        "max_gpu_budget": max_gpu_budget,
        "profile_results_dir": PROFILE_FOLDER,
        "pre_deployment_sweeping_mode": "thorough",
        "optimization_target": "sla",
        "mode": "agg" if aggregated else None,
    }
    rows = _rows(release)
    chosen = {name: value for name, value in settings.items() if value is not None and name in rows}
    checked = check_planner_settings(given or {}, release)
    defaults = {name: row["default"] for name, row in rows.items() if "default" in row}
    return defaults | chosen | checked


def check_planner_settings(given: Mapping[str, Any], release: str) -> dict[str, Any]:
    """The settings as a release spells them, from camelCase or snake_case; ConfigError for what it would not take."""
    rows = _rows(release)
    checked = {}
    for spelling, value in given.items():
        name = snake_case(str(spelling))
        if name not in rows:
            raise ConfigError(
                unknown_name_message(f"setting of the planner of Dynamo {release}", str(spelling), rows),
                remedy="Correct the key below `planner`.",
            )
        problem = _problem(rows[name], value)
        if problem:
            raise ConfigError(f"The planner's {name} is {value!r}.", why=f"It {problem}.", remedy="Correct the value.")
        checked[name] = value
    return checked


def planner_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The command-line options of the 0.9 planner: those that differ from its defaults, and the targets."""
    rows = _rows("0.9.1")
    always = {"backend", "ttft", "itl", "prefill_engine_num_gpu", "decode_engine_num_gpu", "profile_results_dir"}
    arguments = []
    for name, value in settings.items():
        if value is None or (name not in always and value == rows[name].get("default")):
            continue
        option = "--" + name.replace("_", "-")
        if rows[name]["type"] == "bool":
            arguments += [option] if value else []
        else:
            arguments.append(f"{option}={value:g}" if isinstance(value, float) else f"{option}={value}")
    return arguments


def check_release(release: str) -> None:
    """ConfigError for a release of Dynamo that is not among RELEASES."""
    if release not in RELEASES:
        raise ConfigError(unknown_name_message("release of Dynamo", release, RELEASES))


def snake_case(name: str) -> str:
    """`maxContextLength` and `max-context-length` as `max_context_length`."""
    parts: list[str] = []
    for position, letter in enumerate(name):
        starts_word = letter.isupper() and position > 0 and not name[position - 1].isupper()
        parts.append(("_" if starts_word and parts[-1:] != ["_"] else "") + letter.lower())
    return "".join(parts).replace("-", "_")


def _problem(row: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value for a row of the settings file; None if nothing is."""
    if value is None:
        return None if row.get("nullable") else "must not be empty"
    if not isinstance(value, _TYPES[row["type"]]) or (isinstance(value, bool) and row["type"] != "bool"):
        return f"must be of type {row['type']}"
    choices: Sequence[Any] = row.get("choices", ())
    if choices and value not in choices:
        return f"must be one of {', '.join(map(str, choices))}"
    if "at-least" in row and value < row["at-least"]:
        return f"must be at least {row['at-least']}"
    if "at-most" in row and value > row["at-most"]:
        return f"must be at most {row['at-most']}"
    if "above" in row and value <= row["above"]:
        return f"must be above {row['above']}"
    return None


def _rows(release: str) -> Mapping[str, Mapping[str, Any]]:
    check_release(release)
    rows: Mapping[str, Mapping[str, Any]] = _settings_file()[release]
    return rows


@lru_cache(maxsize=1)
def _settings_file() -> Mapping[str, Any]:
    import yaml

    text = resources.files("autotuner.deploy.dynamo").joinpath("planner_settings.yaml").read_text("utf-8")
    content: Mapping[str, Any] = yaml.safe_load(text)
    return content
