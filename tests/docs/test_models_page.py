"""The page about models names every architecture that has a reader."""

from __future__ import annotations

import re
from pathlib import Path

import autotuner
from autotuner.predict.architectures import LAYER_READERS
from autotuner.predict.hybrids import HYBRID_LAYER_READERS

PAGE = Path(autotuner.__file__).parent.parent / "docs" / "reference" / "models.md"


def test_the_table_of_architectures_is_that_of_the_readers():
    named = re.findall(r"`(\w+For(?:CausalLM|ConditionalGeneration))`", PAGE.read_text())
    assert sorted(named) == sorted({*LAYER_READERS, *HYBRID_LAYER_READERS})
