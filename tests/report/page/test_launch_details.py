from dataclasses import replace

import pytest

from autotuner.report.page.launch_details import Launches, launch_detail
from tests.factories import Run


@pytest.mark.parametrize("requests", [7, 12_345, 1_234_567])
def test_a_number_of_requests_is_shown_to_the_last_one(tmp_path, requests):
    recorded = Run()
    trial = recorded.trials[0]
    first = trial.results[0]
    measured = replace(first, metrics=replace(first.metrics, requests=requests))
    trial = replace(trial, measurement=replace(trial.measurement, load_points=(measured,)))
    detail = launch_detail(
        trial, Launches.of([trial]).points[trial.number], tmp_path, log_lines=0, with_timelines=False
    )
    assert detail["points"][0]["figures"][4] == requests
