"""Every example runs, and the pipeline fails where it says it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(EXAMPLES)
    return tmp_path


@pytest.mark.docs
@pytest.mark.parametrize("script", [pytest.param(path, id=path.name) for path in (EXAMPLES / "python").glob("*.py")])
def test_an_example_script_runs(script, workplace):
    done = run(f"python {script}", workplace)
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout


def pipeline_steps() -> list[str]:
    pipeline = yaml.safe_load((EXAMPLES / "ci" / "github-actions.yaml").read_text())
    return [step["run"] for step in pipeline["jobs"]["slo"]["steps"] if "run" in step]


@pytest.mark.docs
def test_the_pipeline_passes_and_leaves_a_summary(workplace):
    install, measure, summarise = pipeline_steps()
    assert install == "pip install autotune"
    done = run(measure.replace("--json", "--duration 8 --warmup 1 --json"), workplace)
    assert done.returncode == 0, done.stderr
    assert run(summarise, workplace).returncode == 0
    assert "| --- |" in (workplace / "summary.md").read_text() or "---:" in (workplace / "summary.md").read_text()


@pytest.mark.docs
def test_the_pipeline_fails_on_a_missed_slo(workplace):
    strict = "ttft: 0.000001\n"
    (workplace / "strict.yaml").write_text(strict)
    measure = pipeline_steps()[1].replace("examples/slo.yaml", "strict.yaml")
    done = run(measure.replace("--json", "--duration 2 --warmup 0.2 --json"), workplace)
    assert done.returncode == 1
    assert "No configuration met the targets" in " ".join(done.stderr.split())
