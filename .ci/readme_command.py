"""Print one of the README's two commands: `readme_command.py run` or `readme_command.py test`."""

import re
import sys
from pathlib import Path

WHICH = {"run": 0, "test": 1}


def commands() -> list[str]:
    """The README's bash blocks, in order."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    return re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    sys.stdout.write(commands()[WHICH[sys.argv[1]]])
