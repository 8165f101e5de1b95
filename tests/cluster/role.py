"""The Role that the documentation asks for, as it is printed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.control_plane import NAMESPACE, ControlPlane

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kubernetes.md"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"


def documented_role() -> dict[str, Any]:
    """The first YAML block of the page, which is the Role."""
    match = re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert match is not None
    role: dict[str, Any] = yaml.safe_load(match[1])
    assert role["kind"] == "Role"
    return role


def grant(plane: ControlPlane, user: str) -> None:
    """Give a user the documented Role in the namespace of the tests."""
    role = documented_role()
    role["metadata"]["namespace"] = NAMESPACE
    plane.create(f"{RBAC}/roles", role)
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"autotune-{user}", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
    }
    plane.create(f"{RBAC}/rolebindings", binding)
