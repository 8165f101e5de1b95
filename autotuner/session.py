"""Where the rooms meet: an experiment becomes a plan, a run, a report. The command line and Python both start here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner import local_data
from autotuner.core import Candidate, Observer, ServerSpec, Source, Trial, ignore_progress
from autotuner.deploy import render, with_comment, with_port
from autotuner.engines import Engine, LaunchContext, as_simulated, engine
from autotuner.engines.model import is_path, path_or_name
from autotuner.engines.parameters import canonical_parameters, is_known_parameter
from autotuner.engines.sim import Sim
from autotuner.errors import ConfigError, MachineError
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.evaluate.serial import SerialExecutor
from autotuner.evaluate.simulated import SimulatedEvaluator, simulated_gpu
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import Launcher, gpu_locks, launcher, orphans
from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import catalogue, model_shape
from autotuner.report.markdown import markdown_report
from autotuner.rules import Rules
from autotuner.scoring.rank import Ranking, Standing
from autotuner.search.account import EMPTY_REPORT, SearchReport
from autotuner.search.capacity import check_capacity
from autotuner.search.defaults import default_candidate
from autotuner.search.plan import Plan
from autotuner.search.problem import Problem
from autotuner.search.protocol import Searcher
from autotuner.search.space import Space
from autotuner.search.strategies import searcher_for
from autotuner.store import RunStore, explain_write_errors
from autotuner.tune import tune
from autotuner.workload import arrivals

if TYPE_CHECKING:
    from autotuner.config import Composition

PLOT_FILE = "pareto.png"
MIN_FREE_DISK_BYTES = 200 * 2**20
"""Bytes: logs and raw records of a long run."""


@dataclass(frozen=True)
class Session:
    """What a run of one experiment is made of."""

    experiment: Experiment
    engine: Engine
    launcher: Launcher
    space: Space
    forecaster: Forecaster

    def create_searcher(self) -> Searcher:
        """A new searcher of the experiment's strategy."""
        starts = self.is_simulated or self.launcher.starts_servers
        baseline = default_candidate(self.space) if starts and self.experiment.optimization.baseline else None
        return searcher_for(
            Problem(
                self.space,
                self.experiment,
                predict=self.forecaster.predict,
                fits=self.forecaster.expects_fit,
                start_seconds=self.engine.expected_start_seconds,
                baseline=baseline,
                can_relaunch=starts,
            )
        )

    @property
    def is_simulated(self) -> bool:
        """Whether the simulated evaluator answers, in virtual time."""
        return self.experiment.optimization.evaluator == "simulated"

    @property
    def source(self) -> Source:
        """What the run's numbers will be."""
        return "simulated" if self.is_simulated else self.engine.source

    @property
    def run_location(self) -> str:
        """Where candidates run, in words."""
        return "in virtual time" if self.is_simulated else self.experiment.deployment.mode

    def create_executor(self, observe: Observer, devices: tuple[int, ...] = ()) -> SerialExecutor:
        """An executor that takes candidates one at a time; measures them on the GPUs with the indexes `devices`."""
        started = partial(render, format=launch_form(self.experiment))
        if self.is_simulated:
            remark = simulation_remark(self.experiment, self.source)

            def not_started(spec: ServerSpec) -> str:
                return with_comment(started(spec), remark)

            return SerialExecutor(SimulatedEvaluator(self.experiment, self.engine, observe, render=not_started))
        return SerialExecutor(MeasuredEvaluator(self.experiment, self.engine, self.launcher, started, observe, devices))

    def reserve_gpus(self) -> AbstractContextManager[tuple[int, ...]]:
        """Hold as many of this machine's GPUs as the largest candidate takes; MachineError when they are not free."""
        needed = 0 if self.is_simulated else max(self.plan().gpus, default=0)
        return gpu_locks.reserve_gpus(needed, self.experiment.hardware.gpus if needed else ())

    def plan(self) -> Plan:
        """The launches to come, with their estimated time."""
        launches = tuple(iter(self.create_searcher().ask, None))
        return Plan(
            space=self.space,
            experiment=self.experiment,
            launches=launches,
            start_seconds=self.engine.expected_start_seconds,
            gpus=tuple(self.engine.local_gpu_count(launch.candidate) for launch in launches) if self._uses_gpus else (),
            is_virtual=self.is_simulated,
        )

    @property
    def _uses_gpus(self) -> bool:
        """Whether servers are started here that compute on GPUs."""
        return self.launcher.starts_servers and self.engine.computes_on_gpus(
            LaunchContext.from_experiment(self.experiment)
        )

    def preflight(self, output: Path) -> None:
        """Check, before the first launch, that this machine has what the run needs."""
        if not self.is_simulated:
            self.launcher.preflight(self.experiment, self.engine)
        folder = next(parent for parent in (output.absolute(), *output.absolute().parents) if parent.exists())
        free = shutil.disk_usage(folder).free
        if free < MIN_FREE_DISK_BYTES:
            raise MachineError(
                f"The disk of '{folder}' has {free / 2**20:.0f} MB left.",
                why=f"A run keeps logs and raw records; {MIN_FREE_DISK_BYTES / 2**20:.0f} MB should be free.",
                remedy="Free some space, or choose another folder with --output.",
            )


