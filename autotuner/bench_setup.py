"""What a load test needs: the server at a URL, as an experiment of one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner import traces
from autotuner.config import Composition
from autotuner.config.advice import slo_warnings
from autotuner.core import Candidate, LoadPoint, Measurement, Observer, StopRule, Workload
from autotuner.endpoints.models import ServedModel
from autotuner.evaluate.external import ExternalEvaluator
from autotuner.experiment import Experiment
from autotuner.running_server import served_at_url, with_server_identity
from autotuner.runs.store import make_empty_folder
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.capacity import CapacitySearch, check_capacity
from autotuner.search.launch import Launch, ListedLoads, LoadPlan
from autotuner.workload import arrivals
from autotuner.workload.scenarios import parse as parse_scenario

if TYPE_CHECKING:
    from autotuner.search.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchSetup:
    """A server that is already running, and the load for it.

    `traces` describes the recorded traffic of the load; `folder` is empty, and None to write no file.
    """

    experiment: Experiment
    provenance: Mapping[str, Any]
    served: ServedModel
    launch: Launch
    traces: tuple[traces.TraceDescription, ...] = ()
    folder: Path | None = None

    @classmethod
    def from_composition(
        cls,
        composition: Composition,
        *,
        model: str | None = None,
        make_load_plan: Callable[[Workload], LoadPlan] | None = None,
        folder: Path | None = None,
    ) -> BenchSetup:
        """Make `folder`, ask the server what it serves, and plan the load.

        The server must serve `model` if it is named. UsageError if `folder` has something in it; EndpointError if
        no model is found at the URL.
        """
        experiment = composition.experiment
        check_capacity(experiment)
        arrivals.check(experiment.workload())
        for warning in slo_warnings(experiment.slo):
            log.warning("%s", warning)
        descriptions = _describe_traces(experiment)
        for description in descriptions:
            log.info("%s", description)
        if folder is not None:
            make_empty_folder(folder)
        endpoint = experiment.benchmark.endpoint if "benchmark.endpoint" in composition.provenance else None
        served = served_at_url(experiment, model=model, endpoint=endpoint)
        experiment = with_server_identity(experiment, served)
        if experiment.benchmark.find_capacity:
            load_plan: LoadPlan = CapacitySearch(experiment, gpus=1)
        else:
            load_plan = (make_load_plan or _precise_load_plan(experiment))(experiment.workload())
        launch = Launch(Candidate(experiment.base_runtime), load_plan=load_plan)
        provenance = {"layers": composition.layers, "values": composition.provenance}
        return cls(experiment, provenance, served, launch, descriptions, folder)

    def evaluator(self, observe: Observer, save: Callable[[Measurement], None]) -> ExternalEvaluator:
        """What drives the load; `save` is called with the measurement so far."""
        return ExternalEvaluator(
            self.experiment,
            observe,
            served=self.served,
            traces=self.traces,
            save=save,
            keep_records=self.folder is not None,
        )

    @property
    def plan(self) -> Plan:
        """The load test as the plan of a run, for displays."""
        from autotuner.rules import Rules
        from autotuner.search.plan import Plan
        from autotuner.search.space import Space

        rules = Rules.from_experiment(self.experiment)
        space = Space(self.experiment.base_runtime, self.experiment.parameters, lambda candidate: None, rules)
        return Plan(space, self.experiment, (self.launch,), start_seconds=0.0, gpus=())


def _describe_traces(experiment: Experiment) -> tuple[traces.TraceDescription, ...]:
    load = experiment.benchmark
    parsed = map(parse_scenario, dict.fromkeys(load.traffic_scenarios))
    recorded = [scenario for scenario in parsed if isinstance(scenario, traces.RecordedTrace)]
    return tuple(trace.describe(load.trace_time_unit if trace.timestamps else None) for trace in recorded)


def _precise_load_plan(experiment: Experiment) -> Callable[[Workload], LoadPlan]:
    """Plans that drive each load point until its throughput is precise and its verdict decided.

    An open loop without targets has neither to wait for: its throughput is its rate. Its window lasts `duration`.
    """

    def stop_rule(point: LoadPoint) -> StopRule | None:
        return precision_stop_rule(experiment, point) if point.rate is None or experiment.slo.terms else None

    return lambda workload: ListedLoads(workload, stop_rule)
