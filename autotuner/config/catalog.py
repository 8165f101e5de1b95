"""Finds profiles and layers in ./profiles, the user's configuration folder and the package."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import autotuner
from autotuner.config import layers
from autotuner.config.layers import ConfigLayer, Profile
from autotuner.errors import ConfigError, unknown_name_message
from autotuner.input_files import expand_home

AUTOMATIC_FOLDERS = ("base", "deployment", "runtime", "gpu")
"""Folders whose layers apply to every composition in which their conditions hold, in this order."""

FOLDER_BY_KIND = {"profile": "", "SLO": "slo", "preset": "presets"}
"""Kind of named layer file -> its folder below a profiles folder."""

OPTION_BY_KIND = {"profile": "--profile", "SLO": "--slo", "preset": "--layer"}
"""Kind of named layer file -> the command-line option that applies it."""

_PLACE_PATTERN = re.compile(r"(?!--)(.+):(\d+):\d+")

REGISTERED_PROFILES: dict[str, Profile] = {}
"""Profiles registered from Python; they take precedence over files of the same name."""


def bundled_folder() -> Path:
    """Folder of the package's own profiles: inside it when installed, beside it in a checkout."""
    package = Path(autotuner.__file__).parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def user_folder() -> Path:
    """Folder of the user's own profiles; AUTOTUNE_CONFIG_HOME overrides its parent."""
    home = os.environ.get("AUTOTUNE_CONFIG_HOME")
    if home:
        return Path(home) / "profiles"
    from platformdirs import user_config_path

    return user_config_path("autotune") / "profiles"


def search_path() -> list[Path]:
    """Existing profiles folders, highest precedence first, without duplicates."""
    folders: dict[Path, Path] = {}
    for folder in (Path("profiles"), user_folder(), bundled_folder()):
        if folder.is_dir():
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def files_by_name(folder: str) -> dict[str, list[Path]]:
    """Name -> its files in `folder` of each place on the search path, highest precedence first; bundled names first."""
    files: dict[str, list[Path]] = {}
    for place in reversed(search_path()):
        for path in sorted((place / folder).iterdir() if (place / folder).is_dir() else ()):
            if path.suffix in (".yaml", ".yml") and path.is_file():
                files.setdefault(path.stem, []).insert(0, path)
    return files


def shadowing_warnings(kind: str, paths: list[Path]) -> list[str]:
    """Warn where the first of `paths` hides one with different content."""
    used, *hidden = paths
    content = used.read_bytes()
    return [
        f"{kind} '{used.stem}' from {display_path(used)} hides the one in {display_path(path)}"
        for path in hidden
        if path.read_bytes() != content
    ]


def automatic_layers() -> tuple[list[ConfigLayer], list[str]]:
    """The layers of AUTOMATIC_FOLDERS in order, and warnings."""
    automatic: list[ConfigLayer] = []
    warnings: list[str] = []
    for folder in AUTOMATIC_FOLDERS:
        for paths in files_by_name(folder).values():
            automatic += load_catalog_file(paths[0]).layers
            warnings += shadowing_warnings("layer file", paths)
    return automatic, warnings


def load_catalog_file(path: Path) -> Profile:
    """Read a layer file on the search path; ConfigError unless its name is that of the file."""
    profile = layers.load_profile(path)
    if profile.name != path.stem:
        raise ConfigError(
            f"{path} holds '{profile.name}'.",
            why="On the search path a file is found by its name.",
            remedy=f"Rename the file to {profile.name}.yaml, or the profile to {path.stem}.",
        )
    return profile


def find(kind: str, name: str) -> tuple[Profile, list[str]]:
    """Find a profile, an SLO or a preset by name or path, with warnings; ConfigError suggests the nearest name."""
    if looks_like_path(name):
        path = expand_home(name)
        if not path.is_file():
            raise ConfigError(
                f"There is no {kind} file {name}.", remedy="Check the path, or give a name without a folder."
            )
        return layers.load_profile(path), []
    if kind == "profile" and name in REGISTERED_PROFILES:
        return REGISTERED_PROFILES[name], []
    files = files_by_name(FOLDER_BY_KIND[kind])
    if name not in files:
        places = ", ".join(str(place / FOLDER_BY_KIND[kind]) for place in search_path())
        raise ConfigError(
            unknown_name_message(kind, name, names(kind)),
            why=f"Looked in {places}.",
            remedy="Correct the name, or give the path of a YAML file.",
        )
    return load_catalog_file(files[name][0]), shadowing_warnings(kind, files[name])


def find_by_name(name: str, kinds: Sequence[str] = tuple(FOLDER_BY_KIND)) -> dict[str, Profile]:
    """Kind -> the entry of this name, for at least one kind; a path is read as the first of `kinds`."""
    if looks_like_path(name):
        kind = kinds[0]
        return {kind: find(kind, name)[0]}
    matches = {kind: find(kind, name)[0] for kind in kinds if name in names(kind)}
    if not matches:
        *other_kinds, last_kind = kinds
        raise ConfigError(
            unknown_name_message(
                f"{', '.join(other_kinds)} or {last_kind}" if other_kinds else last_kind,
                name,
                [candidate for kind in kinds for candidate in names(kind)],
            ),
            remedy="Correct the name, or give the path of a YAML file; `autotune profiles list` names all there are.",
        )
    return matches


def names(kind: str) -> list[str]:
    return sorted({*files_by_name(FOLDER_BY_KIND[kind]), *(REGISTERED_PROFILES if kind == "profile" else ())})


def describe(kind: str) -> list[dict[str, Any]]:
    """Describe every entry of a kind; an unreadable file is listed with its "problem"."""
    entries: dict[str, Mapping[str, Any]] = {}
    for name, paths in files_by_name(FOLDER_BY_KIND[kind]).items():
        try:
            entries[name] = load_catalog_file(paths[0]).describe()
        except ConfigError as error:
            entries[name] = {**Profile(name, (), {}, str(paths[0])).describe(), "problem": str(error)}
    if kind == "profile":
        entries.update({name: profile.describe() for name, profile in REGISTERED_PROFILES.items()})
    return [{"kind": kind.lower(), **entries[name]} for name in sorted(entries)]


def looks_like_path(name: str) -> bool:
    """Whether `name` is a file path rather than a name."""
    return "/" in name or os.sep in name or name.endswith((".yaml", ".yml"))


def display_path(path: Path | str) -> str:
    """Short form of a path for display: "bundled NAME", "./NAME", "~/NAME", or the full path."""
    place = Path(path).absolute()
    for folder, name in ((bundled_folder(), "bundled "), (Path.cwd(), "./"), (Path.home(), "~/")):
        if place.resolve().is_relative_to(folder.resolve()):
            return f"{name}{place.resolve().relative_to(folder.resolve())}"
    return str(place)


def display_place(place: str) -> str:
    """Short form of a place "FILE:LINE:COLUMN" for display: the file shortened, without the column."""
    match = _PLACE_PATTERN.fullmatch(place)
    return f"{display_path(match[1])}:{match[2]}" if match else place
