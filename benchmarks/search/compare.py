"""Compare search strategies over many simulated worlds whose costs are not what is predicted.

    python benchmarks/search/compare.py --worlds 60 --processes 2 --write docs/reference/figures.md

The true best of each world is found by long runs and kept in the cache folder for the next time.
Everything is seeded: the same command gives the same figures, on any machine.
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
NEAR = 0.05
OWN = {"racing": "racing"}
"""Strategies that are left out where the program has no such searcher."""


@dataclass(frozen=True)
class Row:
    """One strategy in one world; `regret` is what the choice loses of the true best."""

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
    """Let every strategy search one world."""
    world, names, cache = job
    truth = Truth(world, Path(cache))
    best = truth.best()
    rows = []
    for name in names:
        began = time.process_time()
        found = STRATEGIES[name](world)
        spent = time.process_time() - began
        value = truth.value(found.chosen) if found.chosen else 0.0
        rows.append(
            Row(
                world=world.name,
                skew=world.skew,
                strategy=name,
                launches=found.launches,
                load_points=found.load_points,
                confirmations=found.confirmations,
                regret=max(0.0, 1 - value / best) if best else 0.0,
                chosen=str(found.chosen) if found.chosen else None,
                virtual_hours=found.seconds / 3600,
                cpu_seconds=spent,
            )
        )
    return rows


def median_interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """95% interval of a median, by a seeded bootstrap over worlds."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[math.ceil(0.975 * draws) - 1]


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """One strategy at one skew: medians with intervals, and the share of worlds near the best."""
    hits = wilson_share(sum(row.regret <= NEAR for row in rows), len(rows))
    assert hits is not None
    said: dict[str, object] = {"worlds": len(rows)}
    for name in ("launches", "load_points", "regret", "virtual_hours", "cpu_seconds"):
        values = [float(getattr(row, name)) for row in rows]
        said[name] = {
            "median": statistics.median(values),
            "interval": median_interval(values),
            "mean": statistics.fmean(values),
            "max": max(values),
        }
    said["near"] = {"share": hits.value, "interval": (hits.low, hits.high)}
    return said


def table(rows: Sequence[Row]) -> str:
    """All strategies at all skews, as Markdown."""
    lines = [
        "| skew | strategy | worlds | launches | load points | regret, mean (largest) | within 5% of the best |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for skew in SKEWS:
        for name in dict.fromkeys(row.strategy for row in rows):
            of = [row for row in rows if row.strategy == name and row.skew == skew]
            if not of:
                continue
            said = summary(of)
            cells = [f"{skew:g}", name, str(len(of))]
            cells += [_median(said["launches"]), _median(said["load_points"])]
            regret, near = said["regret"], said["near"]
            cells += [f"{regret['mean']:.1%} ({regret['max']:.1%})"]  # type: ignore[index]
            low, high = near["interval"]  # type: ignore[index]
            cells += [f"{near['share']:.0%} ({low:.0%} to {high:.0%})"]  # type: ignore[index]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _median(said: object) -> str:
    low, high = said["interval"]  # type: ignore[index]
    return f"{said['median']:g} ({low:g} to {high:g})"  # type: ignore[index]


def write(page: Path, text: str) -> None:
    """Put the table between the page's marks."""
    begin, end = MARKS
    before = page.read_text()
    if begin not in before or end not in before:
        raise SystemExit(f"{page} has no lines '{begin}' and '{end}'.")
    page.write_text(re.sub(f"{begin}.*{end}", f"{begin}\n{text}\n{end}", before, flags=re.DOTALL))


def main() -> None:
    """Read the command line, compare, and say how it came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=60, help="how many worlds, from the first on")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--strategies", help="names to compare, separated by semicolons")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the true values")
    parser.add_argument("--json", type=Path, help="file for every row and summary")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    given = parser.parse_args()
    asked = given.strategies.split(";") if given.strategies else list(STRATEGIES)
    names = tuple(name for name in asked if name not in OWN or OWN[name] in SEARCHERS)
    jobs = [(world, names, str(given.cache)) for world in worlds(given.worlds)]
    rows: list[Row] = []
    with get_context("spawn").Pool(given.processes) as pool:
        for found in pool.imap_unordered(compare, jobs):
            rows += found
            for row in found:
                print(
                    f"{row.world} skew {row.skew:g}: {row.strategy}: {row.launches} launches, "
                    f"{row.load_points} load points, regret {row.regret:.1%}, {row.cpu_seconds:.1f} s",
                    flush=True,
                )
    rows.sort(key=lambda row: (row.world, names.index(row.strategy)))
    text = table(rows)
    print(text)
    if given.json:
        summaries = {
            f"{name}, skew {skew:g}": summary(of)
            for skew in SKEWS
            for name in names
            if (of := [row for row in rows if row.strategy == name and row.skew == skew])
        }
        given.json.write_text(json.dumps({"summaries": summaries, "rows": [asdict(row) for row in rows]}, indent=1))
    if given.write:
        write(given.write, text)


if __name__ == "__main__":
    main()
