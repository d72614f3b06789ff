"""Builds of the hub stand-in that are no scratch builds: imported below packages/, where they outlive their tasks.

As on a real hub, what a task put out is moved there, and its output is links to it, until that is cleared away.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import koji

from distgate.rpm.nevra import Nevra, read_rpms
from lab.koji.tasks import TaskFault


class Releases:
    """The imported builds below ``files``, the hub's top directory; thread-safe, and there after a restart."""

    def __init__(self, files: Path) -> None:
        self._files = files
        self._record = files.parent / "releases.json"
        self._lock = threading.Lock()
        self._builds: list[dict[str, Any]] = json.loads(self._record.read_text()) if self._record.exists() else []

    def add(self, task_id: int, result: Mapping[str, Any]) -> None:
        """Import what the build task ``task_id`` made, as its result names it. TaskFault for an NVR that is there."""
        source = self._nevra(result["srpms"][0])
        build = {"name": source.name, "version": source.version, "release": source.release, "volume_name": "DEFAULT"}
        directory = self._directory(build)
        with self._lock:
            if directory.exists():
                raise TaskFault(koji.GenericError.faultCode, f"GenericError: Build already exists ({source.nvr})")
            for rpm in {Path(name).name: name for name in (*result["srpms"], *result["rpms"])}.values():
                self._import(rpm, directory / self._nevra(rpm).arch)
            for arch, logs in result["logs"].items():
                for log in logs:
                    self._import(log, directory / "data/logs" / arch)
            number = len(self._builds) + 1
            identity = {"build_id": number, "nvr": source.nvr, "package_name": source.name, "epoch": None}
            self._builds.append(build | identity | {"task_id": task_id, "state": koji.BUILD_STATES["COMPLETE"]})
            self._record.write_text(json.dumps(self._builds))

    def of_task(self, task_id: int | None) -> list[dict[str, Any]]:
        """The builds that a task made; all of them for none."""
        return [dict(build) for build in self._builds if task_id in (None, build["task_id"])]

    def rpms(self, build_id: int) -> list[dict[str, Any]]:
        """What listBuildRPMs answers."""
        paths = sorted(self._directory(self._find(build_id)).glob("*/*.rpm"))
        return [
            {
                "name": rpm.nevra.name,
                "version": rpm.nevra.version,
                "release": rpm.nevra.release,
                "arch": rpm.nevra.arch,
                "nvr": rpm.nevra.nvr,
                "epoch": None,
                "size": rpm.path.stat().st_size,
                "build_id": build_id,
            }
            for rpm in read_rpms(paths)
        ]

    def logs(self, build_id: int) -> list[dict[str, str]]:
        """What getBuildLogs answers."""
        paths = sorted(self._directory(self._find(build_id)).glob("data/logs/*/*"))
        return [
            {"name": path.name, "dir": path.parent.name, "path": str(path.relative_to(self._files))} for path in paths
        ]

    def _find(self, build_id: int) -> dict[str, Any]:
        matching = next((build for build in self._builds if build["build_id"] == build_id), None)
        if matching is None:
            raise koji.GenericError(f"No matching build found: {build_id!r}")
        return matching

    def _directory(self, build: Mapping[str, Any]) -> Path:
        return Path(koji.PathInfo(topdir=str(self._files)).build(build))

    def _nevra(self, name: str) -> Nevra:
        (rpm,) = read_rpms([self._files / "work" / name])
        return rpm.nevra

    def _import(self, name: str, into: Path) -> None:
        source = self._files / "work" / name
        into.mkdir(parents=True, exist_ok=True)
        target = source.rename(into / source.name)
        source.symlink_to(os.path.relpath(target, source.parent))
