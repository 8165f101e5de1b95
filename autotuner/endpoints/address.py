"""What is known of an OpenAI-compatible server before it is asked: its address, headers, and model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args
from urllib.parse import parse_qsl, quote, urlsplit

from autotuner.endpoints.tls import TlsTrust
from autotuner.errors import ConfigError, UsageError, mask_credentials

Kind = Literal["completions", "chat"]

API_PATHS: dict[Kind, str] = {"completions": "/completions", "chat": "/chat/completions"}
"""The path of each kind of endpoint, below the API's base."""

_LISTING_PATH = "/models"
_VERSION = re.compile(r"/v\d+[a-z0-9]*$")
_UNSUPPORTED_PATHS = {
    r"/embed(dings?)?$": "embeddings",
    r"/(re)?rank$": "reranking",
    r"/score$": "scoring",
    r"/pooling$": "pooling",
    r"/images/[a-z]+$": "image generation",
    r"/audio/[a-z]+$": "audio",
    r"/responses$": "the Responses API",
    r"/messages$": "the Messages API",
    r"/generate(_stream)?$|/api/chat$": "a server's own generation API",
}
"""The APIs that a pasted address may name and that no load is made for."""

_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""What is sent in the target of a request as it was written; other characters are percent-encoded."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""A byte of the command line that is no UTF-8."""

_SECRET_PARAMETER = re.compile(r"(^|[-_.])(key|apikey|token|secret|password|sig|signature|code)$", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Host and port of a server, the base path of its API, such as `/v1`, and the query of every request.

    `kind` is the endpoint that the address named, as one that was pasted whole does.
    """

    host: str
    port: int
    tls: bool
    api_path: str
    query: str = ""
    kind: Kind | None = None
    is_bare: bool = False

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Parse `http://host:port/path`; ConfigError if it is not such an address.

        A path is the base of the API, with or without the endpoint's own path; without a path it is `/v1`.
        UsageError if it is the path of an API that is not supported.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise not_an_address(url) from None
        if not host or " " in host or port == 0 or parts.scheme not in ("http", "https") or _SURROGATE.search(url):
            raise not_an_address(url)
        if not host.isascii():
            try:
                host = host.encode("idna").decode()
            except UnicodeError:
                raise not_an_address(url) from None
        if parts.username is not None:
            raise ConfigError(
                f"The address {mask_credentials(url)} holds a user name or a password.",
                why="An address is printed and written to files.",
                remedy="Leave them out, and send them as a header: Authorization: Basic, and both in Base64.",
            )
        _check_query(parts.query)
        if parts.fragment:
            raise ConfigError(
                f"The address of the server ends in '#{parts.fragment}', which no server is sent.",
                remedy="Leave it out, and give the address of the API, such as http://127.0.0.1:8000.",
            )
        path = quote(re.sub("//+", "/", parts.path).rstrip("/"), safe=_PATH_CHARACTERS)
        _check_supported(path)
        # the path of completions also ends that of chat completions
        kinds: list[Kind] = sorted(get_args(Kind), key=lambda kind: -len(API_PATHS[kind]))
        kind = next((kind for kind in kinds if path.endswith(API_PATHS[kind])), None)
        suffix = API_PATHS[kind] if kind else _LISTING_PATH
        api_path = path.removesuffix(suffix) if path.endswith(suffix) else path or "/v1"
        tls = parts.scheme == "https"
        query = quote(parts.query, safe=f"{_PATH_CHARACTERS}?")
        return cls(host, port or (443 if tls else 80), tls, api_path, query, kind, is_bare=not path)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def root_path(self) -> str:
        """The path that `/metrics` is appended to: that of the API without its version."""
        return _VERSION.sub("", self.api_path)

    @property
    def url(self) -> str:
        """A URL that `from_url` reads as this address."""
        if self.is_bare:
            return f"{self.origin}{self._query_text}"
        # an API at the root has no path of its own to give
        path = self.api_path or API_PATHS[self.kind or "chat"]
        return f"{self.origin}{path}{self._query_text}"

    def api_target(self, path: str) -> str:
        """The target of an HTTP request to `path` of the API."""
        return f"{self.api_path}{path}{self._query_text}"

    def root_target(self, path: str) -> str:
        """The target of an HTTP request to a page of the server beside its API."""
        return f"{self.root_path}{path}{self._query_text}"

    @property
    def alternatives(self) -> tuple[Address, ...]:
        """The bases to try, this one first: the path as it was given, then with `/v1` after it.

        Without a path `/v1` is first, because a server may show anything at its root.
        """
        if self.is_bare:
            return (self, replace(self, api_path="", is_bare=False))
        if self.kind is not None or _VERSION.search(self.api_path):
            return (self,)
        return (self, replace(self, api_path=f"{self.api_path}/v1"))

    @property
    def _query_text(self) -> str:
        return f"?{self.query}" if self.query else ""


def _check_query(query: str) -> None:
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True) if _SECRET_PARAMETER.search(name)]
    if names:
        raise ConfigError(
            f"The address of the server holds a key: '{names[0]}' in its query.",
            why="An address is printed and written to files.",
            remedy="Leave it out, and send the key with --api-key-env NAME, or as the header that the server requires.",
        )


def _check_supported(path: str) -> None:
    for pattern, name in _UNSUPPORTED_PATHS.items():
        if re.search(pattern, path):
            raise UsageError(
                f"{path} is not an endpoint that load is made for: {name} is not supported.",
                why="The load is text generation, on completions or chat completions.",
                remedy="Give the address of a server of /v1/completions or /v1/chat/completions.",
            )


def not_an_address(url: str) -> ConfigError:
    """The error for a URL at which no server can be."""
    what = f"'{mask_credentials(url)}' is not the address of a server."
    is_bare_ipv6 = url.count(":") > 3 and "[" not in url
    hint = " An IPv6 address is written in brackets: http://[::1]:8000." if is_bare_ipv6 else ""
    return ConfigError(what, remedy=f"Give one such as http://127.0.0.1:8000.{hint}")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server; `url` is the base of its API, or has no path for `/v1`.

    `vocab_size` is the model's number of token ids; the default suits nearly every model with more.
    `headers` are sent with every request and never written anywhere. `tokenizer_path` is the model's
    tokenizer.json, for chat prompts of exact length.
    """

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    vocab_size: int = 32_000
    tokenizer_path: str | None = None
    tls: TlsTrust = field(default_factory=TlsTrust)

    @cached_property
    def address(self) -> Address:
        """Where to connect; ConfigError if `url` is not a server address."""
        return Address.from_url(self.url)
