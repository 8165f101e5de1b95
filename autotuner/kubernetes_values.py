"""Values as Kubernetes takes them: names, labels, quantities, tolerations and volumes; ValueError for any other."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from autotuner.core import Mount

TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

MAX_LABEL_LENGTH = 63
MAX_NAME_LENGTH = 40
"""Longest name given here: Kubernetes takes 63 characters, and controllers append their own to a pod's."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SIZE = re.compile(r"(\d+)([bkmg]?)", re.IGNORECASE)
_BINARY_SUFFIXES = {"": "", "b": "", "k": "Ki", "m": "Mi", "g": "Gi"}
HOST_PATH_PREFIX = "hostPath:"


def object_name(*parts: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """A name that every kind of object takes, of the parts; one that was cut ends in a hash of the whole."""
    whole = "-".join(parts)
    name = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    name = name if name[:1].isalpha() else f"a-{name}".rstrip("-")
    return name if len(name) <= max_length else _cut(name, whole, max_length)


def label_value(text: str) -> str:
    """The text as the value of a label: other characters become dashes, and a long one ends in a hash of the whole."""
    value = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-_.")
    return value if len(value) <= MAX_LABEL_LENGTH else _cut(value, text, MAX_LABEL_LENGTH)


def _cut(name: str, whole: str, max_length: int) -> str:
    digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
    return f"{name[: max_length - len(digest) - 1].rstrip('-_.')}-{digest}"


def quantity(size: str) -> str:
    """A size as Docker writes it, such as 16g, as a quantity, such as 16Gi: both count in powers of 1024."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"'{size}' is no size such as 16g")
    return match[1] + _BINARY_SUFFIXES[match[2].lower()]


def without_expansion(text: str) -> str:
    """A word of a container's command, or a value of its environment, that Kubernetes leaves as it is.

    It replaces $(NAME) by a variable and $$ by $; doubling those that precede either keeps the text.
    """
    return re.sub(r"\$(?=[$(])", "$$", text)


def check_object_name(text: str) -> str:
    """The text, which is a name of an object; ValueError if it is none."""
    if len(text) > 253 or not _SUBDOMAIN.fullmatch(text):
        raise ValueError(f"'{text}' is no name of a Kubernetes object: small letters, digits, dashes and dots")
    return text


def check_label(key: str, value: str) -> None:
    """ValueError for a key or a value that no label has."""
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(prefix)) or not name or not _is_label_value(name):
        raise ValueError(f"'{key}' is no key of a label, such as nvidia.com/gpu.product")
    if not _is_label_value(value):
        raise ValueError(f"'{value}' is no value of a label: at most 63 letters, digits, dashes, dots and underscores")


def _is_label_value(text: str) -> bool:
    return len(text) <= MAX_LABEL_LENGTH and _LABEL_VALUE.fullmatch(text) is not None


def check_variable(name: str) -> str:
    """The name, which Kubernetes takes for a variable of a container; ValueError if it does not."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"Kubernetes takes no environment variable called '{name}'")
    return name


@dataclass(frozen=True)
class Toleration:
    """A taint that pods tolerate: any value where `value` is None, and any effect where `effect` is None."""

    key: str
    value: str | None = None
    effect: TaintEffect | None = None

    @classmethod
    def parse(cls, text: str) -> Toleration:
        """Read KEY[=VALUE][:EFFECT], as `kubectl taint` writes taints; ValueError otherwise."""
        taint, colon, effect = text.partition(":")
        key, equals, value = taint.partition("=")
        if colon and effect not in get_args(TaintEffect):
            raise ValueError(f"'{text}' has none of the effects {', '.join(get_args(TaintEffect))}")
        check_label(key, value)
        return cls(key, value if equals else None, effect if colon else None)  # type: ignore[arg-type]

    @property
    def manifest(self) -> dict[str, Any]:
        """The toleration in a pod's specification."""
        operator = {"operator": "Exists"} if self.value is None else {"operator": "Equal", "value": self.value}
        return {"key": self.key, **operator, **({"effect": self.effect} if self.effect else {})}


@dataclass(frozen=True)
class ModelVolume:
    """Where a cluster has the model: a claim and a folder in its volume, or a folder of every node."""

    claim: str | None = None
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelVolume:
        """Read PVC[:path] or hostPath:/folder; ValueError otherwise."""
        if text.startswith(HOST_PATH_PREFIX):
            path = text.removeprefix(HOST_PATH_PREFIX)
            if not path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise ValueError(f"'{text}' must be {HOST_PATH_PREFIX}/FOLDER, a folder of the nodes")
            return cls(path=path)
        claim, _, path = text.partition(":")
        if ".." in PurePosixPath(path).parts:
            raise ValueError(f"'{path}' leaves the volume")
        return cls(check_object_name(claim), path.strip("/"))

    def mounted(self, name: str, mount: Mount) -> tuple[dict[str, Any], dict[str, Any]]:
        """The volume of this name in place of a mount, and the container's mount of it."""
        place = {"name": name, "mountPath": mount.container, "readOnly": mount.read_only}
        if self.claim is None:
            return {"name": name, "hostPath": {"path": self.path}}, place
        claim = {"claimName": self.claim, "readOnly": mount.read_only}
        return {"name": name, "persistentVolumeClaim": claim}, {
            **place,
            **({"subPath": self.path} if self.path else {}),
        }
