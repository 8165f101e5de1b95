"""What a load test needs: the server at a URL, as an experiment of one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.config import TaskContext, compose
from autotuner.config.advice import slo_warnings
from autotuner.core import Candidate, LoadPoint, StopRule, Workload
from autotuner.endpoints.models import ServedModel
from autotuner.experiment import Experiment
from autotuner.running_server import detect_server
from autotuner.runs.store import make_empty_folder
from autotuner.scoring.sequential import precision_stop_rule
from autotuner.search.capacity import CapacitySearch, check_capacity
from autotuner.search.launch import Launch, ListedLoads, LoadPlan
from autotuner.traces import RecordedTrace, TraceDescription
from autotuner.workload import arrivals
from autotuner.workload.scenarios import parse as parse_scenario

if TYPE_CHECKING:
    from autotuner.search.plan import Plan

log = logging.getLogger(__name__)

LoadPlanMaker = Callable[[Workload], LoadPlan]


@dataclass(frozen=True)
class BenchSetup:
    """A server that is already running, and the load for it.

    `traces` describes the recorded traffic of the load; `folder` is empty, and None to leave no file.
    """

    experiment: Experiment
    provenance: Mapping[str, Any]
    served: ServedModel
    launch: Launch
    traces: tuple[TraceDescription, ...] = ()
    folder: Path | None = None

    @classmethod
    def from_context(
        cls, context: TaskContext, make_load_plan: LoadPlanMaker | None = None, folder: Path | None = None
    ) -> BenchSetup:
        """Check the load, make `folder`, ask the server what it serves, and plan the load.

        UsageError if `folder` has something in it; EndpointError if no model is found at the URL.
        """
        composition = compose(context)
        check_capacity(composition.experiment)
        arrivals.check(composition.experiment.workload())
        for warning in slo_warnings(composition.experiment.slo):
            log.warning("%s", warning)
        descriptions = _describe_traces(composition.experiment)
        for description in descriptions:
            log.info("%s", description)
        if folder is not None:
            make_empty_folder(folder)
        context, served = detect_server(context, composition)
        composition = compose(context)
        experiment = composition.experiment
        if experiment.benchmark.find_capacity:
            load_plan: LoadPlan = CapacitySearch(experiment, gpus=1)
        else:
            load_plan = (make_load_plan or _precise_load_plan(experiment))(experiment.workload())
        launch = Launch(Candidate(experiment.base_runtime), load_plan=load_plan)
        provenance = {"layers": composition.layers, "values": composition.provenance}
        return cls(experiment, provenance, served, launch, descriptions, folder)

    @property
    def plan(self) -> Plan:
        """The load test as the plan of a run, for displays."""
        from autotuner.rules import Rules
        from autotuner.search.plan import Plan
        from autotuner.search.space import Space

        rules = Rules.from_experiment(self.experiment)
        space = Space(self.experiment.base_runtime, self.experiment.parameters, lambda candidate: None, rules)
        return Plan(space, self.experiment, (self.launch,), start_seconds=0.0, gpus=())


def _describe_traces(experiment: Experiment) -> tuple[TraceDescription, ...]:
    load = experiment.benchmark
    parsed = map(parse_scenario, dict.fromkeys(load.traffic_scenarios))
    recorded = [scenario for scenario in parsed if isinstance(scenario, RecordedTrace)]
    return tuple(trace.describe(load.trace_time_unit if trace.timestamps else None) for trace in recorded)


def _precise_load_plan(experiment: Experiment) -> LoadPlanMaker:
    """Plans that drive each load point until its throughput is precise and its verdict decided.

    An open loop without targets has neither to wait for: its throughput is its rate. Its window lasts `duration`.
    """

    def stop_rule(point: LoadPoint) -> StopRule | None:
        return precision_stop_rule(experiment, point) if point.rate is None or experiment.slo.terms else None

    return lambda workload: ListedLoads(workload, stop_rule)
