import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("module", ["rank", "judge", "pareto", "objective", "validity"])
def test_ranking_a_run_again_loads_no_numpy(module):
    code = f"import autotuner.scoring.{module}, sys; sys.exit('numpy' in sys.modules or 'matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["report", "report.table", "report.markdown", "report.record", "deploy"])
def test_only_the_picture_loads_matplotlib(module):
    code = f"import autotuner.{module}, sys; sys.exit('numpy' in sys.modules or 'matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
