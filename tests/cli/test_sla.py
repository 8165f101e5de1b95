"""`autotune sla` as a user types it."""

import json
import shutil

import pytest

from autotuner.cli.sla_options import parse_gpu_counts, powers_of_two
from autotuner.errors import UsageError
from autotuner.profiling.pick import chosen_pair, write_pick
from autotuner.profiling.request import SlaRequest
from autotuner.profiling.session import open_profile, prepare, profile

RUN = (
    *("sla", "run", "--backend", "vllm", "--model", "llama-3.1-8b", "--gpu", "H100", "--use-ai-configurator"),
    *("--isl", "600", "--osl", "40", "--prefill-points", "5", "--decode-points", "3"),
)


@pytest.fixture(scope="module")
def finished_profile(tmp_path_factory):
    """The folder of a predicted profile, without its pictures."""
    request = SlaRequest(
        runtime="vllm",
        model="llama-3.1-8b",
        gpu="H100",
        evaluator="predicted",
        isl=600,
        osl=40,
        prefill_points=5,
        decode_points=3,
        gpus_per_engine=(1, 2),
        rate=30.0,
    )
    folder = tmp_path_factory.mktemp("finished") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
        profile(prepare(request), folder)
    return folder


@pytest.fixture
def profiled(autotune, finished_profile, tmp_path):
    """The command, in a folder with the finished profile `p`."""
    shutil.copytree(finished_profile, tmp_path / "p")
    return autotune


def test_a_profile_says_which_workers_it_chose_and_how_many_a_rate_needs(profiled, monkeypatch):
    monkeypatch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
    ended = profiled(*RUN, "--max-num-gpus", "2", "--rate", "30", "-o", "p")
    assert ended.code == 0, ended.err
    for words in ("predicted", "prefill worker", "decode worker", "For 30 requests/s", "left-out point"):
        assert words in ended.out
    assert "*  TP1" in ended.out


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_finished_profile_is_shown_again_within_the_terminal(profiled, columns):
    autotune = profiled
    ended = autotune("sla", "show", "p", columns=columns)
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= int(columns)
    assert autotune("sla", "show", "p", "--json").data["complete"]


def test_workers_are_planned_from_a_profile_and_priced(profiled):
    autotune = profiled
    plan = autotune("sla", "plan", "p", "--rate", "60", "--price", "H100=2", "--json")
    assert plan.code == 0
    assert plan.data["prefill_workers"] >= 1
    assert plan.data["price_per_hour"] == 2 * plan.data["gpus"]
    short = autotune("sla", "plan", "p", "--rate", "6000", "--total-gpus", "8")
    assert short.code == 1
    assert "do not sustain" in short.err


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("release", ["0.9", "1.6"])
def test_a_plan_follows_the_arithmetic_of_a_release_of_dynamos_planner(profiled, release, columns):
    asked = ("sla", "plan", "p", "p", "--rate", "60", "--like", f"dynamo-{release}", "--price", "H100=2")
    dynamo = profiled(*asked, columns=columns)
    assert dynamo.code == 0
    assert f"Dynamo's {release} planner starts" in dynamo.out
    assert "per hour" in dynamo.out
    assert max(map(len, dynamo.out.splitlines())) <= int(columns)
    data = profiled(*asked, "--json").data
    assert data["prefill_workers"] >= 1
    assert data["price_per_hour"] >= 4


def test_a_budget_that_holds_no_worker_of_each_kind_is_no_plan(profiled):
    for command in (
        ("sla", "plan", "p", "--total-gpus", "1"),
        ("sla", "plan", "p", "--total-gpus", "1", "--like", "dynamo-1.6"),
    ):
        plan = profiled(*command)
        assert plan.code == 1
        assert "1 GPU cannot hold a prefill and a decode worker" in " ".join(plan.err.split())


def test_a_budget_that_is_too_small_ends_a_profile_with_one_and_keeps_its_points(autotune, monkeypatch):
    monkeypatch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
    ended = autotune(*RUN, "--gpus-per-engine", "1", "--rate", "5", "--total-gpus", "1", "-o", "p")
    assert ended.code == 1
    assert "prefill worker" in ended.out
    assert "cannot hold" in ended.err
    assert autotune("sla", "check", "p").code == 0


def test_what_was_picked_is_shown_and_asked_for_by_name(profiled, tmp_path):
    assert "Pick workers with `autotune ui p`" in " ".join(profiled("sla", "apply", "p", "--picked").err.split())
    outcome = open_profile(tmp_path / "p")
    pair = chosen_pair(outcome)
    assert pair is not None
    write_pick(outcome, pair)
    assert "Picked at" in profiled("sla", "show", "p").out


def test_a_port_of_a_page_that_was_not_asked_for_is_an_error(autotune):
    ended = autotune(*RUN, "--webui-port", "8000")
    assert ended.code == 2
    assert "Add --pick-with-webui" in ended.err


def test_a_target_that_one_idle_worker_misses_is_no_plan(profiled):
    asked = ("sla", "plan", "p", "--rate", "1", "--itl", "0.5")
    plan = profiled(*asked)
    assert plan.code == 1
    assert "meets the target on ITL" in " ".join(plan.err.split())
    dynamo = profiled(*asked, "--like", "dynamo-1.6")
    assert dynamo.code == 0
    assert "starts the workers nevertheless" in " ".join((dynamo.out + dynamo.err).split())


def test_a_profile_is_checked_and_compared_with_another(profiled):
    autotune = profiled
    assert "every point agrees with itself" in autotune("sla", "check", "p").out
    same = autotune("sla", "compare", "p", "p", "--json").data
    assert same["ITL"]["points"] > 0
    assert same["ITL"]["largest_difference"] < 0.2


