"""What serves a model: one server, or the replicas of several roles behind a router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from autotuner.core import ServerSpec

RoleName = Literal["server", "prefill", "decode"]
"""What the servers of a role do: whole requests, prompts only, or what follows them."""


@dataclass(frozen=True)
class ServingRole:
    """The replicas of one role, alike but for their ports and GPUs."""

    name: RoleName
    servers: tuple[ServerSpec, ...]

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError(f"the role {self.name} has no server")


@dataclass(frozen=True)
class ServingSpec:
    """The servers of one deployment on one host, and the router in front of them.

    One role with one server needs no router; clients talk to it. `files` are configuration files, by the
    relative names under which commands read them. `remark` says what no test has tried, and is empty
    otherwise.
    """

    roles: tuple[ServingRole, ...]
    router: ServerSpec | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""

    def __post_init__(self) -> None:
        names = [role.name for role in self.roles]
        if sorted(names) not in (["server"], ["decode", "prefill"]):
            raise ValueError(f"a deployment has one role of servers, or prefill and decode, not {names}")
        if self.router is None and self.single_server is None:
            raise ValueError("several servers need a router")

    @classmethod
    def single(cls, server: ServerSpec) -> ServingSpec:
        """The plain case: one server that clients talk to."""
        return cls((ServingRole("server", (server,)),))

    @property
    def single_server(self) -> ServerSpec | None:
        """The only server; None where there are several."""
        servers = [server for role in self.roles for server in role.servers]
        return servers[0] if len(servers) == 1 and self.router is None else None

    @property
    def entry(self) -> ServerSpec:
        """The server that clients talk to: the router, or the only server."""
        return self.router or self.roles[0].servers[0]

    @property
    def gpus(self) -> int:
        """GPUs of all servers."""
        return sum(server.gpus for role in self.roles for server in role.servers)

    def named_servers(self) -> Iterator[tuple[str, ServerSpec]]:
        """Every server with its name, such as (prefill-2, spec), in the order of roles; not the router."""
        for role in self.roles:
            for number, server in enumerate(role.servers, start=1):
                yield f"{role.name}-{number}", server
