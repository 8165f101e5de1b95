"""The pause that a refusal asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from autotuner.load.retry_after import retry_after


def head(value: str, name: str = "Retry-After") -> list[bytes]:
    text = f"HTTP/1.1 429 Oops\r\nContent-Length: 2\r\n{name}: {value}\r\nX: y\r\n\r\nno".encode()
    return [text[:30], text[30:]]


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0", 0.0), ("1.5", 1.5)])
@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
@pytest.mark.parametrize("status", [429, 503])
def test_seconds_are_read_from_the_header(value: str, seconds: float, name: str, status: int) -> None:
    assert retry_after(status, head(value, name)) == seconds


def test_a_date_is_the_time_until_then_and_never_below_none() -> None:
    now = datetime.now(UTC)
    later = retry_after(429, head(format_datetime(now + timedelta(hours=1), usegmt=True)))
    assert later is not None
    assert 3000 < later <= 3600
    assert retry_after(429, head(format_datetime(now - timedelta(hours=1), usegmt=True))) == 0.0


@pytest.mark.parametrize("value", ["soon", "", "-3", "nan", "9" * 40])
def test_what_cannot_be_read_asks_for_nothing(value: str) -> None:
    assert retry_after(429, head(value)) is None


@pytest.mark.parametrize("status", [200, 500])
def test_only_a_refusal_asks_for_a_pause(status: int) -> None:
    assert retry_after(status, head("7")) is None


def test_a_body_asks_for_nothing() -> None:
    assert retry_after(429, [b"HTTP/1.1 429 No\r\n\r\n", b"\r\nRetry-After: 7\r\n"]) is None
