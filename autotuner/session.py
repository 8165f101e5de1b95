"""Connects the packages: from an experiment to a plan, a run and its report, for the command line and Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner import local_data, machine
from autotuner.core import Candidate, Observer, ServerSpec, Source, Trial, ignore_progress
from autotuner.deploy import render, with_comment, with_port
from autotuner.engines import Engine, LaunchContext, as_simulated, engine
from autotuner.engines.parameters import canonical_parameters, is_known_parameter
from autotuner.engines.sim import Sim
from autotuner.errors import ConfigError, MachineError
from autotuner.evaluate.measured import MeasuredEvaluator
from autotuner.evaluate.serial import SerialExecutor
from autotuner.evaluate.simulated import SimulatedEvaluator, simulated_gpu
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import Launcher, gpu_locks, launcher, orphans
from autotuner.model_files import is_path, path_or_name
from autotuner.predict.hardware import find_gpu
from autotuner.predict.shape import catalogue, model_shape
from autotuner.report.markdown import markdown_report
from autotuner.rules import Rules
from autotuner.scoring.rank import Ranking, Standing
from autotuner.search.capacity import check_capacity
from autotuner.search.defaults import default_candidate
from autotuner.search.plan import Plan
from autotuner.search.problem import Problem
from autotuner.search.protocol import EMPTY_REPORT, Searcher, SearchReport
from autotuner.search.space import Space
from autotuner.search.strategies import searcher_for
from autotuner.store import RunStore, explain_write_errors
from autotuner.tune import tune
from autotuner.workload import arrivals

if TYPE_CHECKING:
    from autotuner.config import Composition

PLOT_FILE = "pareto.png"
MIN_FREE_DISK_BYTES = 200 * 2**20
"""Space for the logs and raw records of a long run."""


@dataclass(frozen=True)
class Session:
    """The engine, launcher, search space and forecaster for one experiment."""

    experiment: Experiment
    engine: Engine
    launcher: Launcher
    space: Space
    forecaster: Forecaster

    def create_searcher(self) -> Searcher:
        """Create a searcher with the experiment's strategy."""
        can_launch = self.is_simulated or self.launcher.starts_servers
        baseline = default_candidate(self.space) if can_launch and self.experiment.optimization.baseline else None
        return searcher_for(
            Problem(
                self.space,
                self.experiment,
                predict=self.forecaster.predict,
                fits=self.forecaster.expects_fit,
                start_seconds=self.engine.expected_start_seconds,
                baseline=baseline,
                can_relaunch=can_launch,
            )
        )

    @property
    def is_simulated(self) -> bool:
        """Whether candidates are evaluated by simulation in virtual time."""
        return self.experiment.optimization.evaluator == "simulated"

    @property
    def source(self) -> Source:
        """Whether the run's results are measured or simulated; a simulated engine's server counts as simulated."""
        return "simulated" if self.is_simulated else self.engine.source

    @property
    def run_location(self) -> str:
        """Where candidates run, for display."""
        return "in virtual time" if self.is_simulated else self.experiment.deployment.mode

    def create_executor(self, observe: Observer, devices: tuple[int, ...] = ()) -> SerialExecutor:
        """Create an executor that evaluates launches one at a time, on the GPUs with the indexes `devices`."""
        render_command = partial(render, format=launch_form(self.experiment))
        if self.is_simulated:
            remark = simulation_remark(self.experiment, self.source)

            def render_with_remark(spec: ServerSpec) -> str:
                return with_comment(render_command(spec), remark)

            return SerialExecutor(SimulatedEvaluator(self.experiment, self.engine, observe, render=render_with_remark))
        evaluator = MeasuredEvaluator(self.experiment, self.engine, self.launcher, render_command, observe, devices)
        return SerialExecutor(evaluator)

    def reserve_gpus(self) -> AbstractContextManager[tuple[int, ...]]:
        """Reserve as many of this machine's GPUs as the largest candidate needs; MachineError if they are not free."""
        gpu_count = 0 if self.is_simulated else max(self.plan().gpus, default=0)
        return gpu_locks.reserve_gpus(gpu_count, self.experiment.hardware.gpus if gpu_count else ())

    def plan(self) -> Plan:
        """Plan the launches, with their estimated time."""
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
        """Whether the run starts servers on this machine that compute on GPUs."""
        context = LaunchContext.from_experiment(self.experiment)
        return self.launcher.starts_servers and self.engine.computes_on_gpus(context)

    def preflight(self, output: Path) -> None:
        """Check before the first launch that this machine can do the run; MachineError if not."""
        if not self.is_simulated:
            machine.preflight(self.experiment, self.engine, self.launcher)
        folder = next(parent for parent in (output.absolute(), *output.absolute().parents) if parent.exists())
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < MIN_FREE_DISK_BYTES:
            raise MachineError(
                f"The disk of '{folder}' has {free_bytes / 2**20:.0f} MB left.",
                why=f"A run keeps logs and raw records; {MIN_FREE_DISK_BYTES / 2**20:.0f} MB should be free.",
                remedy="Free some space, or choose another folder with --output.",
            )


