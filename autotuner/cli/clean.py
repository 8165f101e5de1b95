"""`autotune clean`: remove the leftovers of killed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, JSON_OPTION, RUNS_FOLDER_OPTION


def clean(
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Remove what killed runs left: containers, processes, Jobs on clusters and of Slurm, GPU locks, unfinished files.

    Finished trials are kept, and nothing that a running autotune uses is touched.
    """
    from autotuner.cli import display
    from autotuner.cli.leftovers import remove_half_written
    from autotuner.execute.slurm.leftovers import remove_jobs
    from autotuner.launchers.orphans import remove_orphans

    jobs = [("job of Slurm", job_id) for job_id in remove_jobs()]
    removed = [*jobs, *remove_orphans(), *remove_half_written(output)]
    if as_json:
        display.json([{"kind": kind, "name": name} for kind, name in removed])
        return
    for kind, name in removed:
        display.line(f"removed {kind} {name}")
    if not removed:
        display.line("Nothing was left behind.")
