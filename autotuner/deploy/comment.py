"""Remarks as comment lines."""


def with_comment(text: str, remark: str) -> str:
    """A rendered server with `remark` above it as comment lines, valid in shells and in YAML."""
    return "".join(f"# {line}\n" for line in remark.splitlines()) + text
