import pytest

from autotuner.core import TermOutcome
from autotuner.scoring.reasons import describe_term


@pytest.mark.parametrize(
    ("term", "actual", "threshold", "text"),
    [
        ("ttft", 1.234, 1.0, "ttft 1.23 s, target 1 s"),
        ("latency.p90", 0.0061, 0.005, "latency.p90 0.0061 s, target 0.005 s"),
        ("itl", None, 0.05, "itl none, target 0.05 s"),
        (
            "output_throughput",
            12345.6,
            20000.0,
            "output_throughput 12,346 output tokens/s, target 20000 output tokens/s",
        ),
        ("request_throughput", 2.5, 3.0, "request_throughput 2.5 requests/s, target 3 requests/s"),
        ("goodput", 0.0, 1.0, "goodput 0 requests/s, target 1 requests/s"),
        (
            "output_throughput",
            127.541,
            127.55,
            "output_throughput 127.5 output tokens/s, target 127.55 output tokens/s",
        ),
        ("ttft", 1.0004, 1.0, "ttft 1.0004 s, target 1 s"),
        ("ttft", 100.0, 1.0, "ttft 100 s, target 1 s"),
    ],
)
def test_a_term_stands_beside_its_target_with_its_unit(term, actual, threshold, text):
    assert describe_term(TermOutcome(term, actual, threshold, 0.0, 0.0, "missed")) == text
