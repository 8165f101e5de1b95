"""Names that some engine has a parameter for, whichever engine runs."""

from __future__ import annotations

from autotuner.engines import ENGINES, engine
from autotuner.engines.parameters import canonical_parameters


def is_known_parameter(name: str) -> bool:
    """Whether this is one of autotune's own names, or a flag of an engine as it is bundled."""
    spellings = ("--" + name.replace("_", "-"), "--" + name.replace("-", "_"))
    tables = (engine(each).flags() for each in ENGINES)
    return name in canonical_parameters() or any(table.find(spelling) for table in tables for spelling in spellings)
