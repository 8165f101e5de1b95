"""A server's arguments as the engine's own configuration file, and the command that reads it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from autotuner.core import ServerSpec
from autotuner.engines.trtllm import OPTIONS_VARIABLE, OPTIONS_WRAPPER
from autotuner.errors import UsageError

KEPT_FLAGS: Mapping[str, tuple[str, ...]] = {"sglang": ("--model-path",)}
"""Flags that have to stay on the command line: `sglang serve` looks for the model there before it reads the file."""

OPTIONS_FLAG = "--extra_llm_api_options"
_CONFIG_FLAG = "--config"
_FILE_NAMES: Mapping[str, str] = {"vllm": "vllm.yaml", "sglang": "sglang.yaml", "trtllm": "trtllm.yaml"}
_ARGUMENT = re.compile(r"--?[A-Za-z]")
_SHORT_ARGUMENT = re.compile(r"-[A-Za-z]")

FileValue = bool | int | float | str | list[bool | int | float | str]


@dataclass(frozen=True)
class ConfigurationFile:
    """A file in the engine's own form, and the server whose command reads it from the working folder."""

    name: str
    text: str
    server: ServerSpec


def configuration_file(runtime: str, server: ServerSpec) -> ConfigurationFile:
    """The server's settings as a file that its engine reads; UsageError for an engine that reads none.

    vLLM and SGLang turn `--config FILE` into the same flags. TensorRT-LLM's file has the options of its LLM API
    alone, so its flags stay on the command line.
    """
    if runtime not in _FILE_NAMES:
        raise UsageError(
            f"{runtime} reads no configuration file.", remedy=f"Engines that do: {', '.join(_FILE_NAMES)}."
        )
    name = _FILE_NAMES[runtime]
    if runtime == "trtllm":
        return _options_file(name, server)
    first = next((index for index, word in enumerate(server.argv) if word.startswith("--")), len(server.argv))
    settings, remaining = _as_settings(server.argv[first:], KEPT_FLAGS.get(runtime, ()))
    text: str = yaml.safe_dump(settings, sort_keys=False, width=120) if settings else "{}\n"
    argv = (*server.argv[:first], _CONFIG_FLAG, name, *remaining)
    return ConfigurationFile(name, text, _with_command(server, argv))


def _options_file(name: str, server: ServerSpec) -> ConfigurationFile:
    options = json.loads(server.env.get(OPTIONS_VARIABLE, "{}"))
    text: str = yaml.safe_dump(options, sort_keys=False, width=120)
    argv = tuple(word for word in server.argv if word != OPTIONS_WRAPPER)
    if len(argv) < len(server.argv):  # bash -c SCRIPT: the command itself follows
        argv = argv[2:]
    env = {key: value for key, value in server.env.items() if key != OPTIONS_VARIABLE}
    return ConfigurationFile(name, text, _with_command(server, (*argv, OPTIONS_FLAG, name), env))


def _with_command(server: ServerSpec, argv: Sequence[str], env: Mapping[str, str] | None = None) -> ServerSpec:
    return replace(server, argv=tuple(argv), env=server.env if env is None else env)


def _as_settings(words: Sequence[str], kept: Sequence[str]) -> tuple[dict[str, FileValue], tuple[str, ...]]:
    """Flags as keys of a file, and the words that stay: flags of `kept`, short ones, and those given repeatedly."""
    groups: list[list[str]] = []
    for word in words:
        if _ARGUMENT.match(word) or not groups:
            flag, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            groups.append([flag, *([value] if equals else [])])
        else:
            groups[-1].append(word)
    counts = Counter(group[0] for group in groups)
    settings: dict[str, FileValue] = {}
    remaining: list[str] = []
    for flag, *values in groups:
        if flag in kept or counts[flag] > 1 or _SHORT_ARGUMENT.match(flag):
            remaining += [flag, *values]
        else:
            items = [_scalar(value) for value in values]
            settings[flag.removeprefix("--")] = items if len(items) > 1 else (items[0] if items else True)
    return settings, tuple(remaining)


def _scalar(word: str) -> int | float | str:
    """A number where it is written back as the same word, which the engine then reads; else the word."""
    for kind in (int, float):
        try:
            if str(kind(word)) == word and word not in ("nan", "inf", "-inf"):
                return kind(word)
        except ValueError:
            continue
    return word
