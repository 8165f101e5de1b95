"""The objects of a run on a cluster: one ConfigMap, which owns a Job for each launch, and the labels of both."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner import owner
from autotuner.core import ServerSpec
from autotuner.deploy.kubernetes.options import ClusterOptions
from autotuner.deploy.kubernetes.pod import pod_template
from autotuner.kubernetes_values import label_value

MANAGER_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "autotune"
RUN_LABEL, TRIAL_LABEL, JOB_LABEL = "autotune/run", "autotune/trial", "autotune/job"
OWNER_ANNOTATION, FOLDER_ANNOTATION = "autotune/owner", "autotune/folder"

STOP_SECONDS = 10
"""Seconds between SIGTERM and SIGKILL for a server that is removed."""


@dataclass(frozen=True)
class RunIdentity:
    """Which run an object belongs to: its folder, and the process that leads it."""

    folder: str
    leader: owner.Owner

    @classmethod
    def of_log(cls, log: Path) -> RunIdentity:
        """The identity of the run that a server's log belongs to: RUN/trials/TRIAL/server.log."""
        return cls(str(log.absolute().parents[2]), leading_process())

    @property
    def key(self) -> str:
        """Eight hexadecimal digits, different for folders and hosts of other runs."""
        return hashlib.sha256(f"{self.leader.host} {self.folder}".encode()).hexdigest()[:8]

    @property
    def config_map_name(self) -> str:
        return f"autotune-{self.key}"

    @property
    def labels(self) -> dict[str, str]:
        name = label_value(Path(self.folder).name)[:50].rstrip("-_.")
        return {MANAGER_LABEL: MANAGER, RUN_LABEL: f"{name}-{self.key}" if name else self.key}

    @property
    def annotations(self) -> dict[str, str]:
        return {OWNER_ANNOTATION: str(self.leader), FOLDER_ANNOTATION: self.folder}


def leading_process() -> owner.Owner:
    """The process that leads the run: the one that started this one for a trial, else this one."""
    starter = owner.parse(os.environ.get(owner.OWNER_VARIABLE, ""))
    return owner.this_process() if starter is None or starter.is_gone else starter


def config_map(run: RunIdentity) -> dict[str, Any]:
    """The manifest of the ConfigMap that owns the Jobs of a run: whoever deletes it ends them all."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": run.config_map_name, "labels": run.labels, "annotations": run.annotations},
        "data": {"purpose": "Owns the Jobs of a run of autotune; deleting it ends them all."},
    }


def job_name(run: RunIdentity, log: Path) -> str:
    """A name for a launch of a trial, which no other has."""
    return f"at-{run.key}-{label_value(log.absolute().parent.name).lower()[:12]}-{secrets.token_hex(3)}"


def job(
    name: str,
    run: RunIdentity,
    config_map_uid: str,
    spec: ServerSpec,
    options: ClusterOptions,
    *,
    trial: str,
    time_limit: float,
) -> dict[str, Any]:
    """The manifest of a launch: one pod, which is not started again, and which the cluster ends at `time_limit` s.

    Unless nodes are shared, no other pod of the run is on its node.
    """
    labels = {**run.labels, TRIAL_LABEL: label_value(trial), JOB_LABEL: name}
    apart_from: Mapping[str, str] | None = None if options.share_nodes else {RUN_LABEL: labels[RUN_LABEL]}
    template = pod_template(spec, options, labels=labels, restart_policy="Never", apart_from=apart_from)
    template["spec"]["terminationGracePeriodSeconds"] = STOP_SECONDS
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": run.annotations,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": run.config_map_name, "uid": config_map_uid}
            ],
        },
        "spec": {
            # a launch that fails is a result, and not to be tried again
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(time_limit),
            "template": template,
        },
    }
