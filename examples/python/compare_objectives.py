"""Run one small experiment on the simulated engine, then ask the same trials two questions."""

import autotuner
from autotuner.scoring.rank import rank

composition = autotuner.compose(
    autotuner.TaskContext(
        base_runtime="sim",
        profiles=["quick-test"],
        user_overrides={
            "parameters": {"tp-size": [1, 2], "enable-chunked-prefill": [True]},
            "benchmark": {"num_concurrency": [1, 16], "duration": 2, "warmup": 0.5},
        },
    )
)
result = autotuner.run(composition, output="runs")

for objective in ("minimize_latency", "maximize_throughput"):
    optimization = composition.experiment.optimization.model_copy(update={"objective": objective})
    experiment = composition.experiment.model_copy(update={"optimization": optimization})
    ranking = rank(result.trials, experiment)
    assert ranking.winner is not None
    print(f"{objective}: {ranking.winner.candidate} at {ranking.winner.value:.4g} {ranking.unit} (simulated)")
