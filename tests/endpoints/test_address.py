"""Addresses of servers, as users write them."""

from __future__ import annotations

import pytest

from autotuner.endpoints.address import Address
from autotuner.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("url", "base", "authority"),
    [
        ("http://localhost:8000", "/v1", "localhost:8000"),
        ("http://localhost:8000/v1/", "/v1", "localhost:8000"),
        ("https://api.example.com/v1", "/v1", "api.example.com"),
        ("https://api.example.com:8443/llm//v1", "/llm/v1", "api.example.com:8443"),
        ("https://api.example.com/api/paas/v4", "/api/paas/v4", "api.example.com"),
        ("https://api.example.com/v1beta/openai/", "/v1beta/openai", "api.example.com"),
        ("http://localhost:8000/v3", "/v3", "localhost:8000"),
        ("http://localhost:8000/v1/models", "/v1", "localhost:8000"),
        ("http://[::1]:80", "/v1", "[::1]"),
        ("http://a-host/my llm/v1", "/my%20llm/v1", "a-host"),
        ("http://a-host/%C3%A4/\u00e4", "/%C3%A4/%C3%A4", "a-host"),
        ("http://b\u00fccher.example/v1", "/v1", "xn--bcher-kva.example"),
        ("http://[2001:db8::7]:8000/v1", "/v1", "[2001:db8::7]:8000"),
    ],
)
def test_a_path_is_the_base_of_the_api_and_without_one_it_is_v1(url: str, base: str, authority: str) -> None:
    address = Address.from_url(url)
    assert (address.api_path, address.authority, address.kind) == (base, authority, None)
    assert Address.from_url(address.url) == address


@pytest.mark.parametrize(
    ("path", "base", "kind"),
    [
        ("/v1/chat/completions", "/v1", "chat"),
        ("/v1/completions/", "/v1", "completions"),
        ("/openai/deployments/gpt/chat/completions", "/openai/deployments/gpt", "chat"),
        ("/chat/completions", "", "chat"),
    ],
)
def test_a_pasted_endpoint_names_the_base_and_the_kind(path: str, base: str, kind: str) -> None:
    address = Address.from_url(f"http://a-host:8000{path}?api-version=2")
    assert (address.api_path, address.kind) == (base, kind)
    assert address.api_target("/models") == f"{base}/models?api-version=2"
    assert Address.from_url(address.url).api_path == base


@pytest.mark.parametrize(
    ("url", "bases"),
    [
        ("http://a-host", ["/v1", ""]),
        ("http://a-host/v1", ["/v1"]),
        ("http://a-host/v3", ["/v3"]),
        ("http://a-host/llm", ["/llm", "/llm/v1"]),
        ("http://a-host/v1beta/openai", ["/v1beta/openai", "/v1beta/openai/v1"]),
        ("http://a-host/llm/chat/completions", ["/llm"]),
    ],
)
def test_a_path_is_tried_as_it_was_given_and_then_with_v1(url: str, bases: list[str]) -> None:
    assert [address.api_path for address in Address.from_url(url).alternatives] == bases


@pytest.mark.parametrize(
    ("url", "metrics"),
    [
        ("http://a-host", "/metrics"),
        ("http://a-host/v3", "/metrics"),
        ("http://a-host/llm/v1?team=search", "/llm/metrics?team=search"),
        ("http://a-host/llm", "/llm/metrics"),
    ],
)
def test_metrics_are_beside_the_api(url: str, metrics: str) -> None:
    assert Address.from_url(url).root_target("/metrics") == metrics


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "reranking"),
        ("/rerank", "reranking"),
        ("/v1/images/generations", "image generation"),
        ("/v1/audio/transcriptions", "audio"),
        ("/v1/responses", "the Responses API"),
        ("/api/generate", "generation API"),
    ],
)
def test_an_api_that_no_load_is_made_for_is_named(path: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not supported"):
        Address.from_url(f"http://a-host:8000{path}")


@pytest.mark.parametrize("query", ["key=s3cret", "api-version=1&api_key=s3cret", "access_token=s3cret", "sig=s3cret"])
def test_a_key_in_the_query_is_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(ConfigError, match="holds a key") as caught:
        Address.from_url(f"http://a-host/v1?{query}")
    assert "s3cret" not in str(caught.value)


def test_a_fragment_is_not_dropped_in_silence() -> None:
    with pytest.raises(ConfigError, match="ends in '#usage'"):
        Address.from_url("http://a-host/v1#usage")


def test_an_ipv6_address_without_brackets_is_told_about_them() -> None:
    with pytest.raises(ConfigError, match=r"in brackets: http://\[::1\]:8000"):
        Address.from_url("http://2001:db8::7:8000")


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
