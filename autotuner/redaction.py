"""Secrets that this process knows, and their removal from everything that is written, logged or printed.

What reads a secret remembers it here; what writes redacts. So a key is masked wherever it comes back from:
a server's error, an engine's log, a configuration, a traceback.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from autotuner.output_files import write_whole

MASK = "*****"

MIN_LENGTH = 4
"""Shorter values are not masked: they are no secrets, and would be found in any text."""

MIN_ENVIRONMENT_LENGTH = 8
"""The same of what only the name of a variable makes a secret: `postgres` is a password and a common word."""

MIN_DISTINCT_LENGTH = 16
"""A known secret of this length in a setting is there because it was put there, and not by chance."""

SECRET_WORDS = (
    r"token|secret|password|passwd|passphrase|api[-_. ]?key|access[-_.]?key|private[-_.]?key|auth[-_.]?key"
    r"|credentials?|authorization|cookie|signature"
)
_SPECIAL_TOKENS = r"bos|eos|pad|unk|mask|sep|cls|img|image|video|audio|start|stop|end|think|reasoning|tool"
"""What makes the name of a token of a vocabulary, as in `eos_token`."""

JOINED_SECRET_WORDS = r"password|passwd|passphrase|apikey|secretkey|accesskey|authtoken|accesstoken"
"""Words that make a name one of a secret with nothing before them either, as in PGPASSWORD."""
SECRET_NAME = re.compile(
    rf"^(?!(?:.*[-_. ])?(?:{_SPECIAL_TOKENS})[-_]token$).*?((^|[-_. ])({SECRET_WORDS})|{JOINED_SECRET_WORDS})$",
    re.IGNORECASE | re.DOTALL,
)
"""Names of variables and headers whose values are secrets."""

SECRET_OBJECT_KEYS = ("image_pull_secret",)
"""Settings named like secrets whose values are names of Kubernetes' objects."""

KEY_FORMAT = re.compile(
    r"(?<![A-Za-z0-9])(hf_(?=[A-Za-z0-9]*\d)(?=[A-Za-z0-9]*[A-Z])[A-Za-z0-9]{20,}"
    r"|sk-(?=[\w-]*?(?=[A-Za-z0-9]{0,15}\d)(?=[A-Za-z0-9]{0,15}[A-Z])[A-Za-z0-9]{16})[\w-]{20,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{30,})"
)
"""Keys that their issuers made recognisable: Hugging Face, OpenAI, NVIDIA, GitHub, GitLab, AWS, Slack, Google.

Names of models begin like the first two: those keys are random letters of both cases and digits.
"""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ESCAPED_BLANKS = r"(?:\\{0,3}\s|\\{1,3}(?:[nrtvf]|0(?:11|12|15|40))|%(?:20|09|0[aAdD])|\+|&#(?:9|10|13|32);)+"
"""Blanks in any number: paragraphs and YAML break lines at them."""
_YAML_FOLD = r"(?:\\\n *)?"
"""YAML breaks a line after an escaped character."""
_DOUBLED = {"'": ("''", "'\"'\"'"), '"': ('""',)}
"""Quotes in a quoted word: of YAML and CSV, and of a shell."""
_ENTITIES = {"&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",)}
_PLAIN_WORD = re.compile(r"[a-z]+([-_][a-z]+)*")
_SCHEMES = ("Bearer ", "Basic ", "Token ", "ApiKey ", "Key ")
_JSON_TEXT = re.compile(r'"([\w.-]+)"\s*:\s*"[^"]+"')


