"""Search problems made of little."""

from typing import Any

from autotuner.experiment import Experiment
from autotuner.search.problem import Problem
from autotuner.search.space import Space


def experiment(**sections: Any) -> Experiment:
    """A small experiment; `sections` replace whole sections of it."""
    config: dict[str, Any] = {
        "task_name": "t",
        "model": {"id_or_path": "m"},
        "base_runtime": "sim",
        "parameters": {},
        "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
    }
    return Experiment.model_validate(config | sections)


def problem(space: Space, limit: int = 10, seed: int = 0, **sections: Any) -> Problem:
    """To search `space` with at most `limit` launches."""
    optimization = {"max_iterations": limit, "seed": seed} | sections.pop("optimization", {})
    return Problem(space, experiment(optimization=optimization, **sections))
