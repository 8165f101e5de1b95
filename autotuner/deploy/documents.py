"""Documents of a YAML file, as every reader of Kubernetes manifests takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

_NOT_TEXT_ELSEWHERE = re.compile(r"[-+.]?\d.*|[yYnN]")
"""Text that other readers of YAML take for a number or a boolean, such as 1e3 and y, and PyYAML does not quote."""

_UNQUOTED_BREAK = re.compile("[\x85\u2028\u2029\ufeff]")
"""Line breaks of Unicode, and its mark of byte order, which PyYAML escapes in double quotes alone."""


class _ManifestDumper(yaml.SafeDumper):
    """Quotes text that Kubernetes would read as something else; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _ManifestDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _UNQUOTED_BREAK.search(text) else "'" if _NOT_TEXT_ELSEWHERE.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ManifestDumper.add_representer(str, _represent_text)


def to_yaml(documents: Iterable[Mapping[str, Any]]) -> str:
    """Documents of one YAML file, in their order."""
    text: str = yaml.dump_all(documents, Dumper=_ManifestDumper, sort_keys=False, width=120, allow_unicode=True)
    return text
