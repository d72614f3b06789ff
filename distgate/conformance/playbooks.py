"""Playbooks of a conformance profile, run against the nodes of a cluster by ansible-runner inside a sandbox.

As for tests of packages: unprivileged, a copy of the profile, no credential but the nodes' keys, and no network but
their ssh ports. So nothing is fetched in there: collections and files have to lie in the profile, or in ``files``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distgate.conformance.cluster import ClusterNode
from distgate.conformance.topology import Topology
from distgate.errors import ConfigurationError
from distgate.runners.ansible_environment import checked_bins, connection, environment, readable_for, suite_run_of
from distgate.sandbox.sandbox import Limits, PortForward, Sandbox
from distgate.testing.verdict import SuiteRun

#: The first node's ssh port inside of the sandbox; the others follow.
_FIRST_PORT = 22001
#: What an ansible_-variable of a profile may not change is refused when its topology is read.
_INTERPRETER = "ansible_python_interpreter"


class ClusterPlaybooks:
    """Runs playbooks of ``topology``'s profile against ``nodes``.

    ``variables`` are the site's, which win over the profile's own. ``files`` is a directory that playbooks may read,
    as ``distgate_files``. ``ansible`` is a directory with another ansible-playbook than ours, ``roles_path`` lists
    directories with roles beside the profile's own.
    """

    def __init__(
        self,
        topology: Topology,
        nodes: Sequence[ClusterNode],
        variables: Mapping[str, Any],
        *,
        files: Path | None = None,
        ansible: Path | None = None,
        roles_path: Sequence[Path] = (),
        limits: Limits | None = None,
        scratch: Path | None = None,
    ) -> None:
        if files and not files.is_dir():
            raise ConfigurationError(f"the directory of files for the conformance run, {files}, is not there")
        self._topology, self._nodes, self._site_variables = topology, tuple(nodes), dict(variables)
        self._variables = topology.all_variables(variables)
        self._files = files.resolve() if files else None
        self._bins = checked_bins(ansible, "the setting of the conformance run names it")
        self._roles_path = [path.resolve() for path in roles_path]
        self._sandbox = Sandbox(limits, scratch=scratch)
        self._scratch = scratch

    def run(self, playbook: str, artifacts: Path, timeout: float) -> SuiteRun:
        """Run one playbook of the profile and return what was observed, without a verdict.

        What it leaves in the directory that the variable ``artifacts`` names comes out in ``artifacts``, which must
        be absent or empty, with ``ansible.log`` and ``ansible.txt``. It is killed after ``timeout`` seconds. Raises
        InfrastructureError when ansible could not be run at all.
        """
        artifacts = artifacts.resolve()
        artifacts.mkdir(parents=True, exist_ok=True)
        if any(artifacts.iterdir()):
            raise ConfigurationError(f"the artifacts directory {artifacts} is not empty")
        profile = self._topology.directory
        with tempfile.TemporaryDirectory(prefix="distgate-cluster-", dir=self._scratch) as scratch:
            private = Path(scratch).resolve()
            self._prepare(private, profile / playbook, artifacts)
            ended = self._sandbox.run(
                [sys.executable, "-I", "-m", "distgate.runners.ansible_child", private / "spec.json"],
                env=self._environment(private, artifacts),
                timeout=timeout,
                log_to=artifacts / "ansible.txt",
                readable=[*([self._files] if self._files else []), *self._roles_path, *readable_for(self._bins)],
                copies=[profile, private],
                artifacts=artifacts,
                forwards=[
                    PortForward(_FIRST_PORT + number, node.address.host, node.address.port)
                    for number, node in enumerate(self._nodes)
                ],
                cwd=(profile / playbook).parent,
            )
        return suite_run_of(playbook, artifacts, ended)

    def _environment(self, private: Path, artifacts: Path) -> dict[str, str]:
        profile = self._topology.directory
        return environment(private, artifacts, self._bins, (profile / "roles", *self._roles_path)) | {
            "ANSIBLE_COLLECTIONS_PATH": str(profile / "collections"),
            "ANSIBLE_FORKS": str(max(5, len(self._nodes))),
        }

    def _prepare(self, private: Path, playbook: Path, artifacts: Path) -> None:
        """Write the child's specification, the inventory, keys and host keys."""
        (private / "ansible.cfg").touch()
        inventory = private / "inventory.yml"
        inventory.write_text(yaml.safe_dump(self.inventory(private)))
        lines = (f"{node.name} {node.host_key}\n" for node in self._nodes if node.host_key)
        (private / "known_hosts").write_text("".join(lines))
        for node in self._nodes:
            shutil.copyfile(node.address.key, private / f"key-{node.name}")
            (private / f"key-{node.name}").chmod(0o600)
        run_variables = {"artifacts": str(artifacts), "distgate_files": str(self._files or "")}
        run = {
            "private_data_dir": str(private),
            "project_dir": str(playbook.parent),
            "playbook": playbook.name,
            "inventory": str(inventory),
            "extravars": {**self._site_variables, **run_variables},
        }
        (private / "spec.json").write_text(json.dumps({"run": run}))

    def inventory(self, private: Path) -> dict[str, Any]:
        """The inventory: each node in its groups, with its ``cluster_address``; keys lie in ``private``."""
        groups = self._topology.groups()
        return {
            "all": {
                "vars": self._variables,
                "hosts": {node.name: self._host(number, node, private) for number, node in enumerate(self._nodes)},
                "children": {group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()},
            }
        }

    def _host(self, number: int, node: ClusterNode, private: Path) -> dict[str, Any]:
        more = strict_host_key(node, private / "known_hosts") if node.host_key else ()
        host_variables = connection(
            _FIRST_PORT + number,
            private / f"key-{node.name}",
            user=node.address.user,
            interpreter=str(self._variables.get(_INTERPRETER, "/usr/bin/python3")),
            more=more,
        )
        return {"cluster_address": node.cluster_address, **host_variables, **node.node.variables}


def strict_host_key(node: ClusterNode, known_hosts: Path) -> tuple[str, ...]:
    """Options of ssh that refuse a host which does not have the node's key, listed in ``known_hosts`` by its name."""
    return (
        *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known_hosts}"),
        *("-o", f"HostKeyAlias={node.name}"),
    )
