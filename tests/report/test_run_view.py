from autotuner.core import Candidate, Verdict
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore
from autotuner.search.protocol import SearchReport


def test_a_view_judges_ranks_and_pools_the_trials(make_run):
    run = make_run(slo={"ttft": 0.001})
    view = RunView.of(run.trials, run.experiment)
    assert {result.verdict for trial in view.trials for result in trial.results} == {Verdict.INFEASIBLE}
    assert {standing.trial_number for standing in view.ranking.standings} == set(view.pooled) == {1, 2, 3}
    assert view.ranking.winner is None
    assert view.frontier == []


def test_a_view_of_a_run_folder_has_all_that_the_run_recorded(make_run, tmp_path):
    run = make_run()
    store = RunStore.create(tmp_path, run.experiment.model_dump(mode="json"), {})
    for trial in run.trials:
        store.append(trial)
    refused = [(Candidate("vllm", {"tp-size": 8}), "it does not fit")]
    store.save_refused(refused)
    store.save_search("converged", refused, 7)
    host = dict.fromkeys(("autotune", "python", "host", "system", "kernel", "cpu"), "x") | {"cpu_cores": 2, "gpus": []}
    store.add_environment(host)
    view = RunView.from_store(store)
    assert view.ranking == run.view.ranking
    assert (view.refused, view.search_report) == (refused, SearchReport("converged", tuple(refused), 7))
    assert view.environments == (host,)
