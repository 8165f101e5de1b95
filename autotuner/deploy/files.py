"""A deployment as files: its servers' commands, what starts them all, and their configuration files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from autotuner.core import ServerSpec
from autotuner.deploy.comment import with_comment
from autotuner.deploy.compose import compose_service, to_yaml
from autotuner.deploy.shell import render_docker, render_shell
from autotuner.serving import ServingSpec

FILE_NAMES: Mapping[str, str] = {"shell": "command.sh", "docker": "docker.sh", "compose": "compose.yaml"}
"""The file that starts everything, for each format."""

ROUTER = "router"

_START_ALL = """\
#!/usr/bin/env bash
{comments}
# Each server writes a log beside this file; Ctrl-C ends all of them.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {{ bash "$1.sh" >"$1.log" 2>&1 & }}

# wait until NAME with process PID answers at URL
ready() {{
  until curl --silent --fail --output /dev/null --max-time 2 "$3"; do
    kill -0 "$2" 2>/dev/null || {{ echo "$1 ended: see $1.log" >&2; exit 1; }}
    sleep 0.2
  done
}}

{starts}

{waits}

start {router}; {router_variable}=$!
ready {router} "${router_variable}" {router_url}
echo "ready: http://127.0.0.1:{port}"
wait -n || true
echo "a server ended: see the logs" >&2
exit 1
"""


def render_all(serving: ServingSpec, format: str, render: Callable[[ServerSpec], str]) -> dict[str, str]:
    """The files of a deployment; `render` gives the text of a single server in this format."""
    if serving.single_server is not None:
        text = with_comment(render(serving.single_server), serving.remark)
        return {FILE_NAMES[format]: text, **serving.files}
    if format == "compose":
        return _compose_file(serving)
    return _scripts(serving, render_docker if format == "docker" else render_shell, FILE_NAMES[format])


def _scripts(serving: ServingSpec, render: Callable[[ServerSpec], str], start_file: str) -> dict[str, str]:
    """One bash script for each server and the router, and one that starts them all in order."""
    assert serving.router is not None
    servers = dict(serving.named_servers())
    scripts = {
        f"{name}.sh": f"#!/usr/bin/env bash\nexec env \\\n  {render(server)}"
        for name, server in {**servers, ROUTER: serving.router}.items()
    }
    start_all = _START_ALL.format(
        comments=_comments(serving),
        starts="\n".join(f"start {name}; {_variable(name)}=$!" for name in servers),
        waits="\n".join(
            f'ready {name} "${_variable(name)}" {shlex.quote(_ready_url(server))}' for name, server in servers.items()
        ),
        router=ROUTER,
        router_variable=_variable(ROUTER),
        router_url=shlex.quote(_ready_url(serving.router)),
        port=serving.router.port,
    )
    return {start_file: start_all, **scripts, **serving.files}


def _compose_file(serving: ServingSpec) -> dict[str, str]:
    """One Compose file with all servers and the router, which is started again until the servers answer."""
    assert serving.router is not None
    services: dict[str, Any] = {name: compose_service(server) for name, server in serving.named_servers()}
    router = {**compose_service(serving.router), "depends_on": list(services), "restart": "on-failure"}
    text = to_yaml({"services": {**services, ROUTER: router}})
    return {FILE_NAMES["compose"]: f"{_comments(serving)}\n{text}", **serving.files}


def _comments(serving: ServingSpec) -> str:
    counts = " and ".join(f"{len(role.servers)} {role.name}" for role in serving.roles)
    lines = [f"The {ROUTER} and {counts} servers of one deployment, on one host.".replace("server servers", "servers")]
    return with_comment("", "\n".join((*lines, serving.remark))).rstrip()


def _ready_url(server: ServerSpec) -> str:
    return f"http://127.0.0.1:{server.port}{server.ready_path}"


def _variable(name: str) -> str:
    return name.replace("-", "_")
