"""Write the tables of docs/reference/profiles.md from the layers; `--check` fails when they are out of date."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from autotuner.config import Composition, TaskConfigFactory, TaskContext, compose, yaml_documents
from autotuner.predict.hardware import TABLE, read_table

TARGET = Path(__file__).absolute().parent / "reference" / "profiles.md"
ORDER = ("quick-test", "balanced", "low-latency", "high-throughput", "cost-optimization", "production")
SECTIONS = ("optimization", "benchmark", "slo", "deployment", "runtime", "simulate")


def profiles() -> Iterator[str]:
    """What each bundled profile says of the search and its load, or leaves to the layers below it."""
    yield "| profile | objective | max_iterations | tp-size | mem-fraction-static | concurrency |"
    yield "| --- | --- | --- | --- | --- | --- |"
    names = sorted((entry["name"] for entry in TaskConfigFactory.list_profiles()), key=ORDER.index)
    for name in names:
        composition = compose(TaskContext(profiles=[name]))
        paths = (
            "optimization.objective",
            "optimization.max_iterations",
            "parameters.tp-size",
            "parameters.mem-fraction-static",
            "benchmark.num_concurrency",
        )
        yield f"| {' | '.join([name, *(_cell(composition, path) for path in paths)])} |"


def _cell(composition: Composition, path: str) -> str:
    row = next(row for row in composition.rows() if row.path == path)
    value = ", ".join(map(str, row.value)) if isinstance(row.value, list) else str(row.value)
    return value if row.layer.startswith("profile:") else "*from the layers*" if "parameters" in path else f"*{value}*"


def defaults() -> Iterator[str]:
    """Every value a configuration has before anybody says anything."""
    yield "| key | default | from |"
    yield "| --- | --- | --- |"
    rows = compose(TaskContext()).rows()
    for section in SECTIONS:
        for row in (row for row in rows if row.path.startswith(f"{section}.") and row.path != "benchmark.model_name"):
            if row.value not in (None, [], {}):
                layer = "" if row.layer == "default" else row.layer
                yield f"| `{row.path}` | `{yaml_documents.inline(row.value)}` | {layer} |"


def known_gpus() -> Iterator[str]:
    """The GPU table's names, each with what else it goes by."""
    yield "| GPU | also | GiB | GPUs of a node |"
    yield "| --- | --- | --- | --- |"
    for row in read_table(TABLE).values():
        yield f"| `{row.name}` | {', '.join(row.aliases)} | {row.memory / 2**30:.0f} | {row.gpus_per_node} |"


TABLES = {"profiles": profiles, "defaults": defaults, "gpus": known_gpus}


def page(text: str) -> str:
    """The page with its tables made anew, each between the comments that name it."""
    for name, rows in TABLES.items():
        body = "\n".join(rows())
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{TARGET} has {count} tables of {name}, not one.")
    return text


def main() -> None:
    """Write the page, or check it."""
    # neither ./profiles nor the user's own files belong on the page
    os.chdir(TARGET.parent)
    os.environ["AUTOTUNE_CONFIG_HOME"] = str(TARGET.parent / "nowhere")
    before = TARGET.read_text()
    after = page(before)
    if "--check" in sys.argv:
        if before != after:
            raise SystemExit(f"{TARGET} is out of date: run python docs/make_profile_tables.py")
    else:
        TARGET.write_text(after)


if __name__ == "__main__":
    main()
