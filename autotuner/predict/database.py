"""Load points measured on this machine: a SQLite file, one row each, which predictions look into first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from autotuner.errors import RunStoreError
from autotuner.predict.local_ratios import data_folder
from autotuner.predict.model_on_gpus import ModelOnGpus
from autotuner.predict.predict import geometry_name

DATABASE_FILE = "measurements.sqlite"
SCHEMA_VERSION = 1
"""Kept in the file's user_version."""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One measured load point; times are means in seconds with the 95% interval of the mean.

    The fields are the columns. `geometry` to `dtypes` are None where the predictor does not know GPU or model.
    `isl`, `osl` and `prefix` are mean tokens of a request, `parameters` the candidate as JSON.
    """

    run: str
    trial: int
    load: str
    measured_at: float
    candidate: str
    parameters: str
    engine: str
    engine_version: str | None
    model: str
    geometry: str | None
    gpu: str | None
    layout: str | None
    dtypes: str | None
    scenario: str
    isl: float
    osl: float
    prefix: float
    concurrency: int | None
    rate: float | None
    verdict: str
    requests: int
    ttft: float | None
    ttft_low: float | None
    ttft_high: float | None
    tpot: float | None
    tpot_low: float | None
    tpot_high: float | None
    output_throughput: float
    request_throughput: float


COLUMNS = tuple(field.name for field in fields(MeasuredRow))
_INTEGER_COLUMNS = {"trial": "INTEGER", "concurrency": "INTEGER", "requests": "INTEGER"}
_TEXT_COLUMNS = ("run", "load", "candidate", "parameters", "engine", "engine_version", "model", "geometry", "gpu")
_COLUMN_TYPES = _INTEGER_COLUMNS | dict.fromkeys((*_TEXT_COLUMNS, "layout", "dtypes", "scenario", "verdict"), "TEXT")
CREATE_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS load_points (
  {", ".join(f"{name} {_COLUMN_TYPES.get(name, 'REAL')}" for name in COLUMNS)},
  PRIMARY KEY (run, trial, load)
);
CREATE INDEX IF NOT EXISTS by_deployment ON load_points (geometry, engine, gpu);
"""


def path() -> Path:
    """Path of the SQLite file."""
    return data_folder() / DATABASE_FILE


def add_rows(rows: Iterable[MeasuredRow]) -> None:
    """Add rows, replacing those of the same load points. Raises sqlite3.Error, OSError or RunStoreError."""
    path().parent.mkdir(parents=True, exist_ok=True)
    with _connect() as database, database:
        marks = ", ".join("?" * len(COLUMNS))
        database.executemany(
            f"INSERT OR REPLACE INTO load_points ({', '.join(COLUMNS)}) VALUES ({marks})",
            [astuple(row) for row in rows],
        )


def rows_for(deployment: ModelOnGpus) -> list[MeasuredRow]:
    """Rows of this model, engine and GPU type in any layout whose verdict is valid, newest first.

    Raises RunStoreError if the file cannot be read.
    """
    if not path().is_file():
        return []
    try:
        with _connect() as database:
            rows = database.execute(
                f"SELECT {', '.join(COLUMNS)} FROM load_points WHERE geometry = ? AND engine = ? AND gpu = ? "
                "AND verdict NOT IN ('invalid', 'client-limited') AND ttft > 0 AND tpot > 0 ORDER BY measured_at DESC",
                (geometry_name(deployment.shape), deployment.engine, deployment.gpu.name),
            ).fetchall()
    except sqlite3.Error as error:
        raise RunStoreError(
            f"The measurements in {path()} cannot be read.",
            why=str(error),
            remedy="Move the file away; runs fill a new one. Or ask with --predicted, which leaves it out.",
        ) from error
    return [MeasuredRow(*values) for values in rows]


def count_rows() -> int:
    if not path().is_file():
        return 0
    with _connect() as database:
        rows: int = database.execute("SELECT count(*) FROM load_points").fetchone()[0]
    return rows


@contextmanager
def _connect() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path(), timeout=10)) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise RunStoreError(
                f"The measurements in {path()} were written by another version.",
                why=f"Their schema is {version}, this autotune reads {SCHEMA_VERSION}.",
                remedy="Use that version, or move the file away.",
            )
        if version == 0:
            database.executescript(CREATE_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        yield database


def layout_name(deployment: ModelOnGpus) -> str:
    """The layout as it is written into the database."""
    layout = deployment.layout
    return f"tp{layout.tp} pp{layout.pp} dp{layout.dp} ep{layout.ep_size}"


def dtypes_name(deployment: ModelOnGpus) -> str:
    """The dtypes as they are written into the database."""
    return " ".join(
        (deployment.dtypes.mlp, deployment.dtypes.expert, deployment.dtypes.attention_proj, deployment.dtypes.kv)
    )
