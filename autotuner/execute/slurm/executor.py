"""Runs trials as jobs of Slurm: each in a folder on the shared file system, on a host that Slurm chooses."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
from collections import deque
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner import owner
from autotuner.core import Failure, FailureKind, Measurement, Progress, Trial
from autotuner.errors import MachineError, pluralize
from autotuner.evaluate.clock import steady_unix_time
from autotuner.execute.remote import RemoteWork
from autotuner.execute.slurm import commands, job_states
from autotuner.execute.slurm.job_folder import JobFolder, JobRecord, JobStarted, JobWork
from autotuner.execute.virtual_clocks import VirtualClocks
from autotuner.experiment import SlurmSettings
from autotuner.redaction import redact
from autotuner.search.launch import Launch

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""Between two looks at what jobs have written."""

POLL_SECONDS = 5.0
"""Between two questions to the controller, of which a large cluster can answer few."""

RESULT_SECONDS = 15.0
"""How long after the end of a job its last message may still appear on a shared file system."""

UNANSWERED_SECONDS = 600.0
"""How long the controller may give no answer, while jobs go on, before the run ends."""

COMPLETING_SECONDS = 600.0
"""How long a node may take to clean up after a job without a result before it is given up."""

OVERTIME_SECONDS = 900.0
"""How long after its time limit Slurm itself may leave a job running."""

STOP_SECONDS = 90.0
"""How long the jobs of a run that is left may take to stop their servers and end."""

START_MARGIN_SECONDS = 300.0
"""Added to the time limit of a trial for its job: to load Python, to start again after a fault that is chance."""


@dataclass
class JobInFlight:
    """A trial whose job is in the queue or runs: its folder, its place, and when something was first seen of it."""

    number: int
    launch: Launch
    trial_folder: Path
    folder: JobFolder
    record: JobRecord
    place: int
    started: JobStarted | None = None
    neighbours: set[int] = field(default_factory=set)
    shown_reason: str = ""
    ended_since: float | None = None
    completing_since: float | None = None
    running_since: float | None = None

    @property
    def job_id(self) -> str:
        return self.record.job_id


@dataclass
class UnsubmittedLaunch:
    """A launch that the controller has not taken yet, and since when it was asked to."""

    number: int
    launch: Launch
    trial_folder: Path
    since: float