@dataclass(frozen=True)
class Result:
    """What a run came to.

    `command` is the winner's launch command on the engine's usual port, None without a winner or a
    launch; `remark` says where that server was not what was measured, and is empty where it was.
    """

    ranking: Ranking
    trials: tuple[Trial, ...]
    path: Path
    command: str | None
    refused: tuple[tuple[Candidate, str], ...] = ()
    search_report: SearchReport = EMPTY_REPORT
    remark: str = ""


def session_for(experiment: Experiment) -> Session:
    """Choose the rooms' objects for an experiment, and refuse a space that cannot run."""
    chosen = engine(experiment.base_runtime)
    rules = Rules.from_experiment(experiment)
    rules.check(experiment.parameters, is_known_parameter, canonical_parameters())
    where = launcher(experiment.deployment.mode, experiment.deployment)
    _check_parameters(experiment, chosen, where)
    chosen.check_model(experiment.model)
    arrivals.check(experiment.workload())
    target, foresight = LaunchContext.from_experiment(experiment), Forecaster.from_experiment(experiment, chosen, where)
    check_capacity(experiment)
    simulated = experiment.optimization.evaluator == "simulated"
    if simulated:
        _check_simulated(experiment, where)

    def refuse(candidate: Candidate) -> str | None:
        unknown = as_simulated.rejection_reason(candidate) if simulated else None
        return chosen.rejection_reason(candidate, target) or foresight.memory_shortage(candidate) or unknown

    space = Space(experiment.base_runtime, experiment.parameters, refuse, rules)
    if not space.candidates:
        reason = space.refusals[0][1] if space.refusals else "A parameter has an empty list of values."
        raise ConfigError(
            "No combination of the given parameters can run.",
            why=f"{len(space.refusals)} of {space.combination_count} were refused; the first: {reason}",
            remedy=_refusal_remedy([reason for _, reason in space.refusals]),
        )
    return Session(experiment, chosen, where, space, foresight)


def _refusal_remedy(refusals: Sequence[str]) -> str:
    """What would let a combination run, by the reasons for which all were refused."""
    if not refusals:
        return "Give every parameter at least one value."
    remedies = []
    for pattern, remedy in _REFUSAL_REMEDIES:
        match = next(filter(None, (re.search(pattern, reason) for reason in refusals)), None)
        if match is not None:
            remedies.append(remedy.format(*match.groups(), sizes=_divisors(match.groups())))
    text = "; or ".join(remedies) or "change the parameters that the reason names"
    return text[0].upper() + text[1:]


def _divisors(parts: Sequence[str]) -> str:
    """The sizes that divide the count among the parts of a reason."""
    count = next((int(part) for part in parts if part.isdigit()), 0)
    return ", ".join(str(size) for size in range(1, min(count, MAX_SUGGESTED_SIZE) + 1) if count % size == 0)


MAX_SUGGESTED_SIZE = 16
"""The largest size that a remedy names."""

_REFUSAL_REMEDIES = (
    (r"breaks the constraint ([^:]+):", "take the constraint back with --set constraints.{0}=null"),
    (
        r"it needs \d+ GPUs and (\d+) may be used",
        "allow more GPUs with --total-gpus, or give sizes whose product is at most {0}",
    ),
    (r"(\d+) .* not divisible by ([a-z]+-size)", "give sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"(\d+) key-value heads and (tp-size)", "give sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"it does not fit: the KV cache of one request", "lower max-model-len"),
    (
        r"it does not fit: (?!the KV)",
        "spread the model over more GPUs with a larger tp-size, take a smaller model, or a smaller dtype, such as "
        "with --layer fp8-default",
    ),
    (r"has no ([a-z]+-size)", "set {0} to 1: --set parameters.{0}=1"),
    (r"(\S+) and (\S+) both set", "keep one of {0} and {1}"),
)
"""What to do about the reasons for which combinations are refused."""


def _check_parameters(experiment: Experiment, chosen: Engine, where: Launcher) -> None:
    """Refuse parameters that neither the bundled flags nor those of the engine at hand know."""
    try:
        chosen.check_parameters(experiment.parameters)
    except ConfigError:
        table = where.flags(experiment, chosen)
        if table is None or table.origin != "help":
            raise
        chosen.check_parameters(experiment.parameters, table=table)


