"""Write the tables of docs/reference/profiles.md from the layers; `--check` fails when they are out of date."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from autotuner.config import Composition, TaskConfigFactory, TaskContext, compose, yaml_documents
from autotuner.predict.hardware import GPU_TABLE, read_table

PAGE = Path(__file__).absolute().parent / "reference" / "profiles.md"
ORDER = ("quick-test", "balanced", "low-latency", "high-throughput", "cost-optimization", "production")
SECTIONS = ("optimization", "benchmark", "slo", "deployment", "runtime", "simulate")


def profile_rows() -> Iterator[str]:
    """Rows of the bundled profiles with their main values; italics mark values of lower layers."""
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
    row = next(row for row in composition.resolved_values() if row.path == path)
    value = ", ".join(map(str, row.value)) if isinstance(row.value, list) else str(row.value)
    return value if row.layer.startswith("profile:") else "*from the layers*" if "parameters" in path else f"*{value}*"


def default_rows() -> Iterator[str]:
    """Rows of all default values of a configuration."""
    yield "| key | default | from |"
    yield "| --- | --- | --- |"
    rows = compose(TaskContext()).resolved_values()
    for section in SECTIONS:
        for row in (row for row in rows if row.path.startswith(f"{section}.") and row.path != "benchmark.model_name"):
            if row.value not in (None, [], {}):
                layer = "" if row.layer == "default" else row.layer
                yield f"| `{row.path}` | `{yaml_documents.dump_inline(row.value)}` | {layer} |"


def gpu_rows() -> Iterator[str]:
    """Rows of the known GPUs with their aliases."""
    yield "| GPU | also | GiB | GPUs of a node |"
    yield "| --- | --- | --- | --- |"
    for row in read_table(GPU_TABLE).values():
        yield f"| `{row.name}` | {', '.join(row.aliases)} | {row.memory / 2**30:.0f} | {row.gpus_per_node} |"


TABLES = {"profiles": profile_rows, "defaults": default_rows, "gpus": gpu_rows}


def with_tables(text: str) -> str:
    """The page with its tables replaced, each between the comments that name it."""
    for name, rows in TABLES.items():
        body = "\n".join(rows()).replace("\\", r"\\")
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, rf"\g<1>{body}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{PAGE} has {count} tables of {name}, not one.")
    return text


def main() -> None:
    """Write the page, or check that it is current."""
    # keep ./profiles and the user's own files off the page
    os.chdir(PAGE.parent)
    os.environ["AUTOTUNE_CONFIG_HOME"] = str(PAGE.parent / "nowhere")
    before = PAGE.read_text()
    after = with_tables(before)
    if "--check" in sys.argv:
        if before != after:
            raise SystemExit(f"{PAGE} is out of date: run python docs/make_profile_tables.py")
    else:
        PAGE.write_text(after)


if __name__ == "__main__":
    main()
