"""Set up the browser of the tests marked `browser`, from nothing on a bare Debian, as root: `setup_browser.py`.

Installs Debian's Chromium and a font where they are missing; a second call does nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
PACKAGES = ("chromium", "fonts-dejavu-core")


def main() -> None:
    """Install what is missing."""
    if CHROMIUM.exists():
        return
    for command in (
        ("apt-get", "update", "-qq"),
        ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES),
    ):
        sys.stdout.write("+ " + " ".join(command) + "\n")
        sys.stdout.flush()
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
