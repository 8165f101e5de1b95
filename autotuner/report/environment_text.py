"""Says where a run ran: hosts, hardware, versions, and which trials ran side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from autotuner.errors import pluralize
from autotuner.report.run_view import RunView

ENGINE_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}

MAX_NAMED_RANGES = 20
"""Numbers and ranges of numbers that are listed of trials that ran side by side."""

Host = Mapping[str, Any]
"""A host as recorded by `launchers/environment.py`."""


def environment_sentence(view: RunView) -> str:
    """Hosts with their hardware, and versions; empty for a run that recorded no host.

    A server that was running already may be on another machine, so nothing is said of its hardware.
    """
    if not view.environments or not view.trials:
        return ""
    verb = _joined(view.ranking.sources).capitalize()
    if view.experiment.deployment.mode == "external":
        place = f"from {_joined(_distinct(host.get('host') for host in view.environments))}"
    else:
        is_measured = "measured" in view.ranking.sources
        hosts = _distinct(
            f"{host.get('host')}: {(is_measured and _gpus(host)) or _cpu(host)}" for host in view.environments
        )
        place = f"on {hosts[0]}" if len(hosts) == 1 else f"on {len(hosts)} hosts, one after another: {'; '.join(hosts)}"
    return f"{'; '.join([f'{verb} {place}', *_engines(view), _versions(view, 'autotune')])}."


def environment_lines(view: RunView) -> list[str]:
    """One line for each host and engine, and one of versions; empty for a run that recorded no host."""
    if not view.environments:
        return []
    hosts = _distinct(
        f"{host.get('host')}: {host.get('system')}, kernel {host.get('kernel')}, {_cpu(host)}, "
        f"{_gpus(host) or 'no GPU'}"
        for host in view.environments
    )
    return [*hosts, *_engines(view, with_digests=True), f"{_versions(view, 'autotune')}, {_versions(view, 'python')}"]


def parallel_trials_note(view: RunView) -> str:
    """Which trials ran beside others, and so shared the host with them; empty if none did."""
    numbers = sorted(trial.number for trial in view.trials if trial.parallel_trials)
    if len(numbers) < 2:
        return f"Trial {numbers[0]} ran beside one that did not finish." if numbers else ""
    limit = view.experiment.optimization.parallel_trials
    at_most = f", at most {limit} at a time" if len(numbers) > limit else ""
    ranges = _number_ranges(numbers)
    more = len(ranges) - MAX_NAMED_RANGES
    text = f"{', '.join(ranges[:MAX_NAMED_RANGES])} and others" if more > 0 else _joined(ranges)
    return f"Trials {text} ran side by side{at_most}."


def gpu_text(view: RunView) -> str:
    """The GPUs of the run: the simulated type, or those of the host; empty where they are not known."""
    from autotuner.evaluate.simulated import simulated_gpu  # the simulated engine takes a moment to import

    experiment = view.experiment
    if "simulated" in view.ranking.sources:
        return f"simulated {simulated_gpu(experiment).replace('_', ' ').upper()}"
    if experiment.deployment.mode == "external":
        return experiment.hardware.gpu_type or ""
    names = Counter(gpu["name"] for host in view.environments[-1:] for gpu in host.get("gpus") or ())
    hosts = " and ".join(f"{count}x {name}" for name, count in names.items())
    return hosts or experiment.hardware.gpu_type or ("CPU" if view.environments else "")


def _gpus(host: Host) -> str:
    """GPUs by type, and the driver; empty for a host without GPUs."""
    counts = Counter(gpu["name"] for gpu in host.get("gpus") or ())
    types = " and ".join(f"{count}x {name}" for name, count in counts.items())
    return f"{types}, driver {host.get('driver')}" if types else ""


def _cpu(host: Host) -> str:
    return f"{host.get('cpu')}, {pluralize(host.get('cpu_cores', 0), 'core')}"


def _engines(view: RunView, *, with_digests: bool = False) -> list[str]:
    """Engines of measured trials with the versions, else the container images, that their logs tell."""
    texts = []
    for trial in view.trials:
        server, name = trial.measurement.server, trial.candidate.runtime
        known = [server[key] for key in ("version", "image", "image_digest") if key in server]
        if known and trial.measurement.source == "measured":
            texts.append(f"{ENGINE_NAMES.get(name, name)} {', '.join(known if with_digests else known[:1])}")
    return _distinct(texts)


def _versions(view: RunView, name: str) -> str:
    versions = _joined(_distinct(host.get(name) for host in view.environments))
    return f"{name.replace('python', 'Python')} {versions}"


def _number_ranges(numbers: Sequence[int]) -> list[str]:
    """Sorted numbers as text, with three or more in a row as `1 to 3`."""
    runs = [[number for _, number in group] for _, group in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    return [text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]


def _distinct(texts: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(text) for text in texts if text))


def _joined(texts: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
