"""The guide to what goes wrong quotes messages that exist, and explains every outcome there is."""

import ast
import re
from pathlib import Path

import autotuner
from autotuner.core import FailureKind, Verdict

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md").read_text()


def texts() -> str:
    """Every text in the package, those that are put together from several lines as one."""
    literals = []
    for path in Path(autotuner.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        literals += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(literals)


def test_the_messages_it_quotes_are_those_of_the_tool():
    first_cells = re.findall(r"^\| `(.+?)`", PAGE, flags=re.MULTILINE)
    quoted = [cell for cell in first_cells if " " in cell] + re.findall(r"`(No [^`]* met the targets\.)`", PAGE)
    assert len(quoted) > 15
    package_text = texts()
    pieces = {piece.strip() for message in quoted for piece in message.split("…") if len(piece.strip()) > 3}
    assert not {piece for piece in pieces if piece not in package_text}


def test_every_outcome_is_explained():
    outcomes = [*(kind.value for kind in FailureKind), *(verdict.value for verdict in Verdict)]
    assert not [name for name in outcomes if f"`{name}`" not in PAGE and name != Verdict.FEASIBLE]
