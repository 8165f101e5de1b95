"""An evaluator whose measurement says when it ran and which GPUs Ray gave it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from autotuner.core import Measurement
from tests.execute.evaluators import ScriptedEvaluator


class GpuEvaluator(ScriptedEvaluator):
    """Takes half a second."""

    def evaluate(self, *arguments: Any, **options: Any) -> Measurement:
        started = time.time()
        time.sleep(0.5)
        measurement = super().evaluate(*arguments, **options)
        gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return replace(measurement, server={"gpus": gpus, "started": started, "ended": time.time()})