class Redactor:
    """The known secrets, each in the forms in which it may come back: as it is, escaped in any way, in Base64."""

    def __init__(self) -> None:
        self._patterns: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def remember(self, value: str, min_length: int = MIN_LENGTH) -> None:
        """Mask this value from now on; without its scheme too, when it is that of an Authorization header."""
        secrets = {value, next((value[len(name) :] for name in _SCHEMES if value.startswith(name)), value)}
        if value.startswith("Basic "):
            secrets |= set(_basic_credentials(value))
        earlier_count = len(self._patterns)
        for secret in secrets:
            stripped = secret.strip()
            if len(stripped) >= min_length and stripped not in self._patterns:
                self._patterns[stripped] = _escaped_forms(stripped)
                if len(stripped) >= MIN_ENVIRONMENT_LENGTH:
                    encoded = base64.b64encode(_utf8(stripped)).decode().rstrip("=")
                    self._patterns[encoded] = _escaped_forms(encoded)
        if len(self._patterns) > earlier_count:
            longest_first = sorted(self._patterns, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(self._patterns.__getitem__, longest_first)))

    def remember_environment(self, variables: Mapping[str, str]) -> None:
        """Remember the variables that are named like secrets, and the passwords in addresses, as of proxies."""
        for name, value in variables.items():
            if SECRET_NAME.search(name) and not is_path_of_secret(name, value):
                self.remember(value, MIN_ENVIRONMENT_LENGTH)
            elif password := url_password(value):
                self.remember(password)

    def finds(self, text: str, min_length: int) -> bool:
        """Whether a known secret of at least this length is in the text."""
        return self._pattern is not None and any(len(match[0]) >= min_length for match in self._pattern.finditer(text))

    def text(self, text: str) -> str:
        """The text with every known secret masked."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def data(self, data: Any, *, keep_words: bool = False) -> Any:
        """JSON-ready data with every known secret masked in its texts; keys stay, on request single plain words too."""
        if self._pattern is None:
            return data
        if isinstance(data, str):
            return data if keep_words and _PLAIN_WORD.fullmatch(data) else self.text(data)
        if isinstance(data, Mapping):
            return {key: self.data(value, keep_words=keep_words) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.data(item, keep_words=keep_words) for item in data]
        return data


def _escaped_forms(secret: str) -> str:
    """The pattern of a secret that was escaped for HTML, Markdown, JSON, a shell, a URL or CSV, or for two of them."""
    return "".join(_escaped_run(match[0]) for match in re.finditer(r"\s+|(.)\1*", secret, re.DOTALL))


def _escaped_run(run: str) -> str:
    """The pattern of blanks or of one character repeated: all of a run have one form, which bounds backtracking."""
    character = run[0]
    if character.isspace():
        return _ESCAPED_BLANKS
    if character.isascii() and character.isalnum():
        return run
    if character == "\\":
        forms = [rf"\\{{{len(run)},{4 * len(run)}}}"]
    else:
        forms = [_escaped_character(character)]
        forms += ["".join(map(_escaped_character, doubled)) for doubled in _DOUBLED.get(character, ())]
        forms = [rf"(?:{form}{_YAML_FOLD}){{{len(run)}}}" for form in forms]
    forms += [rf"(?:{form}{_YAML_FOLD}){{{len(run)}}}" for form in _numeric_escapes(character)]
    return f"(?:{'|'.join(forms)})"


def _escaped_character(character: str) -> str:
    """The pattern of a character that is no backslash, with backslashes before it, and in HTML by name or number."""
    names = "".join(f"|{name}" for name in _ENTITIES.get(character, ()))
    return rf"\\{{0,3}}(?:{re.escape(character)}|&(?:amp;)?(?i:#0*{ord(character)}|#x0*{ord(character):x}{names});)"


def _numeric_escapes(character: str) -> Iterator[str]:
    """Patterns of one character written by its number in JSON, in Python, in a shell's `printf`, and in a URL."""
    code, utf8 = ord(character), _utf8(character)
    utf16 = character.encode("utf-16-be", "surrogatepass").hex()
    yield "".join(rf"\\{{1,3}}(?i:u{utf16[start : start + 4]})" for start in range(0, len(utf16), 4))
    yield rf"\\{{1,3}}(?i:x{code:02x}|U{code:08x})"
    yield "".join(rf"\\{{1,3}}{byte:03o}" for byte in utf8)
    yield "".join(rf"%(?:25)?(?i:{byte:02x})" for byte in utf8)


