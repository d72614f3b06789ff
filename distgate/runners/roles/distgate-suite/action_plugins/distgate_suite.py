"""Runs the tests of standard-test-basic and standard-test-beakerlib in the guest, one connection for each test.

Ansible's modules cost seconds each in a slow guest: they bring their own Python along. One shell script is all that
runs there, and what it leaves comes back as its output; so the results of a suite that hangs are there up to the test
that does.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shlex
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

FILES = Path(__file__).resolve().parents[1] / "files"
_spec = importlib.util.spec_from_file_location("distgate_suite_tests", FILES / "suite_tests.py")
assert _spec is not None  # noqa: S101 - for the type checker
assert _spec.loader is not None  # noqa: S101
suite_tests: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = suite_tests  # dataclasses look their module up
_spec.loader.exec_module(suite_tests)

SCRIPT = ".distgate-guest.sh"
#: Not for the guest: the artifacts may lie beside the tests, and git's own files are big.
_LEFT = {".git", "artifacts"}


class Broken(Exception):
    """The suite cannot be run; the text says why."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: those of the roles, ``kind``, ``source`` (the tests' directory here) and ``workdir`` (there)."""

    TRANSFERS_FILES = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        try:
            outcomes = self._run_all(self._task.args)
        except (Broken, suite_tests.Wrong) as error:
            return {**result, "failed": True, "msg": str(error)}
        bad = sorted(name for name, outcome in outcomes.items() if outcome != "pass")
        summary = f"{len(outcomes) - len(bad)} of {len(outcomes)} tests passed"
        # Version 2 of the interface: the suite ran, and results.yml says how the tests went.
        return {
            **result,
            "changed": True,
            "results": outcomes,
            "msg": f"{summary}; not: {', '.join(bad)}" if bad else summary,
        }

    def _run_all(self, args: dict[str, Any]) -> dict[str, str]:
        self._workdir, self._remote = args["workdir"], args["remote_artifacts"]
        self._kind, self._artifacts = args["kind"], Path(args["artifacts"])
        self._artifacts.mkdir(parents=True, exist_ok=True)
        source = Path(args["source"])
        tests = suite_tests.tests_of(args.get("tests"))
        self._prepare(source, suite_tests.words_of(args.get("required_packages")))
        trees = self._repositories(args.get("repositories") or [])
        fmf_filter = str(args.get("fmf_filter") or "")
        if fmf_filter:
            trees.insert(0, ("", fmf_filter, suite_tests.fmf_files(source)))
        for where, expression, files in trees:
            if expression:
                tests += suite_tests.filtered(files, expression, where)
        if not tests:
            raise Broken("the suite lists no tests, and no fmf_filter finds any")
        return {test.name: self._test(test) for test in tests}

    def _prepare(self, source: Path, packages: list[str]) -> None:
        script = f"mkdir -p {self._q(self._workdir)} && tar -xzf - -C {self._q(self._workdir)}"
        self._guest(script, "the tests cannot be brought to the guest", _packed(source))
        if packages or self._kind == "beakerlib":
            self._call(["packages", self._remote, self._kind, *packages], "required packages are missing")

    def _repositories(self, repositories: list[Any]) -> list[tuple[str, str, dict[str, str]]]:
        trees = []
        for entry in repositories:
            if not isinstance(entry, dict) or not entry.get("repo") or not entry.get("dest"):
                raise Broken(f"an entry of repositories has no repo or dest: {entry}")
            arguments = ["clone", str(entry["repo"]), str(entry["dest"]), str(entry.get("version") or "")]
            out = self._call(arguments, f"the repository {entry['repo']} cannot be fetched from the guest")
            trees.append((str(entry["dest"]), str(entry.get("fmf_filter") or ""), _texts(out)))
        return trees

    def _test(self, test: Any) -> str:
        self._display.display(f"standard-test-{self._kind}: {test.name}")
        arguments = ["test", self._remote, self._kind, test.name, test.directory, "must" if test.needed else "may"]
        arguments += [str(test.seconds), test.command, *test.save]
        out = self._call(arguments, f"the test {test.name} could not be started", self._compute_environment_string())
        files = _unpack(out, self._artifacts)
        outcome = files.pop("result", b"error").decode("ascii", "replace").strip()
        self._display.display(f"standard-test-{self._kind}: {test.name}: {outcome}")
        return outcome

    def _call(self, arguments: list[str], problem: str, environment: str = "") -> bytes:
        script = os.path.join(self._workdir, SCRIPT)
        command = " ".join(shlex.quote(argument) for argument in ("bash", script, *arguments))
        return self._guest(f"cd {self._q(self._workdir)} && {environment} {command}", problem)

    def _guest(self, script: str, problem: str, data: bytes | None = None) -> bytes:
        rc, out, err = self._connection.exec_command(f"/bin/bash -c {self._q(script)}", in_data=data, sudoable=False)
        if rc:
            output = (err + out).decode("utf-8", "replace").strip()[-2000:]
            raise Broken(f"{problem}: {output or f'status {rc}'}")
        return bytes(out)

    @staticmethod
    def _q(text: str) -> str:
        return shlex.quote(text)


def _packed(source: Path) -> bytes:
    """The tests' directory and the guest's script as a compressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in sorted(os.listdir(source)):
            if name not in _LEFT:
                archive.add(source / name, arcname=name, filter=_root)
        archive.add(FILES / "guest.sh", arcname=SCRIPT, filter=_root)
    return buffer.getvalue()


def _root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content:
                yield os.path.normpath(member.name), content.read()


def _unpack(data: bytes, target: Path) -> dict[str, bytes]:
    """Write an archive's regular files below ``target``; those directly beside it that are for us are returned."""
    exported = {}
    for name, content in _members(data):
        if name.startswith(("/", "..")):
            continue
        if name == ".distgate/result":
            exported["result"] = content
            continue
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    return exported


def _texts(data: bytes) -> dict[str, str]:
    return {name: content.decode("utf-8", "replace") for name, content in _members(data)}
