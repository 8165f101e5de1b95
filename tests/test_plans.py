"""What a plan promises, a run keeps: both refuse the same configurations, and engines parse what both accept."""

from __future__ import annotations

import argparse
import os
import random
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from autotuner.config import Composition
from autotuner.core import Value, ignore_progress
from autotuner.engines import engine
from autotuner.engines.flags import Flag, FlagTable
from autotuner.errors import AutotuneError, UsageError
from autotuner.experiment import Experiment
from autotuner.run_setup import RunSetup
from autotuner.session import Session
from autotuner.simulate.settings import SettingsError, build_parser
from tests.factories import experiment

CONFIGURATIONS = int(os.environ.get("AUTOTUNE_TEST_CONFIGURATIONS", "150"))
"""How many random configurations a plan and a run are compared on; `nox -s engines` sets 500."""

ARGUMENTS = 500
"""How many random lists of arguments the simulated engine parses."""

OWN_REASONS = ("cannot be set by", "both set", "is a secret")
"""Why autotune refuses arguments that an engine would take."""

PARAMETER_VALUES: dict[str, list[Any]] = {
    "tp-size": [1, 2, 0, "1", 3],
    "max-running-requests": [8, 64, "8k", None],
    "max-model-len": [2048, 4096, -1],
    "mem-fraction-static": [0.5, 0.9, "90%", 2],
    "kv-cache-dtype": ["fp8", "auto", "fp9"],
    "prefix-caching": [True, False, "on"],
    "max-num-seqs": [4],
    "no-such-flag": [1],
}
FLAG_PATTERNS = ("--{}", "--{}", "--{}", "--no-{}", "-{}", "--{}.key", "--{} 1")
WORDS = ("1", "8", "-2", "0.5", "90%", "fp8", "auto", "true", '{"a": 1}', "{a: 1}", "word", "None")


def random_arguments(rng: random.Random, table: FlagTable) -> tuple[str, ...]:
    """Arguments of which many are right, and others wrong in the ways that people get them wrong."""
    arguments: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        flag = rng.choice(sorted(table.flags.values(), key=lambda flag: flag.name))
        name = rng.choice((flag.name, *flag.aliases)).lstrip("-")
        name = rng.choice((name, name, name, name.replace("-", "_"), name[:-1], f"{name}x"))
        spelling = rng.choice(FLAG_PATTERNS).format(name)
        value = rng.choice([*map(str, flag.choices), *WORDS])
        form = rng.choice(
            ("none",) if flag.type == "bool" and rng.random() < 0.8 else ("next", "next", "equals", "none")
        )
        arguments += {"next": [spelling, value], "equals": [f"{spelling}={value}"], "none": [spelling]}[form]
    return tuple(arguments)


def random_experiments(engine_name: str, count: int, **runtime: str) -> Iterator[Experiment]:
    rng, table = random.Random(0), engine(engine_name).flags()
    for _ in range(count):
        names = rng.sample(sorted(PARAMETER_VALUES), k=rng.choice((0, 1, 1, 2)))
        parameters: dict[str, list[Value]] = {name: [rng.choice(PARAMETER_VALUES[name])] for name in names}
        own = {"extra_args": random_arguments(rng, table), **runtime}
        yield experiment(base_runtime=engine_name, parameters=parameters, runtime=own)


def refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except (AutotuneError, SettingsError) as error:
        return str(error)
    return None


@pytest.fixture
def fake_vllm(tmp_path: Path) -> str:
    """An executable that cannot say its flags."""
    path = tmp_path / "vllm"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def plan_refusal(subject: Experiment) -> str | None:
    return refusal(lambda: RunSetup.from_experiment(subject).plan)


def run_refusal(composition: Composition, output: Path) -> str | None:
    """Why a run ends before its first launch; None if it gets there."""

    def start() -> None:
        setup = Session.start(composition, output).setup
        with setup.executor(ignore_progress):
            setup.create_searcher().ask()

    return refusal(start)


@pytest.mark.processes
def test_a_run_refuses_before_its_first_launch_what_its_plan_refuses_and_nothing_else(
    fake_vllm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = engine("vllm").flags()
    monkeypatch.setattr("autotuner.engines.vllm.Vllm.flags", lambda self, runtime=None: flags)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # takes longer than all checks
    accepted = 0
    for index, subject in enumerate(random_experiments("vllm", CONFIGURATIONS, executable=fake_vllm)):
        planned = plan_refusal(subject)
        accepted += planned is None
        data = subject.model_dump(mode="json", exclude_defaults=True)
        composition = Composition(data, [], {}, subject, [], {}, {}, {})
        assert run_refusal(composition, tmp_path / str(index)) == planned
    assert CONFIGURATIONS / 10 < accepted < CONFIGURATIONS


@pytest.mark.parametrize(("runtime", "count"), [("sim", ARGUMENTS), ("vllm", 100), ("sglang", 50)])
def test_an_engines_parser_takes_the_arguments_that_a_plan_accepts_and_no_others(runtime: str, count: int) -> None:
    subject, accepted = engine(runtime), 0
    parser = build_parser() if runtime == "sim" else parser_of(subject.flags())
    for tried in random_experiments(runtime, count):
        arguments = tried.runtime.extra_args
        if any(re.match(r"-O|--?[^= ]*\.", word) for word in arguments):
            continue  # spellings that vLLM translates before it parses
        if runtime == "vllm":
            arguments = tuple(re.sub(r"^--[^=]*", lambda name: name[0].replace("_", "-"), word) for word in arguments)
        planned = refusal(lambda: subject.check_parameters({}, tried.runtime, subject.flags()))  # noqa: B023
        parsed = refusal(lambda: parser.parse_args([*arguments]))  # noqa: B023
        accepted += planned is None
        if parsed is None:
            assert planned is None or any(reason in planned for reason in OWN_REASONS), tried.runtime.extra_args
        elif not re.search(
            " is not (a|above|between) ", parsed
        ):  # bounds, which only the simulated server checks as it parses
            assert planned is not None, tried.runtime.extra_args
    assert count / 10 < accepted < count


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parser_of(table: FlagTable) -> Parser:
    """The parser that an engine with these flags has."""
    parser = Parser(add_help=False)
    for flag in table.flags.values():
        names = (flag.name, *(alias for alias in flag.aliases if alias != flag.negation))
        options: dict[str, Any] = {"nargs": "+"} if flag.many else {}
        if flag.type == "bool":
            options = {"action": argparse.BooleanOptionalAction if flag.negation else "store_true"}
        elif not flag.many:
            options = {"type": partial(checked_text, flag, nullable=table.engine == "vllm")}
        parser.add_argument(*names, **options)
    return parser


def checked_text(flag: Flag, text: str, *, nullable: bool) -> str:
    if nullable and text == "None" and flag.default is None:
        return text
    if text not in map(str, flag.choices) if flag.choices else flag.json_problem(text):
        raise ValueError(text)
    if not flag.choices and flag.type in ("int", "float"):
        {"int": int, "float": float}[flag.type](text)
    if flag.type == "human-int" and re.fullmatch(r"-?\d+|\d+(\.\d+)?[kKmMgGtT]|auto", text) is None:
        raise ValueError(text)
    return text