@dataclass(frozen=True)
class Result:
    """The result of a run.

    `command` is the winner's launch command on the engine's default port, None without a winner or a
    launch; `remark` says so if the winner was simulated and not measured, and is empty otherwise.
    """

    ranking: Ranking
    trials: tuple[Trial, ...]
    path: Path
    command: str | None
    refused: tuple[tuple[Candidate, str], ...] = ()
    search_report: SearchReport = EMPTY_REPORT
    remark: str = ""


def session_for(experiment: Experiment) -> Session:
    """Create the session of an experiment; ConfigError if none of its candidates can run."""
    runtime_engine = engine(experiment.base_runtime)
    rules = Rules.from_experiment(experiment)
    rules.check(experiment.parameters, is_known_parameter, canonical_parameters())
    mode_launcher = launcher(experiment.deployment.mode, experiment.deployment)
    _check_parameters(experiment, runtime_engine)
    runtime_engine.check_model(experiment.model)
    arrivals.check(experiment.workload())
    context = LaunchContext.from_experiment(experiment)
    forecaster = Forecaster.from_experiment(experiment, runtime_engine, mode_launcher)
    check_capacity(experiment)
    is_simulated = experiment.optimization.evaluator == "simulated"
    if is_simulated:
        _check_simulated(experiment, mode_launcher)

    def rejection_reason(candidate: Candidate) -> str | None:
        not_simulable = as_simulated.rejection_reason(candidate) if is_simulated else None
        reason = runtime_engine.rejection_reason(candidate, context)
        return reason or forecaster.memory_shortage(candidate) or not_simulable

    space = Space(experiment.base_runtime, experiment.parameters, rejection_reason, rules)
    if not space.candidates:
        reason = space.refusals[0][1] if space.refusals else "A parameter has an empty list of values."
        raise ConfigError(
            "No combination of the given parameters can run.",
            why=f"{len(space.refusals)} of {space.combination_count} were rejected; the first: {reason}",
            remedy=_refusal_remedy([reason for _, reason in space.refusals]),
        )
    return Session(experiment, runtime_engine, mode_launcher, space, forecaster)


def _refusal_remedy(reasons: Sequence[str]) -> str:
    """Suggest what would let a combination run, from the reasons why all were rejected."""
    if not reasons:
        return "Give every parameter at least one value."
    remedies = []
    for pattern, remedy in _REFUSAL_REMEDIES:
        match = next(filter(None, (re.search(pattern, reason) for reason in reasons)), None)
        if match is not None:
            remedies.append(remedy.format(*match.groups(), sizes=_divisors(match.groups())))
    text = "; or ".join(remedies) or "change the parameters that the reason names"
    return text[0].upper() + text[1:]


def _divisors(groups: Sequence[str]) -> str:
    """The sizes that divide the first number among the matched groups of a reason, as text."""
    count = next((int(group) for group in groups if group.isdigit()), 0)
    return ", ".join(str(size) for size in range(1, min(count, MAX_SUGGESTED_SIZE) + 1) if count % size == 0)


MAX_SUGGESTED_SIZE = 16
"""The largest parallel size that a remedy suggests."""

_REFUSAL_REMEDIES = (
    (r"breaks the constraint ([^:]+):", "remove the constraint with --set constraints.{0}=null"),
    (
        r"it needs \d+ GPUs and (\d+) may be used",
        "allow more GPUs with --total-gpus, or set sizes whose product is at most {0}",
    ),
    (r"(\d+) .* not divisible by ([a-z]+-size)", "set sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"(\d+) key-value heads and (tp-size)", "set sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"it does not fit: the KV cache of one request", "lower max-model-len"),
    (
        r"it does not fit: (?!the KV)",
        "spread the model over more GPUs with a larger tp-size, or use a smaller model or a smaller dtype, such as "
        "with --layer fp8-default",
    ),
    (r"has no ([a-z]+-size)", "set {0} to 1: --set parameters.{0}=1"),
    (r"(\S+) and (\S+) both set", "keep one of {0} and {1}"),
)
"""Remedies by a pattern of the rejection reason; groups of the match fill in the numbers and names."""


