"""`autotune sla run` over three mockers of known speed, and its plan started as prefill and decode mockers.

All times are many times those that a busy machine adds, and all verdicts far from where they turn.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from autotuner.profiling.session import open_profile

pytestmark = pytest.mark.dynamo
HERE = Path(__file__).parent
COMMAND = Path(sys.executable).parent / "autotune"
BLOCK, BLOCKS, PORT = 64, 384, 18_321
ISL, OSL, RATE = 600, 64, 8.5
TTFT_TARGET, ITL_TARGET = 1.0, 0.036


@dataclass(frozen=True)
class Truth:
    """Seconds of a mocker: TTFT of 1,000 tokens, and ITL of the first and of every further request in flight."""

    gpus: int
    ttft_per_1000_tokens: float
    first_itl: float
    further_itl: float

    def ttft(self, tokens):
        return 0.01 + self.ttft_per_1000_tokens * tokens / 1000

    def itl(self, requests):
        return self.first_itl + self.further_itl * requests

    def requests_within(self, itl):
        most = min(BLOCK * BLOCKS // (ISL + OSL), int((itl - self.first_itl) / self.further_itl))
        return max(0, most)

    def write(self, path):
        lengths, active, contexts = (
            np.linspace(1, 8000, 100),
            np.linspace(0, BLOCK * BLOCKS, 100),
            np.linspace(1, 8000, 100),
        )
        requests = np.maximum(1, active[:, None] / contexts[None, :])
        np.savez(
            path,
            prefill_isl=lengths,
            prefill_ttft_ms=1000 * self.ttft(lengths),
            decode_active_kv_tokens=active,
            decode_context_length=contexts,
            decode_itl=1000 * self.itl(np.minimum(requests, 256)),
        )


TRUTHS = (Truth(1, 0.32, 0.045, 0.0005), Truth(2, 0.23, 0.026, 0.0006), Truth(4, 0.17, 0.014, 0.0004))


def picks_of_the_truth():
    """(GPUs of the prefill worker, GPUs of the decode worker) with the most tokens/s per GPU within the targets."""
    prefill = [truth for truth in TRUTHS if truth.ttft(ISL) <= TTFT_TARGET]
    rates = {}
    for truth in TRUTHS:
        requests = truth.requests_within(ITL_TARGET)
        rates[truth.gpus] = requests / truth.itl(requests) / truth.gpus
    return min(prefill, key=lambda truth: truth.ttft(ISL) * truth.gpus).gpus, max(rates, key=lambda gpus: rates[gpus])


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """The folder with the grid of each truth."""
    folder = tmp_path_factory.mktemp("profiles")
    for truth in TRUTHS:
        truth.write(folder / f"tp{truth.gpus}.npz")
    return folder


@pytest.fixture(scope="module")
def in_a_namespace(dynamo, word_model, profiles):
    """Run a command with mockers inside a network namespace."""
    if shutil.which("unshare") is None:
        pytest.fail("unshare, of util-linux, must give the mockers a network namespace of their own")
    environment = str(dynamo / "serving-1.6.1")
    settings = {"MOCKER_ENVIRONMENT": environment, "MOCKER_MODEL": str(word_model), "MOCKER_PROFILES": str(profiles)}
    settings |= {"MOCKER_BLOCKS": str(BLOCKS)}

    def run(mockers, *command):
        parts = [part for arguments in mockers for part in ("+", *arguments)][1:]
        serving = [sys.executable, str(HERE / "serve_and_run.py"), environment, str(word_model), str(PORT)]
        whole = ["unshare", "-n", *serving, *map(str, parts), "--", str(COMMAND), *map(str, command)]
        return subprocess.run(whole, capture_output=True, text=True, timeout=420, env=os.environ | settings)

    return run


@pytest.fixture(scope="module")
def planned(in_a_namespace, tmp_path_factory):
    """A profile of all three mockers, each launched by `sla run` as a mapping, with its plan for the rate."""
    folder = tmp_path_factory.mktemp("planned") / "profile"
    engine = f"runtime.executable={HERE / 'mocker_engine.py'}"
    command: list[object] = ["sla", "run", "--runtime", "sim", "--gpu", "H100", "--gpus-per-engine", "1,2,4"]
    command += ["--set", engine]
    command += ["--isl", ISL, "--osl", OSL, "--ttft", 1000 * TTFT_TARGET, "--itl", 1000 * ITL_TARGET, "--rate", RATE]
    command += ["--prefill-points", 4, "--decode-points", 2, "--max-context-length", 1000, "--output", folder]
    done = in_a_namespace([], *command)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return open_profile(folder)


def test_the_picks_are_those_of_the_truth(planned):
    selection = planned.selection
    assert (selection.prefill_pick.mapping.gpus, selection.decode_pick.mapping.gpus) == picks_of_the_truth()


@pytest.fixture(scope="module")
def attainment(in_a_namespace, planned, profiles, tmp_path_factory):
    """The share of requests within both targets on the planned mockers, at a multiple of the planned rate."""
    plan = planned.plan

    def measure(multiple):
        common = ["--block-size", BLOCK, "--num-gpu-blocks-override", BLOCKS]
        prefill = ["--planner-profile-data", profiles / f"tp{plan.prefill_gpus}.npz", *common]
        decode = ["--planner-profile-data", profiles / f"tp{plan.decode_gpus}.npz", *common]
        ports = ",".join(str(PORT + 1 + number) for number in range(plan.prefill_workers))
        prefill += ["--disaggregation-mode", "prefill", "--bootstrap-ports", ports, "--no-enable-prefix-caching"]
        prefill += ["--num-workers", plan.prefill_workers, "--max-num-batched-tokens", 32_768]
        decode += ["--disaggregation-mode", "decode", "--num-workers", plan.decode_workers]
        folder = tmp_path_factory.mktemp("bench") / "run"
        command = ["bench", f"http://127.0.0.1:{PORT}", "--scenario", f"D({ISL},{OSL})", "--rate", multiple * RATE]
        command += [
            "--warmup",
            3,
            "--duration",
            15,
            "--max-duration",
            15,
            "--slo",
            f"ttft={TTFT_TARGET},tpot={ITL_TARGET}",
        ]
        done = in_a_namespace([prefill, decode], *command, "--output", folder, "--fail-on", "none", "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        (point,) = json.loads(done.stdout)["load_points"]
        assert not point["metrics"]["errors"]
        return point["metrics"]["attainment"]["value"]

    return measure


def test_the_planned_workers_meet_the_targets_at_the_planned_rate_and_miss_them_beyond(attainment):
    """At 1.3 times the rate prompts wait longer with each second, whatever the machine."""
    assert attainment(1.0) > 0.9
    assert attainment(1.3) < 0.6
