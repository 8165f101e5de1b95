"""The simulated engine in another engine's place."""

import pytest

from autotuner.core import Candidate
from autotuner.engines.as_simulated import rejection_reason, simulated_stand_in


def test_canonical_parameters_mean_the_same_on_every_engine():
    parameters = {"tp-size": 2, "max-running-requests": 64, "enable-chunked-prefill": False}
    for runtime in ("vllm", "sglang", "trtllm"):
        stand_in = simulated_stand_in(Candidate(runtime, parameters))
        assert stand_in.candidate == Candidate("sim", parameters)
        assert stand_in.ignored_parameters == ()


def test_an_engines_own_flag_counts_as_the_parameter_it_is():
    assert simulated_stand_in(Candidate("vllm", {"max_num_seqs": 32})).candidate == Candidate(
        "sim", {"max-running-requests": 32}
    )


def test_what_the_simulated_engine_lacks_is_named():
    stand_in = simulated_stand_in(Candidate("vllm", {"tp-size": 1, "dtype": "half", "swap-space": 4}))
    assert stand_in.candidate == Candidate("sim", {"tp-size": 1})
    assert stand_in.ignored_parameters == ("dtype", "swap-space")


def test_a_candidate_of_the_simulated_engine_is_itself():
    candidate = Candidate("sim", {"seed-of-its-own": 1})
    assert simulated_stand_in(candidate).candidate is candidate


@pytest.mark.parametrize(("size", "refused"), [(1, False), (None, False), (2, True)])
def test_more_than_one_replica_is_refused(size, refused):
    assert (rejection_reason(Candidate("vllm", {"dp-size": size})) is not None) == refused
