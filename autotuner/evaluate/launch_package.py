"""What stands beside a launch's files so that others can repeat it: experiment, hosts, rights, and how to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.core import Trial, Value
from autotuner.deploy.documents import to_yaml
from autotuner.deploy.kubernetes import access_documents
from autotuner.escaping import for_shell
from autotuner.evaluate.launch_files import CLUSTER_FORMATS, ENGINE_FORMAT, DeployedCandidate

DYNAMO_FRONTEND_PORT = 8000
README, EXPERIMENT, HOSTS, ROLE = "README.md", "experiment.yaml", "environment.json", "role.yaml"

_TEXT = """\
# {model} on {engine}

{origin}
{remark}
## Start it

{start}

## Measure it again

`{experiment}` is the whole question: model, engine, parameters, load and targets. On a machine like the one in
`{hosts}` this measures it again:

```sh
autotune run -f {experiment}
```

This measures the server that you started:

```sh
autotune bench http://127.0.0.1:{port}{load}
```
"""

_SECRETS = """\
Create the Secret with what the server takes from its environment; no file here has a value of it:

```sh
kubectl {namespace}create secret generic {secret} {literals}
```

"""

_APPLY = """\
```sh
kubectl {namespace}apply -f {file}
{wait}
kubectl {namespace}port-forward service/{service} {port}:{service_port}
```

Clients in the cluster reach it at `http://{service}:{service_port}` without the detour through the API server, which
slows every token down: load belongs into the cluster.
"""


def package_files(
    launch: DeployedCandidate,
    format: str,
    files: Mapping[str, str],
    *,
    trial: Trial,
    experiment: str,
    hosts: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """The launch's files and those beside them; `experiment` is the text of the run's experiment.yaml."""
    role = {}
    if format in ("kubernetes", "ome"):
        role = {ROLE: to_yaml(access_documents(launch.options, ome=format == "ome"))}
    return {
        **files,
        **role,
        EXPERIMENT: experiment,
        HOSTS: json.dumps(list(hosts), indent=1) + "\n",
        README: _readme(launch, format, next(iter(files)), trial),
    }


def _readme(launch: DeployedCandidate, format: str, main_file: str, trial: Trial) -> str:
    return _TEXT.format(
        model=launch.server.served_model,
        engine=launch.candidate.runtime,
        origin=_origin(launch, trial),
        remark=f"\n{launch.remark}\n" if launch.remark else "",
        start=_start(launch, format, main_file),
        experiment=EXPERIMENT,
        hosts=HOSTS,
        port=launch.server.port,
        load=_load(launch),
    )


def _origin(launch: DeployedCandidate, trial: Trial) -> str:
    """Which trial this is, of what, with the version and the image that its log told."""
    parameters = ", ".join(f"{name} {_text(value)}" for name, value in launch.candidate.parameters.items())
    gpus = launch.candidate.gpus
    server = trial.measurement.server
    build = [str(server[key]) for key in ("version", "image", "image_digest") if server.get(key)]
    is_measured = trial.measurement.source == "measured"
    return (
        f"The server of trial {trial.number} of {launch.experiment.task_name}, {trial.measurement.source}, "
        f"on {gpus} GPU{'s' if gpus > 1 else ''}: {parameters or 'the defaults of the engine'}."
        + (f" Version and image: {', '.join(build)}." if build and is_measured else "")
    )


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _load(launch: DeployedCandidate) -> str:
    load = launch.experiment.benchmark
    words = [word for name in load.traffic_scenarios for word in ("--scenario", name)]
    if load.num_concurrency:
        words += ["--concurrency", ",".join(map(str, load.num_concurrency))]
    elif load.request_rates:
        words += ["--rate", ",".join(map(str, load.request_rates))]
    return "".join(f" {for_shell(word)}" for word in words)


def _start(launch: DeployedCandidate, format: str, main_file: str) -> str:
    if format not in CLUSTER_FORMATS:
        command = {"compose": f"docker compose -f {main_file} up", ENGINE_FORMAT: "bash command.sh"}
        exports = "".join(f"export {name}=...\n" for name in launch.server.secrets)
        return f"```sh\n{exports}{command.get(format, f'bash {main_file}')}\n```"
    namespace = f"--namespace {launch.options.namespace} " if launch.options.namespace else ""
    literals = " ".join(f'--from-literal={name}="${name}"' for name in launch.server.secrets)
    secrets = _SECRETS.format(namespace=namespace, secret=launch.options.secret, literals=literals)
    service, service_port, wait = _service(launch, format, namespace)
    text = _APPLY.format(
        namespace=namespace,
        file=main_file,
        wait=wait,
        service=service,
        port=launch.server.port,
        service_port=service_port,
    )
    role = f"\n\n`{ROLE}` lets a service account of the namespace run trials there." if format != "dynamo" else ""
    return (secrets if launch.server.secrets else "") + text.rstrip("\n") + role


def _service(launch: DeployedCandidate, format: str, namespace: str) -> tuple[str, int, str]:
    """The name and port of the Service, and the command that waits until servers are ready."""
    seconds = round(launch.experiment.runtime.start_timeout)
    name, port = launch.name, launch.server.port
    if format == "kubernetes":
        return name, port, f"kubectl {namespace}rollout status deployment/{name} --timeout={seconds}s"
    if format == "ome":
        wait = f"kubectl {namespace}wait --for=condition=Ready inferenceservice/{name} --timeout={seconds}s"
        return f"{name}-engine", port, wait
    name = launch.dynamo_name
    wait = f"kubectl {namespace}wait --for=condition=Ready dynamographdeployment/{name} --timeout={seconds}s"
    return f"{name}-frontend", DYNAMO_FRONTEND_PORT, wait
