"""Deployments of several servers: replicas, or prefill and decode servers, with a port and GPUs each and a router."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from autotuner.core import Candidate, ServerSpec
from autotuner.engines import engine
from autotuner.engines.commandline import CommandLineEngine
from autotuner.engines.protocol import LaunchContext
from autotuner.engines.trtllm import add_llm_api_options
from autotuner.errors import ConfigError
from autotuner.predict.hardware import find_gpu
from autotuner.serving import RoleName, ServingRole, ServingSpec

PORT_OFFSETS: Mapping[RoleName, int] = {"server": 100, "prefill": 100, "decode": 200}
"""First ports of a role's servers, above the router's port; later where the role before takes more than these."""
MAX_PORT = 65535

NIXL_CONFIG = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}, separators=(",", ":"))
NIXL_FIRST_PORT = 5600
"""vLLM's default VLLM_NIXL_SIDE_CHANNEL_PORT; every rank of every server on a host needs one of its own."""

SGLANG_FIRST_BOOTSTRAP_PORT = 8998
"""SGLang's default --disaggregation-bootstrap-port."""

GB = 1e9

ROUTER_IMAGE = "python:3.12-slim"
"""Image in which routers that are Python packages are installed at start; no image of theirs is assumed."""

SGLANG_ROUTER_READY_PATH = "/readiness"
"""Answered with 200 once the router knows its servers; /health is before that, while requests are refused."""

TRTLLM_ROUTER_FILE = "disaggregated.yaml"
TRTLLM_ROUTER_VARIABLE = "TRTLLM_DISAGGREGATED_CONFIG"
UNTESTED = "No test has started {engine} in this form: its flags are from its documentation."
SGLANG_TESTED = (
    "Tests have started SGLang in this form as processes on a CPU, with its KV cache over mooncake_tcp: not on GPUs,"
    " over no other transport and in no containers."
)


@dataclass(frozen=True)
class Pool:
    """`replicas` servers of one candidate."""

    candidate: Candidate
    replicas: int = 1

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ConfigError(f"{self.replicas} servers cannot be deployed.", remedy="Give at least 1.")


@dataclass(frozen=True)
class _Place:
    """What one server gets for itself: `rank` counts the GPUs of the servers before it."""

    role: RoleName
    number: int
    rank: int
    context: LaunchContext


def disaggregated(prefill: Pool, decode: Pool, context: LaunchContext, *, gpus: Sequence[int] = ()) -> ServingSpec:
    """Prefill and decode servers of one engine on one host, behind a router on the context's port.

    `gpus` are the indexes of the GPUs to use, in order; by default from 0. Raises ConfigError for an
    engine that has no such form, for two engines, and for flags that the roles set.
    """
    name = prefill.candidate.runtime
    if decode.candidate.runtime != name:
        raise ConfigError(
            f"Prefill on {name} cannot hand over to decode on {decode.candidate.runtime}.",
            why="Each engine has its own way to transfer the KV cache.",
            remedy="Take one engine for both.",
        )
    if name not in _DISAGGREGATED:
        raise ConfigError(
            f"{name} has no prefill and decode servers.", remedy=f"Take one of {', '.join(_DISAGGREGATED)}."
        )
    context = replace(context, runtime=context.runtime.model_copy(update={"network": "host"}))
    places = list(_places((("prefill", prefill), ("decode", decode)), context, gpus))
    return _DISAGGREGATED[name](places, {"prefill": prefill.candidate, "decode": decode.candidate}, context)


def replicated(pool: Pool, context: LaunchContext, *, gpus: Sequence[int] = ()) -> ServingSpec:
    """Servers of one candidate on one host: one on the context's port, or several behind a router."""
    name = pool.candidate.runtime
    if pool.replicas == 1:
        return ServingSpec.single(engine(name).server_spec(pool.candidate, context))
    if name not in _ROUTERS:
        raise ConfigError(f"{name} has no router for replicas.", remedy=f"Take one of {', '.join(_ROUTERS)}.")
    context = replace(context, runtime=context.runtime.model_copy(update={"network": "host"}))
    servers = tuple(
        engine(name).server_spec(pool.candidate, place.context) for place in _places((("server", pool),), context, gpus)
    )
    urls = list(map(_url, servers))
    is_simulated = name == "sim"
    arguments = [word for url in urls for word in ("--server", url)] if is_simulated else ["--worker-urls", *urls]
    remark = "" if is_simulated else UNTESTED.format(engine=name)
    return ServingSpec((ServingRole("server", servers),), _ROUTERS[name](context, arguments, servers[0]), remark=remark)


