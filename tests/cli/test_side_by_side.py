"""Which experiments may run at the same time."""

import pytest

from autotuner.cli.side_by_side import Devices


@pytest.mark.parametrize(
    ("needed", "in_use", "fits"),
    [
        (Devices(2), [Devices(4), Devices(2)], True),
        (Devices(4), [Devices(4), Devices(2)], False),
        (Devices(1, frozenset({3})), [Devices(2, frozenset({0, 1}))], True),
        (Devices(1, frozenset({1})), [Devices(2, frozenset({0, 1}))], False),
        (Devices(16), [], True),  # by itself it runs into the error that names the GPUs
        (Devices(), [Devices(8)], True),
    ],
)
def test_experiments_share_the_host_but_no_gpu(needed, in_use, fits):
    assert needed.fit_beside(in_use, installed=8) is fits
