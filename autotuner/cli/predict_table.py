"""`autotune predict --table`: predict every row of a CSV, with errors in their own column."""

from __future__ import annotations

import csv
from pathlib import Path


def predict_table(path: Path, output: Path | None) -> None:
    """Read a CSV, add the columns of predictions, and write it to `output`."""
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.predict.predict_csv import PREDICTION_COLUMNS, with_predictions

    if output is None:
        raise UsageError("--table needs --output FILE.csv.", remedy="It gets all rows with seven more columns.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read {path}.", why=str(error), remedy="Give a CSV file in UTF-8.") from error
    predicted_rows = [with_predictions(row) for row in rows]
    names = [*columns, *(name for name in PREDICTION_COLUMNS if name not in columns)]
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(predicted_rows)
    except OSError as error:
        raise UsageError(f"Cannot write {output}.", why=str(error), remedy="Choose another --output.") from error
    failed = sum(bool(row["pred_error"]) for row in predicted_rows)
    display.note(f"{output}: {len(rows) - failed} rows predicted, {failed} not.")