def _places(pools: Sequence[tuple[RoleName, Pool]], context: LaunchContext, gpus: Sequence[int]) -> Iterator[_Place]:
    """A place for each server: ports by role, GPUs one after the other."""
    needed = sum(pool.replicas * engine(pool.candidate.runtime).local_gpu_count(pool.candidate) for _, pool in pools)
    if gpus and len(gpus) < needed:
        raise ConfigError(f"The servers need {needed} GPUs, and {len(gpus)} are given.", remedy="Give more GPUs.")
    indexes = list(gpus or range(needed))
    if not engine(pools[0][1].candidate.runtime).computes_on_gpus(context):
        indexes = []
    rank, port = 0, context.port
    for role, pool in pools:
        port = max(port, context.port + PORT_OFFSETS[role])
        if port + pool.replicas - 1 > MAX_PORT:
            raise ConfigError(
                f"{pool.replicas} {role} servers need ports from {port} on, and {MAX_PORT} is the last.",
                remedy="Give a lower port, or fewer servers.",
            )
        count = engine(pool.candidate.runtime).local_gpu_count(pool.candidate)
        for number in range(pool.replicas):
            yield _Place(role, number, rank, replace(context, port=port, devices=tuple(indexes[rank : rank + count])))
            rank, port = rank + max(1, count), port + 1