class SlurmExecutor(AbstractContextManager["SlurmExecutor"]):
    """Runs at most `work.limit` trials at once as jobs; leaving its block cancels those that are left.

    A job waits up to `settings.queue_timeout` seconds in the queue, which count for no trial. Jobs that an earlier
    process of the run has left in the queue, or whose results nobody has read, are taken over.
    """

    def __init__(
        self,
        work: RemoteWork,
        settings: SlurmSettings,
        *,
        poll_seconds: float = POLL_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.work = work
        self.settings = settings
        self.poll_seconds = poll_seconds
        self.look_seconds = look_seconds
        self._clocks = VirtualClocks(work.limit) if work.in_virtual_time else None
        self._unsubmitted: deque[UnsubmittedLaunch] = deque()
        self._jobs: list[JobInFlight] = []
        self._finished: deque[Trial] = deque()
        self._left_jobs: list[tuple[JobFolder, JobRecord]] | None = None
        self._trials: Path | None = None
        self._unanswered_since: float | None = None
        self._next_poll = 0.0

    def __exit__(self, *exc: object) -> None:
        """Cancel the jobs that are left, and wait until they have ended."""
        self._unsubmitted.clear()
        jobs = [(job.folder, job.trial_folder, job.job_id) for job in self._jobs]
        self._jobs.clear()
        with suppress(commands.SlurmCommandError):
            self._cancel_unclaimed()
            job_ids = {job_id for _, _, job_id in jobs} | self._unfinished_job_ids()
            if not job_ids or self._end(job_ids):
                for folder, trial_folder, _ in jobs:
                    folder.move_files(trial_folder)
                return
        for _, _, job_id in jobs:  # autotune clean, or --resume, finds it
            log.warning("job %s could not be cancelled; look for it with squeue, or use autotune clean", job_id)

    @property
    def has_room(self) -> bool:
        """Whether another launch can be submitted."""
        return len(self._jobs) + len(self._unsubmitted) + len(self._finished) < self.work.limit

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        """Submit a launch as trial `number`, or take over the job that an earlier process of the run has left."""
        self._trials = folder.parent.resolve()
        if self._left_jobs is None:
            self._left_jobs = self._find_left_jobs(folder.parent)
        for found_job in self._left_jobs:
            candidate, purpose = found_job[1].candidate, found_job[1].purpose
            if candidate == launch.candidate and purpose == launch.purpose:
                self._left_jobs.remove(found_job)
                log.info("trial %d goes on: its job %s was found", number, found_job[1].job_id)
                self._jobs.append(JobInFlight(number, launch, folder, *found_job, self._free_place()))
                return
        self._unsubmitted.append(UnsubmittedLaunch(number, launch, folder, time.monotonic()))
        self._submit_waiting()

    def wait_for_trial(self) -> Trial | None:
        """Report the progress of all trials until one ends; None when none runs. AutotuneError if it ended the run."""
        try:
            self._cancel_unclaimed()
        except commands.SlurmCommandError as error:
            raise commands.machine_error("cancel jobs of an earlier process of this run", error) from error
        while self._finished or self._jobs or self._unsubmitted:
            if self._finished:
                return self._finished.popleft()
            for job in list(self._jobs):
                if (trial := self._read(job)) is not None:
                    return self._finish(job, trial)
            if time.monotonic() >= self._next_poll:
                self._submit_waiting()
                self._ask_queue()
                self._next_poll = time.monotonic() + self.poll_seconds
            else:
                time.sleep(self.look_seconds)
        return None

    def _find_left_jobs(self, trials: Path) -> list[tuple[JobFolder, JobRecord]]:
        """The jobs of an earlier process that run or wait, or have left a trial; what is left of others is removed."""
        folders = JobFolder.all_in(trials)
        if not folders:
            return []
        try:
            active = {
                entry.folder.resolve(): entry
                for entry in commands.queue().values()
                if entry.state in job_states.ACTIVE_STATES
            }
        except commands.SlurmCommandError as error:
            raise commands.machine_error("list the jobs that an earlier process of this run left", error) from error
        found_jobs = []
        for folder in folders:
            entry, record = active.get(folder.path.resolve()), folder.record()
            if record is not None and entry is not None:
                record = replace(record, job_id=entry.job_id)  # it may have been killed before it wrote the id
                folder.save(record)
            is_readable = record is not None and record.version == JobRecord.version
            has_trial = is_readable and any(isinstance(message, Trial) for message in folder.all_messages())
            if record is not None and is_readable and (entry is not None or has_trial):
                found_jobs.append((folder, record))
            else:
                if entry is not None:
                    self._end({entry.job_id})
                folder.remove()
        return found_jobs

    def _cancel_unclaimed(self) -> None:
        """End the jobs of an earlier process that the search has not asked for again."""
        unclaimed, self._left_jobs = self._left_jobs or [], [] if self._left_jobs is not None else None
        if unclaimed and self._end({record.job_id for _, record in unclaimed}):
            for folder, _ in unclaimed:
                folder.remove()

    def _unfinished_job_ids(self) -> set[str]:
        """The jobs of this run in the queue whose trials have not ended: one may have been submitted unheard."""
        if self._trials is None:
            return set()
        active = (entry for entry in commands.queue().values() if entry.state in job_states.ACTIVE_STATES)
        return {
            entry.job_id for entry in active if entry.folder.parent.resolve() == self._trials and entry.folder.exists()
        }

    def _end(self, job_ids: set[str]) -> bool:
        """Cancel jobs and wait until they have ended; False if some have not in time."""
        commands.cancel(job_ids)
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            entries = commands.queue()
            if not any(entries[each].state in job_states.ACTIVE_STATES for each in job_ids & entries.keys()):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(1.0, self.poll_seconds))

    def _free_place(self) -> int:
        return min(set(range(self.work.limit)) - {job.place for job in self._jobs})

    def _submit_waiting(self) -> None:
        """Submit what is not submitted yet, as far as the controller takes it."""
        while self._unsubmitted:
            waiting = self._unsubmitted[0]
            try:
                job = self._submit(waiting)
            except commands.SlurmCommandError as error:
                if error.is_transient and time.monotonic() - waiting.since < UNANSWERED_SECONDS:
                    log.warning("trial %d is not submitted yet: %s", waiting.number, error)
                    return
                if not error.is_unfit:
                    raise commands.machine_error("run a trial", error) from error
                failure = job_states.unfit(f"Slurm refused the job: {error}.")
                now = steady_unix_time()
                self._finished.append(self._trial(waiting.number, waiting.launch, failure, now, now))
            else:
                self._jobs.append(job)
            self._unsubmitted.popleft()

    def _submit(self, waiting: UnsubmittedLaunch) -> JobInFlight:
        folder = JobFolder.beside(waiting.trial_folder.absolute())
        candidate = waiting.launch.candidate
        record = JobRecord(candidate.runtime, dict(candidate.parameters), waiting.launch.purpose, steady_unix_time())
        job_id = self._id_of(folder)  # an answer that was lost
        if not job_id:
            locked_gpus = 0 if self.work.in_virtual_time else self.work.gpu_count(candidate)
            level = logging.getLogger("autotuner").level
            work = JobWork(self.work.create_evaluator, waiting.number, waiting.launch, locked_gpus, level)
            folder.create(work, record)
            options = job_options(self.settings, self.work, self.work.gpu_count(candidate), folder.path)
            job_id = commands.submit(options, job_script(self.settings, folder.path))
        record = replace(record, job_id=job_id)
        folder.save(record)
        log.debug("trial %d is job %s", waiting.number, job_id)
        return JobInFlight(waiting.number, waiting.launch, waiting.trial_folder, folder, record, self._free_place())

    def _id_of(self, folder: JobFolder) -> str:
        """The id of the job that works in a folder already; empty where none does."""
        if folder.record() is None:
            return ""
        active = (entry for entry in commands.queue().values() if entry.state in job_states.ACTIVE_STATES)
        return next((entry.job_id for entry in active if entry.folder.resolve() == folder.path.resolve()), "")

    def _read(self, job: JobInFlight) -> Trial | None:
        """Handle what a job has written since the last look; the trial if it has ended."""
        for message in job.folder.new_messages():
            if isinstance(message, JobStarted):
                job.started = message
                for other in self._jobs:
                    if other is not job and other.started is not None and other.started.host == message.host:
                        other.neighbours.add(job.number)
                        job.neighbours.add(other.number)
            elif isinstance(message, Progress):
                self.work.observe(replace(message, trial_number=job.number))
            elif isinstance(message, logging.LogRecord):
                logging.getLogger(message.name).handle(message)
            elif isinstance(message, Trial):
                return message
            else:
                raise message
        return None

    def _ask_queue(self) -> None:
        """Look at the states of all jobs; what has ended without a result becomes a failed trial."""
        if not self._jobs:
            return
        try:
            entries = commands.queue()
        except commands.SlurmCommandError as error:
            now = time.monotonic()
            self._unanswered_since = self._unanswered_since or now
            log.debug("squeue: %s", error)
            if now - self._unanswered_since > UNANSWERED_SECONDS:
                raise commands.machine_error("list the jobs of this run", error) from error
            return
        self._unanswered_since = None
        for job in list(self._jobs):
            failure = self._failure(job, entries.get(job.job_id))
            if failure is None:
                continue
            trial = self._read(job)  # it may have been written meanwhile
            if trial is None:
                with suppress(commands.SlurmCommandError):
                    commands.cancel({job.job_id})
                now = steady_unix_time()
                started = min(job.started.time, now) if job.started else now
                trial = self._trial(job.number, job.launch, failure, started, now)
            self._finished.append(self._finish(job, trial))

    def _failure(self, job: JobInFlight, entry: commands.QueueEntry | None) -> Failure | None:
        """Why a job will bring no result any more; None while it may."""
        now = time.monotonic()
        if entry is None or entry.state not in job_states.ACTIVE_STATES:
            job.ended_since = job.ended_since or now
            if now - job.ended_since < (0.0 if entry is not None and job_states.is_killed(entry) else RESULT_SECONDS):
                return None
            if entry is None:
                return job_states.gone(job.job_id)
            return self._ended_failure(job, entry.state)
        job.ended_since = None
        if entry.state in job_states.WAITING_STATES:
            return self._waiting_failure(job, entry)
        if entry.state == job_states.SUSPENDED_STATE:  # what was measured is no measurement any more
            return job_states.preempted(job.job_id, "", {})
        if entry.state == job_states.COMPLETING_STATE:
            job.completing_since = job.completing_since or now
            if now - job.completing_since > COMPLETING_SECONDS:
                return self._ended_failure(job, commands.job_details(job.job_id).get("JobState", ""))
            return None
        job.running_since = job.running_since or now
        if entry.limit is not None and now - job.running_since > entry.limit + OVERTIME_SECONDS:
            return self._ended_failure(job, "TIMEOUT")
        return None

    def _waiting_failure(self, job: JobInFlight, entry: commands.QueueEntry) -> Failure | None:
        """Why a job in the queue is given up; None while it may start. Says why it waits where that is unusual."""
        waited = steady_unix_time() - job.record.submitted
        if entry.reason in job_states.HELD_REASONS:
            return Failure(
                FailureKind.NODE_LOST,
                f"A node could not start job {job.job_id}: {entry.reason}.",
                "Ask its administrator; `scontrol show job` says which node. " + job_states.CANDIDATE_REMEDY,
            )
        if entry.reason in job_states.HOPELESS_REASONS:
            return job_states.unfit(f"Job {job.job_id} could never start: {entry.reason}.")
        if waited > self.settings.queue_timeout:
            return job_states.unfit(
                f"Job {job.job_id} waited {waited:.0f} s in the queue, which is longer than deployment.slurm."
                f"queue_timeout: {entry.reason}."
            )
        if entry.reason != job.shown_reason:
            level = logging.INFO if entry.reason in job_states.ORDINARY_REASONS else logging.WARNING
            log.log(level, "trial %d waits in the queue as job %s: %s", job.number, job.job_id, entry.reason)
            job.shown_reason = entry.reason
        return None

    def _ended_failure(self, job: JobInFlight, state: str) -> Failure:
        """The failure of a job that left no result; MachineError if it could not even start autotune."""
        details = commands.job_details(job.job_id)
        last_words = redact(job.folder.last_lines())
        if job.started is None and state in ("FAILED", "COMPLETED"):
            node = details.get("BatchHost", "")
            raise MachineError(
                f"Job {job.job_id} could not start autotune on the node {node}.".replace(" on the node .", "."),
                why=last_words or "It printed nothing.",
                remedy="This Python and the folder of runs must be there under the same names, on a shared file "
                "system; or name a Python with deployment.slurm.python. Continue with --resume.",
            )
        return job_states.ended_failure(job.job_id, state, details, last_words)

    def _trial(self, number: int, launch: Launch, failure: Failure, started: float, ended: float) -> Trial:
        measurement = Measurement(self.work.source, (), failure)
        return Trial(number, launch.candidate, measurement, started, ended, launch.purpose)

    def _finish(self, job: JobInFlight, trial: Trial) -> Trial:
        """The trial as this process records it: its number, its time on this clock, its wait, its files in place."""
        self._jobs.remove(job)
        measurement = trial.measurement
        if (failure := measurement.failure) is not None:
            remedy = failure.remedy.replace(str(job.folder.files), str(job.trial_folder))
            measurement = replace(measurement, failure=replace(failure, remedy=remedy))
        if job.started is not None:
            queue_seconds = max(0.0, job.started.time - job.record.submitted)
            measurement = replace(measurement, timings={**measurement.timings, "queue": round(queue_seconds, 3)})
        job.folder.move_files(job.trial_folder)
        trial = replace(
            trial, number=job.number, measurement=measurement, parallel_trials=tuple(sorted(job.neighbours))
        )
        if self._clocks is not None:
            return self._clocks.timed(trial, job.place)
        ended = steady_unix_time()
        return replace(trial, started=ended - (trial.ended - trial.started), ended=ended)


