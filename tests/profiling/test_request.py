import pytest

from autotuner.errors import ConfigError
from autotuner.profiling.request import SlaRequest
from tests.profiling.points import sla_request


def test_a_request_survives_json():
    request = sla_request(rate=3.0, total_gpus=8, ttft=0.1)
    assert SlaRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"isl": 0}, "--isl must be at least 1"),
        ({"osl": 1}, "no inter-token latency"),
        ({"ttft": 0.0}, "--ttft must be a number above 0"),
        ({"itl": float("nan")}, "--itl must be a number above 0"),
        ({"rate": 1.0, "concurrency": 3}, "cannot be combined"),
        ({"prefill_points": 3}, "cubic"),
        ({"decode_points": 1}, "two context lengths"),
        ({"runtime": "vlm"}, "did you mean 'vllm'"),
        ({"evaluator": "guessed"}, "Unknown evaluator"),
        ({"gpus_per_engine": ()}, "--gpus-per-engine"),
        ({"max_context_length": 100}, "below --isl plus --osl"),
        ({"url": "http://127.0.0.1:1"}, "cannot be predicted"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(changes, words):
    with pytest.raises(ConfigError) as error:
        sla_request(**changes)
    assert words in str(error.value)


def test_a_damaged_request_names_the_unknown_key():
    with pytest.raises(ConfigError, match="did you mean 'isl'"):
        SlaRequest.from_json({**sla_request().to_json(), "isll": 3})


def test_the_curves_reach_to_a_multiple_of_the_asked_request_unless_told_otherwise():
    assert sla_request().longest_context == 4 * 640
    assert sla_request(max_context_length=9000).longest_context == 9000
    assert sla_request(isl=600, osl=41).context_length == 620
