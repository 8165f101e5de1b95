"""Addresses of servers, as users write them."""

from __future__ import annotations

import pytest

from autotuner.endpoints.address import Address
from autotuner.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "base", "authority"),
    [
        ("http://localhost:8000", "http://localhost:8000", "localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000", "localhost:8000"),
        ("https://api.example.com/v1", "https://api.example.com", "api.example.com"),
        ("https://api.example.com:8443/llm/v1", "https://api.example.com:8443/llm", "api.example.com:8443"),
        ("http://[::1]:80", "http://[::1]", "[::1]"),
    ],
)
def test_an_address_is_read_with_or_without_v1(url: str, base: str, authority: str) -> None:
    assert Address.from_url(url).base_url == base
    assert Address.from_url(url).authority == authority


@pytest.mark.parametrize(
    "url", ["localhost:8000", "", "ftp://x", "http://", "http://x:99999", "http://x:0", "http://[::1"]
)
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address"):
        Address.from_url(url)


@pytest.mark.parametrize("credentials", ["user:hunter2", "hunter2", "user:hunter2@hunter2", ":hunter2"])
def test_an_address_with_a_password_is_refused_and_not_repeated(credentials: str) -> None:
    with pytest.raises(ConfigError, match="holds a user name or a password") as caught:
        Address.from_url(f"http://{credentials}@a-host:8000/v1")
    assert "hunter2" not in str(caught.value)
    assert "http://***@a-host:8000/v1" in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:hunter2@", "ftp://user:hunter2@host", "http://user:hunt/er2@host"])
def test_a_password_in_what_is_not_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a server") as caught:
        Address.from_url(url)
    assert "hunt" not in str(caught.value)
