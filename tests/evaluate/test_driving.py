"""A course on one server, without a launch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotuner.core import LoadPoint, Workload
from autotuner.evaluate.driving import Drive, endpoint_of
from autotuner.experiment import Model, Slo
from autotuner.search.launch import FixedCourse
from tests.load.conftest import Server, serve

__all__ = ["serve"]


def test_each_load_point_is_observed_then_kept_and_told(serve: Callable[..., Server]) -> None:
    points = tuple(LoadPoint("D(20,5)", concurrency=count) for count in (1, 2))
    workload = Workload(points, duration=5.0, warmup=0.0, max_requests=4)
    told: list[tuple[str, dict[str, Any]]] = []
    course = FixedCourse(workload)
    endpoint = endpoint_of(serve().url, "m", Model(id_or_path="m"), {})
    drive = Drive(endpoint, course, "simulated", Slo(), lambda stage, **more: told.append((stage, more)))
    kept = [drive.keep(position, drive.observe(position, step)) for position, step in drive.steps()]
    assert [(result.load_point, result.metrics.requests, result.source) for result in kept] == [
        (point, 4, "simulated") for point in points
    ]
    stages = [(stage, more["position"], more["load_point"]) for stage, more in told]
    assert stages == [
        (stage, number, point)
        for number, point in enumerate(points, start=1)
        for stage in ("warming-up", "measuring", "measured")
    ]
    assert course.ask() is None


def test_prompts_use_the_models_vocabulary_where_it_is_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 1234}))
    known = endpoint_of("http://h:1", "served", Model(id_or_path=str(tmp_path)), {"a": "b"})
    assert (known.vocabulary, known.model, known.headers) == (1234, "served", {"a": "b"})
    assert endpoint_of("http://h:1", "m", Model(id_or_path="nobody/knows"), {}).vocabulary == 32_000
