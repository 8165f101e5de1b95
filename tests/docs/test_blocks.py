"""Every console, Python and YAML block of the README and the docs does what the page says.

A console block's `$` lines run in order in a copy of the repository's examples, one folder per
page. `<!-- exits N -->` before a block says that its last command ends with N.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- exits (\d+) -->\n)?```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    return [(int(code or 0), body) for code, kind, body in BLOCK.findall(page.read_text()) if kind == language]


def with_blocks(language: str) -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page, language)]


@pytest.fixture
def workplace(tmp_path) -> tuple[Path, dict[str, str]]:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    scripts = Path(sys.executable).parent
    homes = {"AUTOTUNE_CONFIG_HOME": str(tmp_path), "AUTOTUNE_DATA_HOME": str(tmp_path / "data")}
    environment = {**os.environ, **homes, "PATH": f"{scripts}:{os.environ['PATH']}"}
    return tmp_path, environment


@pytest.mark.docs
@pytest.mark.parametrize("page", with_blocks("console"))
def test_console_blocks_run(page, workplace):
    folder, environment = workplace
    for expected, body in blocks(page, "console"):
        commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", body, re.MULTILINE)
        assert commands, f"no command in:\n{body}"
        for position, command in enumerate(commands, start=1):
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=150
            )
            wanted = expected if position == len(commands) else 0
            assert done.returncode == wanted, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.docs
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_blocks_run(page, workplace):
    folder, environment = workplace
    script = "\n".join(body for _, body in blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_yaml_blocks_parse(page):
    for _, body in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(body), dict | list)


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page):
    broken = [
        target
        for target, _ in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.processes
def test_the_readme_has_the_two_commands_that_ci_runs_as_printed():
    commands = [
        subprocess.run(
            [sys.executable, str(ROOT / ".ci" / "readme_command.py"), which], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for which in ("run", "test")
    ]
    assert commands == [".venv/bin/autotune run --profile quick-test", ".venv/bin/pytest"]


@pytest.mark.processes
@pytest.mark.parametrize("script", ["make_cli_reference.py", "make_profile_tables.py", "make_failure_table.py"])
def test_what_is_made_from_the_program_is_current(script):
    subprocess.run([sys.executable, str(ROOT / "docs" / script), "--check"], check=True)
