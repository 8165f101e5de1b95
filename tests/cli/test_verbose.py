"""`--verbose` shows what is done, on every command, without secrets."""

from __future__ import annotations

import logging

import pytest
import typer

from autotuner.cli import app, display
from autotuner.config import ConfigLayer, TaskConfigFactory
from tests.servers import QUICK

NAMES = ("autotuner", "httpx", "urllib3")


@pytest.fixture(autouse=True)
def quiet_again():
    """Loggers as they were, for the tests that run after in this process."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in NAMES]
    yield
    for log, level in before:
        log.setLevel(level)
        log.handlers, log.propagate = [], True


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield pytest.param(command, id=" ".join((*path, name)))


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))))
def test_every_command_has_it(command):
    assert "--verbose" in [name for parameter in command.params for name in parameter.opts]


def test_layers_launches_and_decisions_are_logged(autotune, tmp_path):
    choices = "parameters={tp-size: [1, 2], max-running-requests: [64]}"
    load = ("--scenario", "D(1000,200)", "--concurrency", "4", "--set", choices, "-o", str(tmp_path))
    virtual = ("--evaluator", "simulated", "--runtime", "vllm", "--model", "llama-3.1-8b", "--gpu", "H100")
    ended = autotune("run", "--verbose", *virtual, *load)
    assert ended.code == 0, ended.err
    assert "layer vllm-defaults: " in ended.err
    assert "trial 1: launch for baseline" in ended.err
    assert "acquisition value" in ended.err


def test_nothing_is_logged_unless_asked(autotune):
    ended = autotune("config", "show", "--profile", "quick-test")
    assert "layer " not in ended.err


def test_requests_are_shown_without_credentials(autotune, sim):
    ended = autotune("bench", sim, *QUICK, "--concurrency", "2", "--header", "x-key:hunter2", "--verbose")
    assert "httpx: HTTP Request: GET http://127.0.0.1" in ended.err
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize("command", [("bench",), ("run", "--url"), ("config", "show", "--url")])
def test_an_address_with_a_password_is_refused_without_showing_it(autotune, command, tmp_path):
    ended = autotune(*command, "http://user:hunter2@127.0.0.1:9", "--model", "m", "--verbose")
    assert ended.code == 2
    assert "must hold no user name and password" in " ".join(ended.err.split())
    assert "hunter2" not in ended.err + ended.out
    assert not list(tmp_path.rglob("*"))


def test_credentials_in_a_logged_address_are_masked(capsys):
    display.show_log()
    logging.getLogger("httpx").info("GET %s", "http://user:hunter2@a-host/v1/models")
    assert "GET http://***@a-host/v1/models" in capsys.readouterr().err


@pytest.fixture
def registered():
    """A profile made in Python, whose condition needs a number of GPUs that nobody knows here."""
    eight_gpus = {"parameters": {"tp-size": [8]}}
    layer = ConfigLayer("big", eight_gpus, lambda context: context.total_gpus >= 8)  # type: ignore[operator]
    TaskConfigFactory.register_profile("mine", [layer, ConfigLayer("small", {"parameters": {"tp-size": [1]}})])
    yield
    TaskConfigFactory.unregister_profile("mine")


@pytest.mark.usefixtures("registered")
def test_a_condition_that_cannot_be_evaluated_is_named_only_here(autotune):
    quiet = autotune("config", "show", "--profile", "mine", "--runtime", "sim")
    assert quiet.code == 0, quiet.err
    assert "big" not in quiet.out + quiet.err
    shown = " ".join(autotune("config", "show", "--profile", "mine", "--runtime", "sim", "--verbose").err.split())
    assert "profile:mine:big: its condition <lambda>" in shown
    assert "is taken as false: TypeError: '>=' not supported" in shown