def preflight(work: RemoteWork, settings: SlurmSettings, runs: Path, gpu_count: int) -> None:
    """MachineError if Slurm would refuse a job with `gpu_count` GPUs; submits nothing."""
    commands.require_commands()
    folder = next(parent for parent in (runs.absolute(), *runs.absolute().parents) if parent.exists())
    try:
        commands.check_submission(job_options(settings, work, gpu_count, folder), job_script(settings, folder))
    except commands.SlurmCommandError as error:
        if "node configuration is not available" in str(error):  # it says so too while all nodes are drained
            log.warning("no node of Slurm could run a trial with %s now: %s", pluralize(gpu_count, "GPU"), error)
            return
        raise commands.machine_error(f"run trials with {pluralize(gpu_count, 'GPU')}", error) from error


def job_options(settings: SlurmSettings, work: RemoteWork, gpu_count: int, folder: Path) -> list[str]:
    """The options of sbatch for a job that works in `folder` and needs `gpu_count` GPUs of one node."""
    minutes = math.ceil((work.time_limit + START_MARGIN_SECONDS) / 60)
    own = {
        "job-name": commands.JOB_NAME,
        "chdir": str(folder),
        "output": f"{folder}/slurm.log".replace("%", "%%"),
        "open-mode": "append",
        "nodes": "1",
        "ntasks": "1",
        "export": "ALL",
        "time": settings.time_limit or str(minutes),
        "partition": settings.partition,
        "account": settings.account,
    }
    options = [f"--{name}={value}" for name, value in own.items() if value is not None]
    gpus = shlex.split(settings.gpu_option.format(gpus=gpu_count)) if gpu_count else []
    return ["--no-requeue", *options, *gpus, *settings.options]


def job_script(settings: SlurmSettings, folder: Path) -> str:
    """The script of a job: the container, if any, around a Python that runs the work of `folder`."""
    lines = ["#!/bin/sh", f"unset {owner.OWNER_VARIABLE}"]  # of the process that submits it, which may end before
    if settings.python is None:
        package = str(Path(__file__).parents[3])
        search_path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), package)))
        lines.append(f"export PYTHONPATH={shlex.quote(search_path)}")
    python = shlex.quote(settings.python or sys.executable)
    command = f"{python} -P -m autotuner.execute.slurm.job {shlex.quote(str(folder))}"
    lines.append(" ".join(filter(None, ("exec", settings.command_prefix.strip(), command))))
    return "\n".join(lines) + "\n"
