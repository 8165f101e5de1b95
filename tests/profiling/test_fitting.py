import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.profiling.fitting import ItlSurface, TtftCurve, itl_errors, ttft_errors
from tests.profiling.points import decode, prefill

LENGTHS = (100, 200, 400, 800, 1600, 3200, 6400, 12_800)


def ttft(length):
    return max(0.02, 0.01 + length / 50_000 + (length / 60_000) ** 2)


def itl(requests, context):
    return 0.004 + requests * 4e-5 + requests * context * 1.5e-8


def test_the_curve_follows_a_floor_a_line_and_a_square():
    curve = TtftCurve.fit([prefill(length, ttft(length)) for length in LENGTHS])
    for length in (150, 1000, 5000, 12_000):
        assert curve(length)[0] == pytest.approx(ttft(length), rel=0.06)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6))
def test_no_noise_makes_ttft_fall_with_the_prompt(values):
    curve = TtftCurve.fit([prefill(length, value) for length, value in zip(LENGTHS, values, strict=False)])
    assert (np.diff(curve(np.linspace(100, 3200, 50))) >= -1e-12).all()


def surface_points(noise=1.0):
    return [
        decode(size, itl(size, prompt + 20) * (noise if size == 32 else 1.0), prompt)
        for prompt in (100, 600, 2400)
        for size in (1, 8, 32, 64)
    ]


def test_the_surface_follows_weights_batch_and_attention():
    surface = ItlSurface.fit(surface_points())
    assert surface(20, 1000)[0] == pytest.approx(itl(20, 1000), rel=0.02)
    assert surface(50, 300)[0] == pytest.approx(itl(50, 300), rel=0.02)


def test_no_noise_makes_itl_fall_with_requests_or_context():
    surface = ItlSurface.fit(surface_points(noise=0.6))
    sizes, contexts = np.linspace(1, 64, 30), np.linspace(120, 2420, 30)
    assert (np.diff(surface(sizes, np.full(30, 620.0))) >= -1e-12).all()
    assert (np.diff(surface(np.full(30, 16.0), contexts)) >= -1e-12).all()


def test_left_out_points_tell_the_error_between_points():
    errors = ttft_errors([prefill(length, ttft(length)) for length in LENGTHS])
    assert len(errors.errors) == len(LENGTHS) - 2
    assert errors.median is not None
    assert errors.median < 0.05
    wild = [prefill(length, ttft(length) * (3 if length == 800 else 1)) for length in LENGTHS]
    worst, surface = ttft_errors(wild).worst, itl_errors(surface_points()).median
    assert worst is not None
    assert worst[0].prompt_tokens == 800
    assert surface is not None
    assert surface < 0.01


def test_too_few_points_have_no_errors():
    assert ttft_errors([prefill(length, 0.1) for length in (100, 200, 300)]).median is None
    with pytest.raises(ValueError, match="needs points"):
        ItlSurface.fit([])