def _utf8(text: str) -> bytes:
    """A text's bytes, those of an environment variable that is not UTF-8 as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


_known = Redactor()
_has_read_environment = False


def _redactor() -> Redactor:
    global _has_read_environment
    if not _has_read_environment:
        _has_read_environment = True
        _known.remember_environment(os.environ)
    return _known


def remember_secret(value: str) -> None:
    """Mask this value in everything that this process writes from now on."""
    _redactor().remember(value)


def redact(text: str) -> str:
    """The text with every known secret masked, those of the environment included."""
    return _redactor().text(text)


def redact_data(data: Any) -> Any:
    """JSON-ready data with every known secret masked in its texts."""
    return _redactor().data(data)


def redact_settings(settings: Any) -> Any:
    """The same of a configuration: what is one plain word, such as `measured`, is a choice and stays valid."""
    return _redactor().data(settings, keep_words=True)


def redact_bytes(data: bytes) -> bytes:
    """The same of bytes that are text, or partly so."""
    return redact(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def write_redacted(path: Path, text: str, errors: str = "backslashreplace") -> None:
    """Replace a file by UTF-8 with every known secret masked; `errors` says what becomes of lone surrogates."""
    write_whole(path, redact(text).encode("utf-8", errors))


def write_redacted_json(path: Path, data: Any, indent: int | None = 1) -> None:
    """Replace a file by JSON with every known secret masked in its texts: numbers and keys stay what they are."""
    write_whole(path, (json.dumps(redact_data(data), indent=indent) + "\n").encode())


def remember_settings(settings: Mapping[str, Any]) -> None:
    """Remember the secrets of a configuration: texts under names of secrets, keys, and passwords in addresses."""
    for name, text in _texts(settings):
        if not is_reference(text):
            if _holds_secret(name) and not is_path_of_secret(name, text):
                remember_secret(text)
            for match in KEY_FORMAT.finditer(text):
                remember_secret(match[0])
            if password := url_password(text):
                remember_secret(password)


def is_path_of_secret(name: str, value: str) -> bool:
    """Whether a variable or setting names the file with the secret, as GOOGLE_APPLICATION_CREDENTIALS does."""
    return value.startswith("/") and (re.search(r"credentials?$", name, re.IGNORECASE) is not None or _exists(value))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _texts(data: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each text in nested data, with the key nearest to it."""
    if isinstance(data, str):
        yield name, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(value, str(key))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _texts(value, name)


def _holds_secret(key: str) -> bool:
    """Whether the value of a setting is a secret by the setting's name."""
    return key.rpartition(".")[2] not in SECRET_OBJECT_KEYS and SECRET_NAME.search(key) is not None


def secret_in(name: str, value: Any) -> str | None:
    """What makes a setting a secret, as the predicate of a sentence; None where nothing does."""
    for key, text in _texts(value, name):
        if not text or is_reference(text) or text == MASK:
            continue
        if len(text) >= MIN_LENGTH and _holds_secret(key) and not is_path_of_secret(key, text):
            return "is a secret" if key == name else f"holds a secret, {key!r}"
        if url_password(text):
            return "holds an address with a password"
        if inner := names_secret(text):
            return f"holds a secret, {inner!r}"
        if KEY_FORMAT.search(text):
            return "holds a key"
        if _redactor().finds(text, MIN_DISTINCT_LENGTH):
            return "holds a text that is known as a secret, from a header or a variable named like one"
    return None


def remember_headers(headers: Mapping[str, str]) -> None:
    """Remember the values of headers that are secrets."""
    for name, value in headers.items():
        if is_secret_header(name, value):
            remember_secret(value)


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header is a secret: named like one or with a value like a key, and not a reference to a variable."""
    return not is_reference(value) and value != MASK and bool(SECRET_NAME.search(name) or _is_random(value))


def is_reference(value: str) -> bool:
    """Whether a value names environment variables, such as `Bearer ${MY_KEY}`, and is no secret itself."""
    return _REFERENCE.search(value) is not None


def resolve_references(value: str, variables: Mapping[str, str]) -> str:
    """The value with `${NAME}` replaced; KeyError with the name of a variable that is not set."""
    return _REFERENCE.sub(lambda match: variables[match[1]], value)


def mask_values(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they may be written down: with a mask for every secret."""
    return {name: MASK if is_secret_header(name, value) else value for name, value in headers.items()}


def url_password(value: str) -> str | None:
    """The password in an address, such as that of a proxy, or the key that is its user name."""
    if "://" not in value or "@" not in value:
        return None
    try:
        parts = urlsplit(value)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return None
    if password and password != MASK:
        return password
    return user if KEY_FORMAT.fullmatch(user) or _is_random(user) else None


def names_secret(text: str) -> str | None:
    """The name of the first secret that JSON in a text holds, such as `{"api_key": "..."}`."""
    return next((match[1] for match in _JSON_TEXT.finditer(text) if SECRET_NAME.search(match[1])), None)


def _is_random(value: str) -> bool:
    """Whether a value looks like a key: long, without blanks, with letters and digits."""
    return len(value) >= 16 and re.fullmatch(r"[\w+/=.~-]*", value) is not None and bool(re.search(r"\d", value))


def _basic_credentials(value: str) -> Iterable[str]:
    """User and password, together and the password alone, of `Basic ...`."""
    try:
        decoded = base64.b64decode(value.removeprefix("Basic "), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ()
    return decoded, decoded.partition(":")[2]
