"""A pair of workers is found, shown with its manifest, and written only when it is picked."""

import json

import pytest
import yaml

from autotuner.errors import UsageError
from autotuner.profiling import pick
from autotuner.profiling.session import open_profile, prepare, profile
from tests.profiling.points import sla_request


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A predicted profile of two mappings, with a load."""
    folder = tmp_path_factory.mktemp("picks") / "profile"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
        return profile(prepare(sla_request(rate=30.0)), folder)


def chosen_pair(outcome):
    pair = pick.chosen_pair(outcome)
    assert pair is not None
    return pair


def another_pair(outcome):
    """A pair of the profile that it did not choose."""
    chosen = chosen_pair(outcome)
    other = next(worker for worker in outcome.selection.decode if worker.mapping != chosen.decode.mapping)
    return pick.find_pair(outcome, chosen.prefill.mapping.name, other.mapping.name, other.point.concurrency)


def test_the_manifest_of_the_chosen_pair_has_a_planner_and_that_of_another_has_none(outcome):
    chosen = pick.pair_manifest(outcome, chosen_pair(outcome))
    other = pick.pair_manifest(outcome, another_pair(outcome))
    assert chosen.name == other.name == "picked_deployment.yaml"
    kinds = [[document["kind"] for document in yaml.safe_load_all(each.text)] for each in (chosen, other)]
    assert kinds == [["ConfigMap", "ConfigMap", "DynamoGraphDeployment"], ["DynamoGraphDeployment"]]


def test_the_chosen_pair_has_the_planned_workers_and_another_what_its_throughput_asks_for(outcome):
    plan = outcome.plan
    assert pick.worker_counts(outcome, chosen_pair(outcome)) == (plan.prefill_workers, plan.decode_workers)
    pair = another_pair(outcome)
    counts = pick.worker_counts(outcome, pair)
    assert counts is not None
    decodes = counts[1]
    rate = pair.decode.point.throughput_per_gpu * pair.decode.mapping.gpus / outcome.record.request.osl
    assert (decodes - 1) * rate < 30.0 <= decodes * rate


def test_a_pick_is_written_with_its_manifest_and_replaces_an_earlier_one(outcome):
    folder = outcome.record.path
    paths = pick.write_pick(outcome, another_pair(outcome))
    assert [path.name for path in paths] == ["picked.json", "picked_deployment.yaml"]
    assert not json.loads(paths[0].read_text())["is_choice_of_profile"]
    pick.write_pick(outcome, chosen_pair(outcome))
    data = json.loads((folder / "picked.json").read_text())
    assert data["is_choice_of_profile"]
    assert data["workers"] == {"prefill": outcome.plan.prefill_workers, "decode": outcome.plan.decode_workers}
    assert open_profile(folder).selection == outcome.selection


def test_workers_that_dynamo_does_not_run_have_commands(tmp_path, monkeypatch):
    monkeypatch.setattr("autotuner.profiling.pictures.draw_pictures", lambda outcome: [])
    simulated = profile(prepare(sla_request(runtime="sim", gpus_per_engine=(1,))), tmp_path / "p")
    manifest = pick.pair_manifest(simulated, chosen_pair(simulated))
    assert manifest.name == "picked_commands.sh"
    assert "# prefill: 1 worker of TP1" in manifest.text
    assert "autotuner.simulate.server" in manifest.text


@pytest.mark.parametrize("names", [("9gpus_tp9", "1gpus_tp1", 1), ("1gpus_tp1", "1gpus_tp1", 7777)])
def test_a_pair_that_was_not_profiled_is_none(outcome, names):
    with pytest.raises(UsageError, match="no such"):
        pick.find_pair(outcome, *names)
