"""Which certificates are trusted, and what is wrong with one that is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotuner.errors import ConfigError

if TYPE_CHECKING:
    import ssl

TRUST_REMEDY = "Give the certificate of its authority with --ca-file FILE, or leave it unchecked with --insecure."

_CERTIFICATE_FAULTS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    19: "its certificate is signed by a self-signed authority that is not trusted here",
    20: "its certificate is signed by an authority that is not trusted here",
    21: "its certificate is signed by an authority that is not trusted here",
    62: "its certificate is for another host name",
    64: "its certificate is for another IP address",
}
"""OpenSSL's verification errors, by number."""

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


@dataclass(frozen=True)
class TlsTrust:
    """The authorities that servers' certificates are checked against: the system's, or those of `ca_file`.

    Nothing is checked where it is `insecure`.
    """

    ca_file: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """The TLS settings of a client; ConfigError if the file cannot be used."""
        import ssl

        if self.insecure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            reason = "it holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"The certificates of '{self.ca_file}' cannot be used.",
                why=f"{reason}.".capitalize(),
                remedy="Give a file of PEM certificates with --ca-file.",
            ) from error


def tls_fault(error: BaseException | None) -> str | None:
    """What is wrong with a server's TLS, in plain words; None when that is not what `error` is about."""
    import ssl

    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code, "its certificate is not valid")
        return f"{fault} ({error.verify_message.rstrip('.')})"
    if error.reason in _NOT_TLS:
        return "it does not speak TLS there; its address may begin with http:// instead"
    return f"TLS failed ({error.reason or error})"
