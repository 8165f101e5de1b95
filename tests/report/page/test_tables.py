"""What the page's tables say in words."""

import pytest

from autotuner.report.page.tables import not_launched
from autotuner.report.run_view import RunView
from autotuner.search.protocol import SearchReport
from tests import factories


@pytest.mark.parametrize(
    ("count", "words"), [(None, "was launched."), (0, "was launched."), (18, "The search stopped")]
)
def test_a_search_that_stopped_early_did_not_launch_everything(count, words):
    view = RunView.of([], factories.experiment(), search_report=SearchReport("max_iterations", (), count))
    assert words in str(not_launched(view))
