"""What is known of an OpenAI-compatible server before it is asked: its address, headers, and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from autotuner.errors import ConfigError, mask_credentials

API_PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
"""The path of each kind of endpoint."""


@dataclass(frozen=True)
class Address:
    """Host and port of a server, and the path before `/v1`."""

    host: str
    port: int
    tls: bool
    path: str

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Parse `http://host:port/path/v1`; ConfigError when it is not such an address."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or " " in host or port == 0 or parts.scheme not in ("http", "https"):
            raise not_an_address(url)
        if parts.username is not None:
            raise ConfigError(
                f"The address {mask_credentials(url)} holds a user name or a password.",
                why="An address is printed and written to files.",
                remedy="Leave them out, and send them as a header: Authorization: Basic, and both in Base64.",
            )
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(host, port or (443 if tls else 80), tls, path)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The URL that `/v1/...` and `/metrics` are appended to."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"


def not_an_address(url: str) -> ConfigError:
    """The error for a URL at which no server can be."""
    what = f"'{mask_credentials(url)}' is not the address of a server."
    return ConfigError(what, remedy="Give one such as http://127.0.0.1:8000.")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server; `url` may end in `/v1`.

    `vocab_size` is the model's number of token ids; the default suits nearly every model with more.
    `headers` are sent with every request and never written anywhere. `tokenizer_path` is the model's
    tokenizer.json, for chat prompts of exact length.
    """

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    vocab_size: int = 32_000
    tokenizer_path: str | None = None

    @cached_property
    def address(self) -> Address:
        """Where to connect; ConfigError when `url` is not a server address."""
        return Address.from_url(self.url)
