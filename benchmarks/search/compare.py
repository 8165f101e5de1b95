"""Compare search strategies over many simulated worlds whose operator costs differ from the predicted ones.

    python benchmarks/search/compare.py --worlds 60 --processes 2 --write docs/reference/figures.md

The true best of each world comes from long runs and is cached for the next time. Everything is seeded: the same command
gives the same figures on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from strategies import STRATEGIES
from truth import Truth
from worlds import SKEWS, World, worlds

from autotuner.scoring.intervals import wilson_share
from autotuner.search.strategies import SEARCHERS

CACHE = Path.home() / ".cache" / "autotune" / "benchmark-worlds"
MARKS = "<!-- search comparison -->", "<!-- end of search comparison -->"
NEAR_BEST_REGRET = 0.05
REQUIRED_SEARCHERS = {"racing": "racing"}
"""Strategy -> the searcher without which it is skipped."""


@dataclass(frozen=True)
class Row:
    """One strategy in one world; `regret` is 1 - true utility of the choice / true utility of the best."""

    world: str
    skew: float
    strategy: str
    launches: int
    load_points: int
    confirmations: int
    regret: float
    chosen: str | None
    virtual_hours: float
    cpu_seconds: float


def compare(job: tuple[World, tuple[str, ...], str]) -> list[Row]:
    """Run every strategy in one world."""
    world, names, cache = job
    truth = Truth(world, Path(cache))
    best = truth.best()
    rows = []
    for name in names:
        start = time.process_time()
        outcome = STRATEGIES[name](world)
        cpu_seconds = time.process_time() - start
        value = truth.value(outcome.chosen) if outcome.chosen else 0.0
        rows.append(
            Row(
                world=world.name,
                skew=world.skew,
                strategy=name,
                launches=outcome.launches,
                load_points=outcome.load_points,
                confirmations=outcome.confirmations,
                regret=max(0.0, 1 - value / best) if best else 0.0,
                chosen=str(outcome.chosen) if outcome.chosen else None,
                virtual_hours=outcome.seconds / 3600,
                cpu_seconds=cpu_seconds,
            )
        )
    return rows


def median_interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """95% bootstrap interval of a median, over worlds, seeded."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[math.ceil(0.975 * draws) - 1]


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """Medians with intervals, and the share of worlds near the best, of one strategy at one skew."""
    hits = wilson_share(sum(row.regret <= NEAR_BEST_REGRET for row in rows), len(rows))
    assert hits is not None
    result: dict[str, object] = {"worlds": len(rows)}
    for name in ("launches", "load_points", "regret", "virtual_hours", "cpu_seconds"):
        values = [float(getattr(row, name)) for row in rows]
        result[name] = {
            "median": statistics.median(values),
            "interval": median_interval(values),
            "mean": statistics.fmean(values),
            "max": max(values),
        }
    result["near"] = {"share": hits.value, "interval": (hits.low, hits.high)}
    return result


def table(rows: Sequence[Row]) -> str:
    """All strategies at all skews, as Markdown."""
    lines = [
        "| skew | strategy | worlds | launches | load points | regret, mean (largest) | within 5% of the best |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for skew in SKEWS:
        for name in dict.fromkeys(row.strategy for row in rows):
            selected = [row for row in rows if row.strategy == name and row.skew == skew]
            if not selected:
                continue
            result = summary(selected)
            cells = [f"{skew:g}", name, str(len(selected))]
            cells += [_median_text(result["launches"]), _median_text(result["load_points"])]
            regret, near = result["regret"], result["near"]
            cells += [f"{regret['mean']:.1%} ({regret['max']:.1%})"]  # type: ignore[index]
            low, high = near["interval"]  # type: ignore[index]
            cells += [f"{near['share']:.0%} ({low:.0%} to {high:.0%})"]  # type: ignore[index]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _median_text(result: object) -> str:
    low, high = result["interval"]  # type: ignore[index]
    return f"{result['median']:g} ({low:g} to {high:g})"  # type: ignore[index]


def write(page: Path, text: str) -> None:
    """Replace the text between the page's marks."""
    begin, end = MARKS
    content = page.read_text()
    if begin not in content or end not in content:
        raise SystemExit(f"{page} has no lines '{begin}' and '{end}'.")
    page.write_text(re.sub(f"{begin}.*{end}", f"{begin}\n{text}\n{end}", content, flags=re.DOTALL))


def main() -> None:
    """Read the command line, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=60, help="how many worlds, from the first on")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--strategies", help="names to compare, separated by semicolons")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the true values")
    parser.add_argument("--json", type=Path, help="file for every row and summary")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    selected = options.strategies.split(";") if options.strategies else list(STRATEGIES)
    names = tuple(name for name in selected if name not in REQUIRED_SEARCHERS or REQUIRED_SEARCHERS[name] in SEARCHERS)
    jobs = [(world, names, str(options.cache)) for world in worlds(options.worlds)]
    rows: list[Row] = []
    with get_context("spawn").Pool(options.processes) as pool:
        for world_rows in pool.imap_unordered(compare, jobs):
            rows += world_rows
            for row in world_rows:
                print(
                    f"{row.world} skew {row.skew:g}: {row.strategy}: {row.launches} launches, "
                    f"{row.load_points} load points, regret {row.regret:.1%}, {row.cpu_seconds:.1f} s",
                    flush=True,
                )
    rows.sort(key=lambda row: (row.world, names.index(row.strategy)))
    text = table(rows)
    print(text)
    if options.json:
        summaries = {
            f"{name}, skew {skew:g}": summary(selected_rows)
            for skew in SKEWS
            for name in names
            if (selected_rows := [row for row in rows if row.strategy == name and row.skew == skew])
        }
        options.json.write_text(json.dumps({"summaries": summaries, "rows": [asdict(row) for row in rows]}, indent=1))
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
