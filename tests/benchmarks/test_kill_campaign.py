"""The campaign of benchmarks/kill, a few instants of it."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "kill" / "campaign.py"


def load():
    spec = importlib.util.spec_from_file_location("kill_campaign", CAMPAIGN)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_finished_trial_is_lost_or_repeated_and_nothing_is_left():
    tally = load().campaign(instants=3, seed=11, trials=2)
    assert sum(tally.kills.values()) == 3
    assert tally.finished_trials == 2 * max(1, tally.finished_trials // 2)
    assert (tally.lost_trials, tally.repeated_trials, tally.leftovers) == (0, 0, [])