def test_a_dry_run_names_the_launches_and_starts_none(autotune, tmp_path):
    ended = autotune(*RUN, "--max-num-gpus", "4", "--dry-run")
    assert ended.code == 0
    assert "3 launches at most" in ended.out
    assert not list(tmp_path.iterdir())
    data = autotune(*RUN, "--gpus-per-engine", "1,3", "--dry-run", "--json").data
    assert [row["mapping"] for row in data["launches"]] == ["TP1"]
    assert "not divisible" in data["forbidden"][0]["reason"]


def test_targets_that_nobody_meets_exit_with_one_and_name_the_nearest(autotune, monkeypatch):
    monkeypatch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
    strict = (*RUN, "--gpus-per-engine", "1", "--ttft", "1")
    ended = autotune(*strict, "-o", "p")
    assert ended.code == 1
    error = " ".join(ended.err.split())
    assert "TTFT binds: the nearest prefill worker is TP1" in error
    assert "times the target of 1 ms" in error
    assert "not written" not in error
    assert autotune("sla", "check", "p").code == 2
    assert autotune(*strict, "-o", "p", "--accept-nearest").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sla", "run", "--runtime", "vllm"), "vllm needs a model"),
        ((*RUN, "--evaluator", "measured"), "--use-ai-configurator is --evaluator predicted"),
        ((*RUN, "--gpus-per-engine", "2", "--max-num-gpus", "4"), "cannot be combined"),
        ((*RUN, "--gpus-per-engine", "two"), "not a number, a range or a list"),
        ((*RUN, "--rate", "1", "--concurrency", "1"), "cannot be combined"),
        ((*RUN, "--prefill-points", "3"), "cubic"),
        ((*RUN, "--gpus-per-engine", "2", "--total-gpus", "1"), "Allow more --total-gpus"),
        (("sla", "run", "-f", "nowhere.yaml"), "cannot be read. No such file"),
        (("sla", "show", "nowhere"), "not the folder of an SLA profile"),
        (("sla", "plan", "nowhere", "--rate", "1"), "has no profile of this phase"),
        (("sla", "plan", "nowhere", "--like", "me"), "Unknown arithmetic"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_a_remedy(autotune, arguments, words):
    ended = autotune(*arguments)
    assert ended.code in (2, 3)
    assert words in " ".join(ended.err.split())


def test_a_profile_of_another_program_needs_the_load_and_is_planned_then(profiled, tmp_path):
    autotune = profiled
    other = tmp_path / "other"
    other.mkdir()
    for name in ("prefill_raw_data.json", "decode_raw_data.json"):
        (other / name).write_text((tmp_path / "p" / name).read_text())
    ended = autotune("sla", "plan", "other", "--rate", "5")
    assert ended.code == 2
    assert "--isl, --osl, --ttft, --itl" in ended.err
    load = ("--rate", "5", "--isl", "600", "--osl", "40", "--ttft", "200", "--itl", "20")
    assert autotune("sla", "plan", "other", *load).code == 0
    data = json.loads((other / "prefill_raw_data.json").read_text())
    for values in data.values():
        del values[3:]
    (other / "prefill_raw_data.json").write_text(json.dumps(data))
    check = autotune("sla", "check", "other")
    assert check.code == 1
    assert "there are 3" in check.err


@pytest.mark.parametrize(
    ("text", "counts"), [("4", (4,)), ("1..8", (1, 2, 4, 8)), ("2..", (2, 4, 8)), ("4,1", (1, 4)), ("..2", (1, 2))]
)
def test_gpus_of_a_worker_are_a_number_a_range_or_a_list(text, counts):
    assert parse_gpu_counts(text) == counts


def test_a_range_that_runs_backwards_is_refused():
    assert powers_of_two(3, 9) == (3, 4, 8)
    with pytest.raises(UsageError, match="smaller number first"):
        powers_of_two(8, 2)


REQUEST = """
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeploymentRequest
metadata: {name: q}
spec:
  model: llama-3.1-8b
  backend: vllm
  searchStrategy: rapid
  hardware: {gpuSku: h100_sxm, totalGpus: 4, rdma: true}
  workload: {isl: 600, osl: 40, requestRate: 20}
  sla: {ttft: 300, itl: 30}
"""


def test_a_dynamo_request_becomes_a_profile_and_a_deployment(autotune, tmp_path, monkeypatch):
    monkeypatch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
    (tmp_path / "q.yaml").write_text(REQUEST)
    few = ("--prefill-points", "5", "--decode-points", "3", "--gpus-per-engine", "1")
    ended = autotune("sla", "run", "-f", "q.yaml", *few, "--rate", "25", "-o", "p")
    assert ended.code == 0, ended.err
    assert "For 25 requests/s" in ended.out
    assert "rdma" in ended.err
    assert (tmp_path / "p/config_with_planner.yaml").exists()
    exported = autotune("sla", "export", "p", "--api", "v1alpha1", "--planner", "0.9.1", "-o", "old")
    assert "old/config_with_planner.yaml" in exported.out
    assert autotune("sla", "export", "p", "--planner", "2").code == 2
    assert "sla export" in autotune("sla", "apply", "nowhere").err


def test_an_unknown_key_of_a_dynamo_request_is_an_error(autotune, tmp_path):
    (tmp_path / "q.yaml").write_text(REQUEST.replace("rdma", "rdmaa"))
    ended = autotune("sla", "run", "-f", "q.yaml", "--dry-run")
    assert ended.code == 2
    assert "rdmaa" in ended.err
    assert autotune("sla", "run", "-f", "none.yaml").code == 2
