"""Fuzz every input of autotune: `python fuzz.py --inputs 20000 --seed 1`, or `--seconds 180`.

Each input is given to a command in this process, or to the function that reads it; a finding is an exit code of 70, an
exception that is none of the errors shown to users, an input that takes longer than TIME_LIMIT_SECONDS of processor
time, or growth of the process beyond MAX_GROWTH_MIB. Every finding is printed with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import inputs
from typer.testing import CliRunner

from autotuner.cli import app
from autotuner.endpoints.counters import parse_prometheus
from autotuner.endpoints.error_text import error_text
from autotuner.load.error_messages import readable_message
from autotuner.load.response import extract_body
from autotuner.load.retry_after import retry_after
from autotuner.load.stream import chat_text, decode

TIME_LIMIT_SECONDS = 20
MAX_GROWTH_MIB = 1024
EXIT_UNEXPECTED = 70
RUN_ARGUMENTS = (
    "run",
    "--profile",
    "quick-test",
    "--evaluator",
    "simulated",
    "--max-iterations",
    "2",
    "--duration",
    "5",
)

SLA_ARGUMENTS = (
    *("sla", "run", "--evaluator", "predicted", "--gpus-per-engine", "1", "--rate", "2"),
    *("--prefill-points", "4", "--decode-points", "3"),
)
PAGE_SHARE = 0.1
"""Share of the damaged run folders of which the page is made, which takes ten times as long as a table."""

Case = Callable[[random.Random], str | None]
"""Tries one input; what is wrong with how it was taken, None where nothing is."""


class TookTooLongError(BaseException):
    """Not an Exception, so that no boundary of the code under test takes it for one."""


class Fuzzer:
    """The cases, in a folder of their own with one finished run to damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = CliRunner()
        self.cases: dict[str, Case] = {
            "yaml": self.yaml,
            "set": self.setting,
            "slo": self.slo,
            "scenario": self.scenario,
            "trace": self.trace,
            "model config": self.model_config,
            "run folder": self.run_folder,
            "sla profile": self.sla_profile,
            "baseline": self.baseline,
            "names": self.names,
            "response": self.response,
            "metrics": self.metrics,
        }
        problem = self.command(*RUN_ARGUMENTS, "--output", "made")
        [self.run_path] = (folder / "made").glob("*/")
        problem = problem or self.command(*SLA_ARGUMENTS, "--output", "profile")
        problem = problem or self.command("baseline", "save", str(self.run_path), "--to", "baseline.json")
        assert problem is None, problem

    def command(self, *arguments: str) -> str | None:
        """Run a command; what is wrong with its end."""
        result = self.runner.invoke(app, list(arguments), prog_name="autotune")
        if result.exit_code == EXIT_UNEXPECTED or (result.exception and not isinstance(result.exception, SystemExit)):
            error = result.exception
            while error is not None and error.__cause__ is not None:
                error = error.__cause__
            place = "".join(traceback.format_exception(error)[-3:]) if error else ""
            return f"exit {result.exit_code}: {result.stderr[-300:]}\n{place}"
        return None

    def yaml(self, rng: random.Random) -> str | None:
        Path("own.yaml").write_text(inputs.yaml_text(rng), "utf-8", "surrogatepass")
        return self.command("config", "show", "--profile", "quick-test", "--config", "own.yaml")

    def setting(self, rng: random.Random) -> str | None:
        return self.command("config", "show", "--profile", "quick-test", "--set", inputs.setting(rng))

    def slo(self, rng: random.Random) -> str | None:
        return self.command("config", "show", "--profile", "quick-test", "--slo", inputs.slo(rng))

    def scenario(self, rng: random.Random) -> str | None:
        Path("trace.jsonl").write_text(inputs.TRACE_LINES[0] + "\n")
        return self.command("run", "--profile", "quick-test", "--dry-run", "--scenario", inputs.scenario(rng))

    def trace(self, rng: random.Random) -> str | None:
        Path("trace.jsonl").write_text(inputs.trace(rng), "utf-8", "surrogatepass")
        rate = ("--rate", "trace") if rng.random() < 0.5 else ()
        return self.command("run", "--profile", "quick-test", "--dry-run", "--scenario", "file:trace.jsonl", *rate)

    def model_config(self, rng: random.Random) -> str | None:
        Path("model").mkdir(exist_ok=True)
        Path("model", "config.json").write_text(inputs.model_config(rng), "utf-8", "surrogatepass")
        return self.command("run", "--profile", "quick-test", "--dry-run", "--model", "./model")

    def run_folder(self, rng: random.Random) -> str | None:
        shutil.rmtree("damaged", ignore_errors=True)
        shutil.copytree(self.run_path, "damaged")
        names = (
            "experiment.yaml",
            "provenance.yaml",
            "trials.jsonl",
            "refused.json",
            "search.json",
            "environment.json",
        )
        inputs.damage(rng, Path("damaged", rng.choice(names)))
        if rng.random() < PAGE_SHARE:
            return self.command("report", "damaged", "--format", "html", "--to", "page.html")
        form = rng.choice(("table", "json", "csv", "markdown"))
        return self.command("report", "damaged", "--format", form)

    def sla_profile(self, rng: random.Random) -> str | None:
        shutil.rmtree("damaged", ignore_errors=True)
        shutil.copytree("profile", "damaged")
        names = ("request.json", "points.jsonl", "sla.json", "prefill_raw_data.json", "decode_raw_data.json")
        inputs.damage(rng, Path("damaged", rng.choice([name for name in names if Path("damaged", name).exists()])))
        command = rng.choice((("show",), ("plan", "--rate", "2"), ("check",), ("compare", "profile")))
        return self.command("sla", command[0], "damaged", *command[1:])

    def baseline(self, rng: random.Random) -> str | None:
        shutil.copy("baseline.json", "damaged.json")
        inputs.damage(rng, Path("damaged.json"))
        return self.command("compare", "damaged.json", str(self.run_path))

    def names(self, rng: random.Random) -> str | None:
        name = inputs.name(rng)
        run = str(self.run_path)
        plan = ("run", "--profile", "quick-test", "--dry-run")
        return self.command(
            *rng.choice(
                (
                    (*plan, rng.choice(("--model", "--config", "--slo", "--scenario", "--gpu", "--runtime")), name),
                    (*plan, "--set", f"{rng.choice(inputs.KEYS)}={name}"),
                    ("run", "--dry-run", rng.choice(("--profile", "-f", "--resume")), name),
                    (rng.choice(("report", "command", "export", "calibrate")), name),
                    ("compare", run, name),
                    ("sla", rng.choice(("show", "plan", "check", "export")), name),
                    ("profiles", rng.choice(("show", "check")), name),
                    ("predict", "table", name),
                    ("bench", f"http://{name}:1"),
                    ("bench", "http://127.0.0.1:1", "--header", f"A: {name}"),
                )
            )
        )

    def response(self, rng: random.Random) -> str | None:
        data = inputs.response(rng)
        pieces = [data[start : start + 97] for start in range(0, len(data), 97)]
        times = [float(number) for number in range(len(pieces))]
        body = extract_body(times, pieces)
        decode(*body, 2)
        chat_text(*body)
        retry_after(429, pieces)
        message = readable_message(error_text(data.decode("utf-8", "replace")), {"Authorization": "Bearer s3cret-key"})
        return None if message.isprintable() else "a message is not printable"

    def metrics(self, rng: random.Random) -> str | None:
        text = 'vllm:num_requests_running{model="m"} 3.0 17\nvllm:prefix_cache_hits_total 1e5\n# HELP a b\n'
        parse_prometheus(inputs.mutated(rng, text * rng.randint(1, 4), 6))
        return None

    def try_one(self, name: str, seed: str) -> str | None:
        """Give one input to a case; what is wrong, None where nothing is."""
        try:
            with time_limit(TIME_LIMIT_SECONDS):
                return self.cases[name](random.Random(seed))
        except TookTooLongError:
            return f"took more than {TIME_LIMIT_SECONDS} s"
        except Exception:  # noqa: BLE001 an exception of any kind is a finding
            return traceback.format_exc(limit=-4)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLongError after so many seconds of this process's processor time."""

    def end(signum: int, frame: object) -> None:
        raise TookTooLongError

    signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def memory_mib() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(folder: Path, count: int, seconds: float, seed: int, names: list[str]) -> int:
    """Try inputs of each kind in turn until one of the limits; returns the number of findings."""
    fuzzer = Fuzzer(folder)
    names = names or list(fuzzer.cases)
    start, memory, tried, findings = time.monotonic(), memory_mib(), Counter[str](), 0
    for number in range(count):
        if time.monotonic() - start > seconds:
            break
        name = names[number % len(names)]
        problem = fuzzer.try_one(name, f"{seed}/{name}/{number}")
        tried[name] += 1
        if memory_mib() - memory > MAX_GROWTH_MIB:
            problem, memory = problem or f"the process has grown to {memory_mib():.0f} MiB", memory_mib()
        if problem:
            findings += 1
            print(f"== {name}, --only {name!r} --replay {number}:\n{problem}", flush=True)
    total = sum(tried.values())
    print(f"{total} inputs, {findings} findings, {time.monotonic() - start:.0f} s, at most {memory_mib():.0f} MiB")
    print(", ".join(f"{name}: {number}" for name, number in tried.items()))
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="one kind of input; may be repeated")
    parser.add_argument("--replay", type=int, help="the number of one input, of the one kind of --only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        os.environ |= {"AUTOTUNE_DATA_HOME": temporary, "XDG_CACHE_HOME": temporary, "COLUMNS": "100"}
        folder = Path(temporary)
        if options.replay is not None:
            [name] = options.only
            print(Fuzzer(folder).try_one(name, f"{options.seed}/{name}/{options.replay}"))
            return 0
        return 1 if fuzz(folder, options.inputs, options.seconds, options.seed, options.only) else 0


if __name__ == "__main__":
    sys.exit(main())