def _check_parameters(experiment: Experiment, runtime_engine: Engine) -> None:
    """ConfigError for parameters that neither the bundled flag table nor the installed engine's --help lists."""
    try:
        runtime_engine.check_parameters(experiment.parameters)
    except ConfigError:
        table = machine.available_flags(experiment, runtime_engine)
        if table is None or table.origin != "help":
            raise
        runtime_engine.check_parameters(experiment.parameters, table=table)


def _check_simulated(experiment: Experiment, mode_launcher: Launcher) -> None:
    """ConfigError for what cannot be simulated: a running endpoint, an unknown model, or an unknown GPU."""
    if not mode_launcher.starts_servers or experiment.base_runtime == "openai":
        raise ConfigError(
            "A server that is already running cannot be simulated.",
            why="Its engine, flags and GPUs are unknown.",
            remedy="Name a runtime, such as --runtime vllm, or measure it with optimization.evaluator=measured.",
        )
    model_shape(path_or_name(experiment.model))
    find_gpu(simulated_gpu(experiment))


def run(composition: Composition, output: str | Path = "runs", observe: Observer = ignore_progress) -> Result:
    """Tune: check the machine, evaluate the candidates, rank them, and write the report.

    The run folder is created in the folder `output`; `observe` is called with every step. Raises
    AutotuneError before the first launch if the configuration or the machine does not allow the run; an
    engine that fails is a failed trial.
    """
    session = session_for(composition.experiment)
    session.preflight(Path(output))
    store = create_run(composition, Path(output))
    with store.lock():
        return execute(store, session, observe)


def create_run(composition: Composition, output: Path) -> RunStore:
    """Create the run folder of a composition."""
    provenance = {"layers": composition.layers, "values": composition.provenance}
    return RunStore.create(output, composition.data, provenance)


def execute(store: RunStore, session: Session, observe: Observer) -> Result:
    """Execute the remaining trials of a run, and write its report."""
    orphans.remove_orphans()
    store.save_refused(session.space.refusals)
    with session.reserve_gpus() as devices:
        recording_observer = local_data.recording_observer(store, session.forecaster, observe)
        searcher = session.create_searcher()
        executor = session.create_executor(observe, devices)
        ranking = tune(store.experiment, searcher, executor, store, recording_observer)
    store.save_search(searcher.report.stop_reason, searcher.report.skipped, searcher.report.candidate_count)
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
    search_report = SearchReport(*store.load_search())
    shown_command = with_comment(command, remark) if command else None
    defaults_command = None
    if baseline is not None and defaults is not None:
        rendered = render(baseline, launch_form(store.experiment))
        defaults_command = with_comment(rendered, simulation_remark(store.experiment, defaults.source))
    text = markdown_report(
        ranking,
        trials,
        store.experiment,
        command=shown_command,
        defaults_command=defaults_command,
        picture=PLOT_FILE,
        refused=refused,
        search_report=search_report,
    )
    store.save("report.md", text)
    if spec is not None:
        formats = {"command.sh": "shell"} | ({"docker.sh": "docker", "compose.yaml": "compose"} if spec.image else {})
        for name, command_format in formats.items():
            store.save(f"best/{name}", with_comment(render(spec, command_format), remark))
    return Result(ranking, trials, store.path, command, refused, search_report, remark)


def launch_form(experiment: Experiment) -> str:
    """The format of the launch commands that start the experiment's servers."""
    return "docker" if experiment.deployment.mode == "docker" and experiment.runtime.image else "shell"


def simulation_remark(experiment: Experiment, source: Source) -> str:
    """The remark on a printed command whose server was simulated and not measured; empty if it was measured."""
    if source == "measured":
        return ""
    gpu_remark = f"simulated on {simulated_gpu(experiment)}"
    if experiment.base_runtime == Sim.name:
        return f"Not measured: {gpu_remark}; this starts the simulated engine."
    remark = f"Not measured: {gpu_remark}; this is what would be started."
    model = experiment.model.id_or_path
    if model not in catalogue() or is_path(model):
        return remark
    return f"{remark}\n{model} is a name for predictions: give the engine the model's folder or Hugging Face id."


def winning_spec(ranking: Ranking, trials: Sequence[Trial]) -> ServerSpec | None:
    """The winner's server spec, as evaluated; None without a winner or a launch."""
    return _measured_spec(ranking.winner, trials)


def _measured_spec(standing: Standing | None, trials: Sequence[Trial]) -> ServerSpec | None:
    if standing is None:
        return None
    return next(trial.measurement.spec for trial in trials if trial.number == standing.trial_number)


def _printable_spec(experiment: Experiment, standing: Standing | None, trials: Sequence[Trial]) -> ServerSpec | None:
    """A standing's server spec on the engine's default port; None without a standing or a launch."""
    spec = _measured_spec(standing, trials)
    return with_port(spec, engine(experiment.base_runtime).default_port) if spec else None
