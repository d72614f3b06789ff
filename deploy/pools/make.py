"""Writes the base job templates of the work pools beside this file: Prefect's own, with our defaults in them.

    .venv/bin/python deploy/pools/make.py

Run it again after an upgrade of Prefect; a test compares the files with what it writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect.workers.process import ProcessWorker
from prefect_docker.worker import DockerWorker

HERE = Path(__file__).parent
STATE = "/var/lib/distgate"

PROCESS: dict[str, Any] = {
    # A run that writes into a pipe of its worker dies with it; its log reaches the server either way.
    "stream_output": False,
}

DOCKER: dict[str, Any] = {
    "image": "distgate:latest",
    "image_pull_policy": "IfNotPresent",
    # A run that is over is told by the ledger, the server and its artifacts; its container holds nothing more.
    "auto_remove": True,
    "stream_output": False,
    "volumes": [
        # Settings with their passwords: read by the image's entrypoint, and so in no work pool.
        "/etc/distgate:/etc/distgate:ro",
        # Under the same names as on the host: images refer to the ones below them by path.
        *(f"{STATE}/{name}:{STATE}/{name}" for name in ("images", "trees", "artifacts", "results")),
        # Guests are processes of their container, and nobody else's: a volume that ends with it.
        f"{STATE}/guests",
    ],
    "env": {
        # A run is resumed from these, by whatever worker.
        "PREFECT_LOCAL_STORAGE_PATH": f"{STATE}/results",
        "DISTGATE_IMAGE_STORE": f"{STATE}/images",
        "DISTGATE_ARTIFACTS_DIR": f"{STATE}/artifacts",
        "DISTGATE_GUESTS_DIR": f"{STATE}/guests",
    },
    "mem_limit": "6g",
    "memswap_limit": "6g",
}

#: What docker-py is told besides. The run itself is an ordinary user without any capability, in namespaces that it
#: makes: docs/deploy.md says what each word is for.
CONTAINER: dict[str, Any] = {
    "init": True,
    "devices": ["/dev/kvm:/dev/kvm:rw", "/dev/fuse:/dev/fuse:rw"],
    # For the image's entrypoint, which gives them away: SYS_ADMIN uncovers /proc, the others become another user.
    "cap_drop": ["ALL"],
    "cap_add": ["SYS_ADMIN", "SETUID", "SETGID", "SETPCAP"],
    # Engines keep unshare, mount and pivot_root from ordinary users; sandboxes and composes are made of them.
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
    "pids_limit": 4096,
}


def template(worker: type[ProcessWorker] | type[DockerWorker], defaults: dict[str, Any]) -> dict[str, Any]:
    """The worker's own template of jobs with other defaults; KeyError for a variable that it does not have."""
    template: dict[str, Any] = worker.get_default_base_job_template()
    for name, value in defaults.items():
        template["variables"]["properties"][name]["default"] = value
    return template


def templates() -> dict[str, dict[str, Any]]:
    """Each file's name and what belongs into it."""
    return {
        "process.json": template(ProcessWorker, PROCESS),
        "docker.json": template(DockerWorker, {**DOCKER, "container_create_kwargs": CONTAINER}),
    }


if __name__ == "__main__":
    for name, content in templates().items():
        (HERE / name).write_text(json.dumps(content, indent=2) + "\n")
