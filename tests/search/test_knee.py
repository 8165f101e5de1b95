import pytest

from autotuner.search.knee import Knee


def saturating(load: float, service: float = 1.0, width: float = 16.0) -> tuple[float, float]:
    """Requests/s and latency of a server that saturates smoothly around `width` requests in flight."""
    rate = load / service / (1 + (load / width) ** 4) ** 0.25
    return rate, load / rate


@pytest.mark.parametrize("start", [1, 16, 200])
@pytest.mark.parametrize("width", [4.0, 16.0, 60.0])
def test_it_finds_where_power_is_greatest(start, width):
    knee, count = Knee(1, 1024, start), 0
    while (load := knee.ask()) is not None:
        knee.tell(load, *saturating(load, width=width))
        count += 1
    power = {load: saturating(load, width=width)[0] / saturating(load, width=width)[1] for load in range(1, 300)}
    assert power[int(knee.best_load)] >= 0.95 * max(power.values())
    assert count <= 15


def test_at_the_knee_the_elasticity_of_throughput_is_about_a_half():
    knee = Knee(1, 1024, 8)
    while (load := knee.ask()) is not None:
        knee.tell(load, *saturating(load))
    assert knee.elasticity == pytest.approx(0.5, abs=0.2)


def test_throughput_that_never_saturates_ends_at_the_highest_load():
    knee = Knee(1, 64, 1)
    while (load := knee.ask()) is not None:
        knee.tell(load, load, 1.0)
    assert knee.best_load == 64
    assert knee.elasticity is None
