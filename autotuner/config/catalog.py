"""Where profiles and layers are found: ./profiles, the user's configuration folder, and what came with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import autotuner
from autotuner.config import layers
from autotuner.config.layers import ConfigLayer, Profile
from autotuner.errors import ConfigError, unknown

AUTOMATIC = ("base", "deployment", "runtime", "gpu")
"""Folders whose layers take part in every composition where their conditions hold, in this order."""

FOLDERS = {"profile": "", "SLO": "slo", "preset": "presets"}
"""Kind of what is asked for by name -> its folder below a profiles folder."""

REGISTERED: dict[str, Profile] = {}
"""Profiles made in Python; they come before files of the same name."""


def bundled() -> Path:
    """Folder of the profiles that came with the package: inside it when installed, beside it in a checkout."""
    package = Path(autotuner.__file__).parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def user_folder() -> Path:
    """Folder of the user's own profiles; AUTOTUNE_CONFIG_HOME moves what holds it."""
    home = os.environ.get("AUTOTUNE_CONFIG_HOME")
    if home:
        return Path(home) / "profiles"
    from platformdirs import user_config_path

    return user_config_path("autotune") / "profiles"


def search_path() -> list[Path]:
    """Profiles folders that exist, nearest first, each once."""
    found: dict[Path, Path] = {}
    for folder in (Path("profiles"), user_folder(), bundled()):
        if folder.is_dir():
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def files(folder: str) -> dict[str, list[Path]]:
    """Name -> its files in `folder` of each place on the search path, nearest first; bundled names come first."""
    found: dict[str, list[Path]] = {}
    for place in reversed(search_path()):
        for path in sorted((place / folder).iterdir() if (place / folder).is_dir() else ()):
            if path.suffix in (".yaml", ".yml") and path.is_file():
                found.setdefault(path.stem, []).insert(0, path)
    return found


def hidden(kind: str, paths: list[Path]) -> list[str]:
    """Warn where the nearest of `paths` hides one that says something else."""
    nearest, *others = paths
    content = nearest.read_bytes()
    return [
        f"{kind} '{nearest.stem}' from {nearest} hides the one in {path}"
        for path in others
        if path.read_bytes() != content
    ]


def automatic() -> tuple[list[ConfigLayer], list[str]]:
    """All layers that need not be asked for, in order, and warnings."""
    found: list[ConfigLayer] = []
    warnings: list[str] = []
    for folder in AUTOMATIC:
        for paths in files(folder).values():
            found += load(paths[0]).layers
            warnings += hidden("layer file", paths)
    return found, warnings


def load(path: Path) -> Profile:
    """Read a layer file of the search path: its name must be the file's, so that it can be found."""
    profile = layers.load(path)
    if profile.name != path.stem:
        raise ConfigError(
            f"{path} holds '{profile.name}'.",
            why="On the search path a file is found by its name.",
            remedy=f"Rename the file to {profile.name}.yaml, or the profile to {path.stem}.",
        )
    return profile


def find(kind: str, name: str) -> tuple[Profile, list[str]]:
    """Find a profile, an SLO or a preset by name or by path, and warnings; ConfigError with the nearest name."""
    if is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"There is no {kind} file {name}.", remedy="Check the path, or give a name without a folder."
            )
        return layers.load(path), []
    if kind == "profile" and name in REGISTERED:
        return REGISTERED[name], []
    known = files(FOLDERS[kind])
    if name not in known:
        places = ", ".join(str(place / FOLDERS[kind]) for place in search_path())
        raise ConfigError(
            unknown(kind, name, names(kind)),
            why=f"Looked in {places}.",
            remedy="Correct the name, or give the path of a YAML file.",
        )
    return load(known[name][0]), hidden(kind, known[name])


def names(kind: str) -> list[str]:
    """Return the names of everything of a kind."""
    return sorted({*files(FOLDERS[kind]), *(REGISTERED if kind == "profile" else ())})


def describe(kind: str) -> list[dict[str, Any]]:
    """Describe everything of a kind; an unreadable file is listed with its "problem"."""
    entries: dict[str, Mapping[str, Any]] = {}
    for name, paths in files(FOLDERS[kind]).items():
        try:
            entries[name] = load(paths[0]).describe()
        except ConfigError as error:
            entries[name] = {**Profile(name, (), {}, str(paths[0])).describe(), "problem": str(error)}
    if kind == "profile":
        entries.update({name: profile.describe() for name, profile in REGISTERED.items()})
    return [dict(entries[name]) for name in sorted(entries)]


def is_path(name: str) -> bool:
    """Whether `name` is meant as the path of a file."""
    return "/" in name or os.sep in name or name.endswith((".yaml", ".yml"))
