"""What is said of a server whose certificate is not trusted."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.models import find_served_model
from autotuner.endpoints.tls import TlsTrust, tls_fault
from autotuner.errors import ConfigError, EndpointError
from tests.servers import Server

pytestmark = pytest.mark.processes

Serve = Callable[..., Server]


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for `name`: its file, and a server's settings with it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=t"]
    command += ["-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def fault(url: str, tls: TlsTrust | None = None) -> str:
    with Client(url, tls=tls) as client, pytest.raises(NoAnswerError) as caught:
        client.ask("/models")
    assert caught.value.is_tls_fault
    return str(caught.value)


def test_a_self_signed_certificate_is_named_and_can_be_trusted_or_left_unchecked(serve: Serve, tmp_path: Path) -> None:
    cert, context = certificate(tmp_path, "IP:127.0.0.1")
    url = serve(tls=context).url
    assert "its certificate is self-signed (self-signed certificate)" in fault(url)
    for tls in (TlsTrust(ca_file=str(cert)), TlsTrust(insecure=True)):
        with Client(url, tls=tls) as client:
            assert client.ask("/models").status == 404


@pytest.mark.parametrize(
    ("host", "words"),
    [("127.0.0.1", "its certificate is for another IP address"), ("localhost", "is for another host name")],
)
def test_a_certificate_of_another_name_is_named(serve: Serve, tmp_path: Path, host: str, words: str) -> None:
    cert, context = certificate(tmp_path, "DNS:elsewhere.example")
    url = serve(tls=context).url.replace("127.0.0.1", host)
    assert words in fault(url, TlsTrust(ca_file=str(cert)))


@pytest.mark.parametrize(
    ("code", "words"),
    [(10, "has expired"), (9, "not valid yet"), (20, "an authority that is not trusted"), (99, "is not valid (odd)")],
)
def test_what_is_wrong_with_a_certificate_is_said_in_words(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "odd"
    outer = OSError("connect")
    outer.__cause__ = error
    assert words in str(tls_fault(outer))
    assert tls_fault(OSError("connect")) is None


def test_a_server_without_tls_is_told_apart(serve: Serve) -> None:
    url = serve().url.replace("http://", "https://")
    with pytest.raises(EndpointError, match=r"it does not speak TLS there; .* http://.* Correct the address"):
        find_served_model(url, {})


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_is_an_error_before_the_first_request(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"certificates of '.*ca\.pem' cannot be used.*--ca-file"):
        Client("https://127.0.0.1:9", tls=TlsTrust(ca_file=str(path)))
