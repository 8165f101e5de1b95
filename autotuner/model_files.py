"""A model's files: its folder, its config.json, and the mounts that a container needs for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner.errors import ConfigError
from autotuner.input_files import expand_home, read_json

if TYPE_CHECKING:  # the simulated engine looks for a model's files too, and would start half as fast with these
    from autotuner.core import Mount
    from autotuner.experiment import Model, Runtime


def is_path(name: str) -> bool:
    """Whether a model is named by a local path rather than a Hugging Face repository."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def path_or_name(model: Model) -> str:
    """The model as passed to an engine: an absolute path for a folder, else the repository name."""
    name = model.id_or_path
    return str(expand_home(name).resolve()) if is_path(name) else name


def check_folder(model: Model) -> None:
    """Raise ConfigError if the model is a path that is not a folder with a config.json that can be read."""
    if not is_path(model.id_or_path):
        return
    folder = Path(path_or_name(model))
    if not folder.is_dir():
        raise ConfigError(
            f"There is no model folder '{model.id_or_path}'.",
            why=f"'{folder}' does not exist or is not a folder.",
            remedy="Correct the path given as --model, or give the model's name on the Hugging Face hub.",
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"'{model.id_or_path}' is not a model folder.",
            why="It has no config.json.",
            remedy="Give the folder that holds config.json, the tokenizer and the weights.",
        )
    if problem := _config_problem(folder / "config.json"):
        raise ConfigError(
            f"The config.json of '{model.id_or_path}' cannot be read.",
            why=problem,
            remedy="Correct it, or copy it from the model again: no engine starts with it.",
        )


def _config_problem(path: Path) -> str | None:
    """Why a config.json is none that an engine can read; None where nothing is known against it."""
    try:
        config = read_json(path)
    except OSError as error:
        return f"{error.strerror}."
    except ValueError as error:
        return str(error)
    return None if isinstance(config, dict) else "It is not a JSON object."


def model_mounts(model: Model) -> tuple[Mount, ...]:
    """Mounts for a model: its folder and the folders its symlinks point to, else the Hugging Face cache."""
    from autotuner.core import Mount

    if not is_path(model.id_or_path):
        return (Mount(str(hugging_face_cache()), "/root/.cache/huggingface", read_only=False, is_model=True),)
    folder = Path(path_or_name(model))
    linked = {path.resolve().parent for path in folder.glob("*") if path.is_symlink()} if folder.is_dir() else set()
    outside = sorted(str(path) for path in linked if not path.is_relative_to(folder))
    return tuple(Mount(path, path, is_model=True) for path in (str(folder), *outside))


def configured_mounts(runtime: Runtime) -> tuple[Mount, ...]:
    """The mounts of `runtime.mounts`, each written HOST:CONTAINER[:rw]."""
    from autotuner.core import Mount

    mounts = []
    for text in runtime.mounts:
        host, _, container = text.removesuffix(":ro").removesuffix(":rw").partition(":")
        mounts.append(Mount(str(expand_home(host)), container, read_only=not text.endswith(":rw")))
    return tuple(mounts)


def config_file(model: Model) -> Path | None:
    """The config.json of a model that is a folder or in the Hugging Face cache; None for any other."""
    return _model_file(model.id_or_path, "config.json")


def tokenizer_file(model: Model) -> Path | None:
    """The tokenizer.json of a model, or of its separate tokenizer; None when it is not on this machine."""
    if model.tokenizer and expand_home(model.tokenizer).is_file():
        return expand_home(model.tokenizer)
    path = _model_file(model.tokenizer or model.id_or_path, "tokenizer.json")
    return path if path is not None and path.is_file() else None


def _model_file(name: str, file: str) -> Path | None:
    if is_path(name):
        return expand_home(name).resolve() / file
    snapshots = hugging_face_cache() / "hub" / ("models--" + name.replace("/", "--")) / "snapshots"
    return next(iter(sorted(snapshots.glob(f"*/{file}"))), None)


def hugging_face_cache() -> Path:
    """Folder in which Hugging Face libraries keep downloads, by HF_HOME."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