def _server(
    place: _Place, candidate: Candidate, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> ServerSpec:
    """The server of a place with further arguments, which neither the candidate nor the runtime may set."""
    runtime, context = place.context.runtime, place.context
    server_engine = engine(candidate.runtime)
    assert isinstance(server_engine, CommandLineEngine)
    for flag in (word for word in arguments if word.startswith("--")):
        if server_engine.sets_flag(flag, candidate, context):
            raise ConfigError(f"{flag} is set by the role of the server and cannot be given.", remedy="Leave it out.")
    env = env or {}
    for name in env.keys() & runtime.env.keys():
        raise ConfigError(
            f"runtime.env.{name} is set by the role of the server and cannot be given.",
            why="Every server has a value of its own.",
            remedy="Leave it out.",
        )
    extra = (*runtime.extra_args, *arguments)
    runtime = runtime.model_copy(update={"extra_args": extra, "env": {**runtime.env, **env}})
    return server_engine.server_spec(candidate, replace(context, runtime=runtime))


def _url(server: ServerSpec) -> str:
    return f"http://127.0.0.1:{server.port}"


def _roles(servers: Sequence[tuple[RoleName, ServerSpec]]) -> tuple[ServingRole, ...]:
    names: tuple[RoleName, ...] = ("prefill", "decode")
    return tuple(ServingRole(name, tuple(server for role, server in servers if role == name)) for name in names)


def _python_router(
    context: LaunchContext,
    package: str,
    command: Sequence[str],
    arguments: Sequence[str],
    served: ServerSpec,
    ready_path: str = "/health",
) -> ServerSpec:
    """A router that is a Python package; in a container it is installed first.

    It listens, counters included, where the context says: by default its counters are open to the network.
    """
    argv = (*command, *arguments, "--host", context.host, "--port", str(context.port))
    argv += ("--prometheus-host", context.host)
    install = f'pip install --quiet {package} && exec "$0" "$@"'
    return ServerSpec(
        image=ROUTER_IMAGE if context.runtime.image else None,
        argv=argv,
        env={},
        mounts=(),
        port=context.port,
        ready_path=ready_path,
        served_model=served.served_model,
        container_argv=("sh", "-c", install, *argv),
        network="host",
    )


def _vllm_router(context: LaunchContext, arguments: Sequence[str], served: ServerSpec) -> ServerSpec:
    return _python_router(context, "vllm-router", ("vllm-router", "--policy", "round_robin"), arguments, served)


def _sglang_router(context: LaunchContext, arguments: Sequence[str], served: ServerSpec) -> ServerSpec:
    command = ("python3", "-m", "sglang_router.launch_router")
    return _python_router(context, "sglang-router", command, arguments, served, SGLANG_ROUTER_READY_PATH)


def _vllm(places: Sequence[_Place], candidates: Mapping[str, Candidate], context: LaunchContext) -> ServingSpec:
    """vLLM with NixlConnector, whose servers both send and receive; its router passes kv_transfer_params on."""
    servers = [
        (
            place.role,
            _server(
                place,
                candidates[place.role],
                ("--kv-transfer-config", NIXL_CONFIG),
                {
                    "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                    "VLLM_NIXL_SIDE_CHANNEL_PORT": str(NIXL_FIRST_PORT + place.rank),
                },
            ),
        )
        for place in places
    ]
    urls = [word for role, server in servers for word in (f"--{role}", _url(server))]
    router = _vllm_router(context, ("--vllm-pd-disaggregation", *urls), servers[0][1])
    return ServingSpec(_roles(servers), router, remark=UNTESTED.format(engine="vLLM"))


def _sglang(places: Sequence[_Place], candidates: Mapping[str, Candidate], context: LaunchContext) -> ServingSpec:
    """SGLang with its own modes; decode servers find a prefill server at its bootstrap port."""
    servers, addresses = [], []
    for place in places:
        arguments = ["--disaggregation-mode", place.role]
        bootstrap_port = str(SGLANG_FIRST_BOOTSTRAP_PORT + place.number)
        if place.role == "prefill":
            arguments += ["--disaggregation-bootstrap-port", bootstrap_port]
        server = _server(place, candidates[place.role], arguments)
        servers.append((place.role, server))
        addresses += [f"--{place.role}", _url(server), *([bootstrap_port] if place.role == "prefill" else [])]
    router = _sglang_router(context, ("--pd-disaggregation", *addresses), servers[0][1])
    return ServingSpec(_roles(servers), router, remark=SGLANG_TESTED)


def _trtllm(places: Sequence[_Place], candidates: Mapping[str, Candidate], context: LaunchContext) -> ServingSpec:
    """TensorRT-LLM: context and generation servers, and `trtllm-serve disaggregated` with its configuration file."""
    transceiver: dict[str, Any] = {"cache_transceiver_config": {"backend": "DEFAULT"}}
    options = {"prefill": {**transceiver, "disable_overlap_scheduler": True}, "decode": transceiver}
    servers = [
        (
            place.role,
            add_llm_api_options(_server(place, candidates[place.role]), options[place.role], place.context),
        )
        for place in places
    ]
    urls = {role: [f"127.0.0.1:{server.port}" for name, server in servers if name == role] for role in options}
    text: str = yaml.safe_dump(
        {
            "hostname": context.host,
            "port": context.port,
            "context_servers": {"num_instances": len(urls["prefill"]), "urls": urls["prefill"]},
            "generation_servers": {"num_instances": len(urls["decode"]), "urls": urls["decode"]},
        },
        sort_keys=False,
    )
    program = context.runtime.executable or "trtllm-serve"
    first = servers[0][1]
    container = ("bash", "-c", f'exec {program} disaggregated -c <(printf %s "${TRTLLM_ROUTER_VARIABLE}")')
    router = ServerSpec(
        image=context.runtime.image,
        argv=container if context.container else (program, "disaggregated", "-c", TRTLLM_ROUTER_FILE),
        env={TRTLLM_ROUTER_VARIABLE: text} if context.container else {},
        mounts=(),
        port=context.port,
        ready_path="/health",
        served_model=first.served_model,
        container_argv=container,
        network="host",
    )
    files = {} if context.container else {TRTLLM_ROUTER_FILE: text}
    return ServingSpec(_roles(servers), router, files, UNTESTED.format(engine="TensorRT-LLM"))


def _sim(places: Sequence[_Place], candidates: Mapping[str, Candidate], context: LaunchContext) -> ServingSpec:
    """The simulated engine: servers of both roles and a router of autotune's own, as real processes."""
    gpu = find_gpu(context.simulate.gpu)
    gpus = sum(candidates[place.role].gpus for place in places)
    transfer = ("--kv-transfer-gbps", f"{gpu.inter_node / GB:g}") if gpus > gpu.gpus_per_node else ()
    servers = []
    for place in places:
        arguments = ("--disaggregation-mode", place.role, *(transfer if place.role == "decode" else ()))
        servers.append((place.role, _server(place, candidates[place.role], arguments)))
    urls = [word for role, server in servers for word in (f"--{role}", _url(server))]
    return ServingSpec(_roles(servers), _sim_router(context, urls, servers[0][1]))


def _sim_router(context: LaunchContext, arguments: Sequence[str], served: ServerSpec) -> ServerSpec:
    argv = (served.argv[0], "-m", "autotuner.simulate.router", *arguments)
    return replace(
        served,
        argv=(*argv, "--host", context.host, "--port", str(context.port)),
        container_argv=(),
        port=context.port,
        gpus=0,
        devices=(),
        mounts=(),
    )


_Build = Callable[[Sequence[_Place], Mapping[str, Candidate], LaunchContext], ServingSpec]
_DISAGGREGATED: Mapping[str, _Build] = {"vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm, "sim": _sim}
_ROUTERS: Mapping[str, Callable[[LaunchContext, Sequence[str], ServerSpec], ServerSpec]] = {
    "vllm": _vllm_router,
    "sglang": _sglang_router,
    "sim": _sim_router,
}