def _check_simulated(experiment: Experiment, where: Launcher) -> None:
    """Refuse what no simulation can answer for: an endpoint, an engine, model or GPU nothing is known of."""
    if not where.starts_servers or experiment.base_runtime == "openai":
        raise ConfigError(
            "An endpoint that runs already cannot be simulated.",
            why="Nothing is known of its engine, flags and GPUs.",
            remedy="Name a runtime, such as --runtime vllm, or measure it with optimization.evaluator=measured.",
        )
    model_shape(path_or_name(experiment.model))
    find_gpu(simulated_gpu(experiment))


def run(composition: Composition, output: str | Path = "runs", observe: Observer = ignore_progress) -> Result:
    """Do the whole job: check the machine, try the candidates, rank them, and write the report.

    `output` is the folder that gets the run folder; `observe` is called with every step. Raises
    AutotuneError before the first launch when the configuration or the machine cannot do; an
    engine that fails is a trial that says so.
    """
    wiring = session_for(composition.experiment)
    wiring.preflight(Path(output))
    store = create_run(composition, Path(output))
    with store.lock():
        return execute(store, wiring, observe)


def create_run(composition: Composition, output: Path) -> RunStore:
    """Make the run folder of a composition."""
    provenance = {"layers": composition.layers, "values": composition.provenance}
    return RunStore.create(output, composition.data, provenance)


def execute(store: RunStore, session: Session, observe: Observer) -> Result:
    """Run what a run folder still lacks, and write its report."""
    orphans.remove_orphans()
    store.save_refused(session.space.refusals)
    with session.reserve_gpus() as devices:
        watch = local_data.recording_observer(store, session.forecaster, observe)
        chosen = session.create_searcher()
        ranking = tune(store.experiment, chosen, session.create_executor(observe, devices), store, watch)
    store.save_search(chosen.report.stop_reason, chosen.report.skipped, chosen.report.candidate_count)
    return write_report(store, ranking)


def write_report(store: RunStore, ranking: Ranking) -> Result:
    """Write the report, the plot and the winner's commands into the run folder."""
    from autotuner.report.plots import draw_pareto

    trials = tuple(store.trials())
    spec = _printable_spec(store.experiment, ranking.winner, trials)
    remark = simulation_remark(store.experiment, ranking.winner.source) if spec and ranking.winner else ""
    command = render(spec, launch_form(store.experiment)) if spec else None
    defaults = ranking.defaults if ranking.defaults != ranking.winner else None
    baseline = _printable_spec(store.experiment, defaults, trials)
    with explain_write_errors(store.path):
        draw_pareto(trials, store.experiment, ranking, store.path / PLOT_FILE)
    refused = tuple(store.load_refused())
    account = SearchReport(*store.load_search())
    shown = with_comment(command, remark) if command else None
    defaults_command = None
    if baseline is not None and defaults is not None:
        rendered = render(baseline, launch_form(store.experiment))
        defaults_command = with_comment(rendered, simulation_remark(store.experiment, defaults.source))
    text = markdown_report(
        ranking,
        trials,
        store.experiment,
        command=shown,
        defaults_command=defaults_command,
        picture=PLOT_FILE,
        refused=refused,
        search_report=account,
    )
    store.save("report.md", text)
    if spec is not None:
        formats = {"command.sh": "shell"} | ({"docker.sh": "docker", "compose.yaml": "compose"} if spec.image else {})
        for name, form in formats.items():
            store.save(f"best/{name}", with_comment(render(spec, form), remark))
    return Result(ranking, trials, store.path, command, refused, account, remark)


def launch_form(experiment: Experiment) -> str:
    """The format of the commands by which the experiment's servers are started."""
    return "docker" if experiment.deployment.mode == "docker" and experiment.runtime.image else "shell"


def simulation_remark(experiment: Experiment, source: Source) -> str:
    """In lines, what a printed command starts where that is not what was measured; empty where it is."""
    if source == "measured":
        return ""
    where = f"simulated on {simulated_gpu(experiment)}"
    if experiment.base_runtime == Sim.name:
        return f"Not measured: {where}; this starts the simulated engine."
    remark = f"Not measured: {where}; this is what would be started."
    model = experiment.model.id_or_path
    if model not in catalogue() or is_path(model):
        return remark
    return f"{remark}\n{model} is a name for predictions: give the engine the model's folder or Hugging Face id."


def winning_spec(ranking: Ranking, trials: Sequence[Trial]) -> ServerSpec | None:
    """The server of the winner as it was measured; None without a winner or a launch."""
    return _measured_spec(ranking.winner, trials)


def _measured_spec(standing: Standing | None, trials: Sequence[Trial]) -> ServerSpec | None:
    if standing is None:
        return None
    return next(trial.measurement.spec for trial in trials if trial.number == standing.trial_number)


def _printable_spec(experiment: Experiment, standing: Standing | None, trials: Sequence[Trial]) -> ServerSpec | None:
    """The server of a standing as it was measured, on the engine's usual port; None without a launch."""
    spec = _measured_spec(standing, trials)
    return with_port(spec, engine(experiment.base_runtime).default_port) if spec else None
