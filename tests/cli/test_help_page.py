"""Help pages: complete, true, and fit to be read and pasted."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from autotuner.cli import app, help_page
from autotuner.cli.config_options import ConfigOptions
from autotuner.cli.examples import EXAMPLES
from autotuner.config import compose
from autotuner.core import LoadPoint


def walk(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield context.command_path, command, context
    for sub, each in getattr(command, "commands", {}).items():
        yield from walk(each, sub, context)


COMMANDS = {path: (command, context) for path, command, context in walk(typer.main.get_command(app), "autotune")}
PARAMETERS = {
    f"{path} {max(parameter.opts, key=len)}": parameter
    for path, (command, context) in COMMANDS.items()
    for parameter in command.get_params(context)
}
PYTHON_TYPES = ("TEXT", "PATH", "FILENAME", "INTEGER", "FLOAT", "STR", "INT", "BOOLEAN")
every_command = pytest.mark.parametrize("path", COMMANDS)


def test_every_parameter_has_help_a_meaningful_value_and_a_default():
    lacking = []
    for name, parameter in PARAMETERS.items():
        takes_value = not help_page.is_flag(parameter)
        explained = help_page.is_argument(parameter) or parameter.metavar
        checks = {
            "help in sentences": re.fullmatch(r"\S.*[.]", parameter.help or ""),
            "a metavar": not takes_value or (explained and help_page.metavar(parameter) not in PYTHON_TYPES),
            "a default, or that there is none": not takes_value or help_page.default_note(parameter),
        }
        lacking += [f"{name}: {check}" for check, held in checks.items() if not held]
    assert not lacking


@every_command
@pytest.mark.parametrize("width", [80, 100])
def test_a_page_fits_its_width(path, width):
    command, context = COMMANDS[path]
    text = re.sub(r"\x1b\[\d+m", "", help_page.render_page(command, context, width))
    assert not [line for line in text.splitlines() if len(line) > width or line != line.rstrip()]


@every_command
def test_a_page_has_groups_and_one_to_three_examples(path):
    command, context = COMMANDS[path]
    assert 1 <= len(help_page.examples_for(context)) <= 3
    assert len(help_page.parameter_groups(command, context)) >= 1
    options = [each for each in command.params if not help_page.is_argument(each)]
    if path != "autotune":
        assert all(each.rich_help_panel for each in options), "every option stands in a group"


def test_there_are_no_examples_of_what_does_not_exist():
    assert set(EXAMPLES) == {path.partition(" ")[2] for path in COMMANDS}


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_are_commands_that_exist_on_lines_that_are_not_wrapped(path):
    root, _ = COMMANDS["autotune"]
    for example in EXAMPLES[path]:
        assert all(len(line) <= 76 for line in example.command.splitlines())
        words = shlex.split(example.command.partition(">")[0].replace("\\\n", " "))
        assert words[0] == "autotune"
        assert f"{' '.join(words)} ".startswith(f"autotune {path} ".replace("  ", " ")) or not path
        command, context, rest = root, None, words
        while hasattr(command, "commands"):
            context = command.make_context(rest[0], rest[1:], parent=context)
            rest = [*context._protected_args, *context.args]
            if not rest:
                break
            command = command.commands[rest[0]]
        else:
            command.make_context(rest[0], rest[1:], parent=context)


@pytest.mark.processes
def test_a_shell_reads_every_example():
    script = "\n".join(example.command for examples in EXAMPLES.values() for example in examples)
    subprocess.run(["bash", "-n", "-c", script], check=True)


def default_of(name: str) -> str:
    """What the page of a command says holds where an option is not given, without what profiles may say."""
    return help_page.default_text(PARAMETERS[name]).removeprefix("from the profile, else ")


def test_the_defaults_of_a_run_and_of_a_load_test_are_those_of_the_composition():
    experiment = compose(ConfigOptions().context()).experiment
    load, search = experiment.benchmark, experiment.optimization
    both = {
        "--scenario": ",".join(load.traffic_scenarios),
        "--concurrency": ",".join(map(str, load.num_concurrency)),
        "--duration": f"{load.duration:g}",
        "--warmup": f"{load.warmup:g}",
        "--max-requests": "no limit" if load.max_requests is None else load.max_requests,
        "--seed": str(load.seed),
        "--slo": "none" if not experiment.slo.terms else "some",
    }
    run = {
        "--runtime": experiment.base_runtime,
        "--deployment": f"docker for a real engine if a daemon answers, else {experiment.deployment.mode}",
        "--objective": search.objective,
        "--strategy": search.strategy,
        "--evaluator": search.evaluator,
        "--max-iterations": str(search.max_iterations),
    }
    bench = {
        "--arrival": load.arrival,
        "--request-timeout": f"{load.request_timeout:g}",
        "--max-in-flight": "no limit" if load.max_in_flight is None else load.max_in_flight,
    }
    assert {name: default_of(f"autotune run {name}") for name in both | run} == both | run
    assert {name: default_of(f"autotune bench {name}") for name in both | bench} == both | bench
    assert experiment.model.id_or_path in default_of("autotune run --model")
    assert experiment.workload().load_points == (LoadPoint("D(100,100)", 1), LoadPoint("D(100,100)", 4))


def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch):
    command, context = COMMANDS["autotune doctor"]
    assert "\x1b" in help_page.render_page(command, context, 80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in help_page.render_page(command, context, 80)


def test_help_is_shown_for_the_width_of_the_terminal_and_no_wider(autotune, monkeypatch):
    for columns, widest in (("80", 80), ("200", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        ended = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": columns})
        assert widest - 10 < max(map(len, ended.stdout.splitlines())) <= widest


@pytest.mark.parametrize("arguments", [(), ("profiles",), ("config",)])
def test_a_group_alone_shows_its_commands(autotune, arguments):
    ended = autotune(*arguments)
    assert "Examples" in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), None),
        (("--resume",), ""),
        (("--resume", "--json"), ""),
        (("--resume", "x"), "x"),
        (("--resume=x", "--json"), "x"),
        (("--output", "y", "--resume"), ""),
        (("--resume", "-o", "y"), ""),
    ],
)
def test_an_option_whose_value_is_in_brackets_may_stand_alone(arguments, value):
    command, parent = COMMANDS["autotune run"]
    assert command.make_context("run", list(arguments), parent=parent.parent).params["resume"] == value
