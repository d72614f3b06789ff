"""Unpacks the package's source RPM on this side, patches applied, for tests that need its sources.

There is no network here, so the source RPM is the one that was built; the roles that run tests take ``srcdir`` to the
guest with the rest of the tests' directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

SECONDS = 1800


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``srpm``, a path, and ``srcdir``, the directory that then holds the unpacked sources."""

    TRANSFERS_FILES = False

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        srpm, target = self._task.args.get("srpm"), Path(self._task.args["srcdir"])
        if not srpm:
            return {
                **result,
                "failed": True,
                "msg": "no source RPM was given, and there is no network to get one from",
            }
        top = tempfile.mkdtemp(prefix="source-")
        try:
            command = ["rpmbuild", "-rp", "--nodeps", "--define", f"_topdir {top}", srpm]
            ended = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
            )
            if ended.returncode:
                output = ended.stdout.decode("utf-8", "replace")[-2000:]
                return {**result, "failed": True, "msg": f"the sources could not be unpacked: {output}"}
            _move(Path(top, "BUILD"), target)
        except (OSError, subprocess.TimeoutExpired) as error:
            return {**result, "failed": True, "msg": f"the sources could not be unpacked: {error}"}
        finally:
            shutil.rmtree(top, ignore_errors=True)
        return {**result, "changed": True, "srcdir": str(target)}


def _move(build: Path, target: Path) -> None:
    """Everything that was unpacked, without the one directory that an archive is usually wrapped in."""
    inner = build
    while len(names := os.listdir(inner)) == 1 and (inner / names[0]).is_dir():
        inner = inner / names[0]
    target.mkdir(parents=True, exist_ok=True)
    for name in os.listdir(inner):
        shutil.move(str(inner / name), str(target / name))
