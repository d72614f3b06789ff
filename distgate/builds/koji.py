"""Scratch builds on a Koji hub, through the koji library: submit, wait, cancel, download."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc.client import Fault

import koji
import requests

from distgate.builds.base import BuildTask, KojiAuth, TaskLost
from distgate.builds.koji_files import HubFile, ReleasedFile, TaskFile, fetch, released, wanted_outputs
from distgate.changes.retrigger import Source
from distgate.errors import Cancelled, ConfigurationError, DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.files import sha256_of
from distgate.steps import Progress
from distgate.waiting import Deadline, wait_for

_LOG_TAIL = 4000
#: Bytes of one request of an upload.
UPLOAD_CHUNK = 1 << 20
#: Faults that come and go: our session lost a race with the hub, or the hub is in maintenance.
_PASSING = (koji.AuthExpired, koji.AuthLockError, koji.SequenceError, koji.RetryError, koji.ServerOffline)
#: In a failed task's error when not the package but the builder, its root or dist-git is to blame.
_BUILDER_TROUBLE = re.compile(r"BuildrootError|ServerOffline|hub was restarted|refusing task|\"git (clone|fetch)")
#: States of a build task that ended without packages.
_WITHOUT_PACKAGES = {koji.TASK_STATES["CANCELED"]: "was cancelled", koji.TASK_STATES["FAILED"]: "failed"}


@dataclass(frozen=True)
class KojiProfile:
    """Where a hub is and who we are there; times are seconds.

    ``retries`` and ``retry_interval`` are those of one call; ``patience`` is how long a hub may be unreachable before
    the wait for a build is given up.
    """

    server: str
    topurl: str
    auth: KojiAuth = "none"
    user: str = ""
    password: str = field(default="", repr=False)
    principal: str = ""
    keytab: str = ""
    cert: str = ""
    serverca: str = ""
    timeout: float = 60.0
    retries: int = 3
    retry_interval: float = 2.0
    poll_interval: float = 2.0
    patience: float = 300.0


class KojiClient:
    """A BuildHub on a real Koji. Every call has its own session, so threads may share one."""

    def __init__(self, profile: KojiProfile) -> None:
        self.profile = profile

    def submit(self, source: str, target: str, arch: str) -> int:
        """Start a scratch build of ``git+URL#REV`` and return its task ID.

        Raises ConfigurationError for an unknown target and for refused credentials, InfrastructureError when the
        hub cannot be reached.
        """
        with self._session() as session:
            self._target(session, target)
            return int(session.build(source, target, _scratch(arch)))

    def submit_srpm(self, path: Path, target: str, arch: str) -> int:
        """Upload the source package ``path``, start a scratch build of it and return its task ID.

        Nothing is built of an upload that did not arrive whole: InfrastructureError. Otherwise as ``submit``.
        """
        # A directory of its own for each try, as koji's own client makes them; hubs empty them after some days.
        directory = f"cli-build/{time.time()!r}.{secrets.token_hex(4)}"
        with self._session() as session:
            self._target(session, target)
            session.uploadWrapper(str(path), directory, blocksize=UPLOAD_CHUNK)
            upload = session.checkUpload(directory, path.name, verify="sha256")
            if upload is None or upload.get("hexdigest") != sha256_of(path):
                raise InfrastructureError(f"{path.name} is not on the hub {self.profile.server} as it was sent")
            return int(session.build(f"{directory}/{path.name}", target, _scratch(arch)))

    def dist_tag(self, target: str) -> str:
        """What %dist is for ``target``: ``.fc44``. Raises ConfigurationError for a target that is none of Fedora."""
        with self._session(login=False) as session:
            tag = str(self._target(session, target)["build_tag_name"])
        release = re.match(r"f(\d+)\b", tag)
        if not release:
            raise ConfigurationError(f"the target {target} builds for {tag}, which is no release of Fedora")
        return f".fc{release[1]}"

    def _target(self, session: Any, name: str) -> dict[str, Any]:
        # A hub accepts any target and fails the task minutes later: ask first.
        target = session.getBuildTarget(name)
        if target is None:
            raise ConfigurationError(
                f"the hub {self.profile.server} has no build target {name!r}",
                hint="`koji list-targets` shows those it has",
            )
        return dict(target)

    def wait(self, task_id: int, timeout: float, progress: Progress) -> BuildTask:
        """Return the task tree once the build is CLOSED; every task whose state changed is a progress line.

        Raises PackageError with the builder's error and the end of its log when the build FAILED, TaskLost when the
        builder itself failed, InfrastructureError when the hub stayed unreachable (the task may still run),
        Cancelled, and TimedOut after ``timeout`` seconds, when the task has been cancelled.
        """
        watch = _Watch(self, task_id, progress)
        try:
            tree = wait_for(
                f"Koji task {task_id}",
                watch.poll,
                Deadline(timeout),
                evidence=watch.evidence,
                interval=self.profile.poll_interval,
            )
        except TimedOut:
            self.cancel(task_id)
            raise
        if tree.state == "CLOSED":
            return tree
        if was_cancelled(tree):
            raise Cancelled(f"Koji task {task_id} was canceled", evidence=watch.evidence())
        raise self._failure(tree)

    def tree(self, task_id: int) -> BuildTask:
        """The task and its descendants as they are now. Raises ConfigurationError when the hub knows no such task."""
        with self._session(login=False) as session:
            root = session.getTaskInfo(task_id)
            if root is None:
                raise ConfigurationError(f"the hub {self.profile.server} has no task {task_id}")
            return _as_tree(root, session.getTaskDescendents(task_id))

    def source(self, task_id: int) -> Source:
        """The commit and the target of a build task.

        Raises ConfigurationError for a task that is no build or has no packages, InfrastructureError when the hub
        cannot be reached.
        """
        with self._session(login=False) as session:
            task = session.getTaskInfo(task_id, request=True)
        where = f"Koji task {task_id} on {self.profile.server}"
        if not task or task["method"] != "build":
            problem = f"is a {task['method']}" if task else "does not exist"
            raise ConfigurationError(
                f"{where} {problem}", hint="koji_task is the ID of the build, not of a part of it"
            )
        if end := _WITHOUT_PACKAGES.get(task["state"]):
            raise ConfigurationError(f"{where} {end}: it has no packages", hint="name the commit to build it anew")
        source, target, *_ = task["request"]
        return Source(str(source), str(target))

    def cancel(self, task_id: int) -> None:
        """Cancel a task and its descendants; one that has ended already stays as it is."""
        with self._session() as session:
            session.cancelTask(task_id)

    def download(self, task_id: int, into: Path, arch: str) -> list[Path]:
        """Fetch RPMs (``arch``, noarch, src) and logs of the whole tree into the directory ``into``.

        Logs are named ``<log>.<arch>.log`` (``<log>.srpm.log`` for those of the source package's task). Works for
        a FAILED build, whose logs are then all there is, and for one that is no scratch build, as long as the hub has
        it. Files appear whole or not at all. Raises InfrastructureError when a file cannot be had in its full size,
        ConfigurationError when the hub has removed what the build made.
        """
        into.mkdir(parents=True, exist_ok=True)
        with self._session(login=False) as session:
            root = session.getTaskInfo(task_id, strict=True)
            descendents = session.getTaskDescendents(task_id)
            tasks = {each["id"]: each for each in [root, *(task for some in descendents.values() for task in some)]}
            outputs = {key: session.listTaskOutput(key, stat=True, all_volumes=True) for key in sorted(tasks)}
            files: list[HubFile] = [*wanted_outputs(tasks, outputs, arch)]
            if not any(outputs.values()) and root["state"] == koji.TASK_STATES["CLOSED"]:
                files = [*self._released(session, task_id, arch)]
            return [fetch(session, self.profile.topurl, self.profile.serverca, file, into) for file in files]

    def _released(self, session: Any, task_id: int, arch: str) -> list[ReleasedFile]:
        # Hubs clear the output of tasks away after some days.
        files = released(session, task_id, arch)
        if not files:
            raise ConfigurationError(
                f"the hub {self.profile.server} has removed what Koji task {task_id} built",
                hint="scratch builds are kept for some days: name the commit to build it anew",
            )
        return files

    def log_tail(self, task: BuildTask, names: tuple[str, ...]) -> str:
        """The last lines of the first of ``names`` that the task has put out, or nothing."""
        with self._session(login=False) as session:
            outputs = session.listTaskOutput(task.task_id, stat=True, all_volumes=True)
            for name in names:
                for volume, stat in outputs.get(name, {}).items():
                    offset = max(0, int(stat["st_size"]) - _LOG_TAIL)
                    file = TaskFile(task.task_id, name, volume, _LOG_TAIL)
                    return file.chunk(session, offset, _LOG_TAIL).decode("utf-8", "replace")
        return ""

    def _failure(self, tree: BuildTask) -> DistgateError:
        task = _failed(tree)
        with self._session(login=False) as session:
            result = session.getTaskResult(task.task_id, raise_fault=False)
        fault = result["faultString"] if isinstance(result, dict) and "faultString" in result else None
        text = str(result) if fault is None else last_line(str(fault))
        named = re.findall(r"see (\w+\.log)", text)
        evidence = self.log_tail(task, (*named, "build.log", "root.log", "checkout.log"))
        message = f"Koji task {task.task_id} {task.method} ({task.arch}) failed: {text}"
        if _BUILDER_TROUBLE.search(text):
            return TaskLost(message, hint="the builder is to blame: try again", evidence=evidence)
        return PackageError(message, hint="the end of the log tells more", evidence=evidence)

    @contextmanager
    def _session(self, login: bool = True) -> Iterator[Any]:
        _check_files(self.profile)
        with _blaming(self.profile.server):
            session = koji.ClientSession(self.profile.server, _options(self.profile))
            try:
                if login and self.profile.auth != "none":
                    _log_in(session, self.profile)
                yield session
            finally:
                with _quietly():
                    session.logout()


class _Watch:
    """One wait for a build: reports changes, and bears a hub that cannot be reached for a while."""

    def __init__(self, hub: KojiClient, task_id: int, progress: Progress) -> None:
        self._hub = hub
        self._task_id = task_id
        self._progress = progress
        self._lines: list[str] = []
        self._unreachable_since: float | None = None

    def poll(self) -> BuildTask | None:
        """The tree, once the build has ended."""
        try:
            tree = self._hub.tree(self._task_id)
        except InfrastructureError as error:
            self._bear(error)
            return None
        self._unreachable_since = None
        self._report(tree.lines())
        return tree if tree.state in ("CLOSED", "CANCELED", "FAILED") else None

    def evidence(self) -> str:
        return "\n".join(self._lines)

    def _report(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._lines:
                self._progress(line)
        self._lines = lines

    def _bear(self, error: InfrastructureError) -> None:
        now = time.monotonic()
        if self._unreachable_since is None:
            self._unreachable_since = now
            self._progress(f"the hub cannot be reached: {error.message}")
        if now - self._unreachable_since > self._hub.profile.patience:
            raise error


def last_line(text: str) -> str:
    """The error in a fault's text: hubs with KojiTraceback send whole tracebacks, in which it comes last."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    line = lines[-1].strip() if lines and "Traceback" in lines[0] else text.strip()
    return re.sub(r"^(<class 'koji\.(\w+)'>|koji\.(\w+)): (?=\S)", "", line)


def _scratch(arch: str) -> dict[str, Any]:
    return {"scratch": True, "arch_override": arch, "fail_fast": True}


def _check_files(profile: KojiProfile) -> None:
    # Each library below would put it differently, and some like a network failure.
    for name in ("cert", "serverca", "keytab"):
        path = getattr(profile, name)
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(f"cannot read {path}", hint=f"it is the {name} of the Koji block")


def _options(profile: KojiProfile) -> dict[str, Any]:
    fields = dataclasses.asdict(profile)
    options = {name: fields[name] for name in ("user", "password", "cert", "serverca", "timeout", "retry_interval")}
    # koji's own defaults retry for ten minutes and wait twelve hours for an answer.
    options |= {"max_retries": profile.retries, "anon_retry": True, "offline_retry": False}
    return {name: value for name, value in options.items() if value not in ("", None)}


def _log_in(session: Any, profile: KojiProfile) -> None:
    # koji wraps an unreachable hub in an authentication error: a call without credentials tells them apart.
    session.getAPIVersion()
    if profile.auth == "password":
        session.login()
    elif profile.auth == "gssapi":
        session.gssapi_login(principal=profile.principal or None, keytab=profile.keytab or None)
    else:
        session.ssl_login(cert=profile.cert, serverca=profile.serverca or None)


@contextmanager
def _blaming(server: str) -> Iterator[None]:
    """Turns the errors of koji and requests into ours."""
    try:
        yield
    except _PASSING as error:
        raise InfrastructureError(f"the hub {server} is not ready: {last_line(str(error))}") from error
    except (koji.AuthError, koji.ActionNotAllowed, koji.PythonImportError) as error:
        raise ConfigurationError(
            f"the hub {server} refused us: {last_line(str(error))}",
            hint="look at the credentials of the Koji block",
        ) from error
    except (koji.GenericError, Fault) as error:
        raise InfrastructureError(f"the hub {server} answered: {last_line(_fault_text(error))}") from error
    except (requests.exceptions.RequestException, ConnectionError, TimeoutError, ExpatError) as error:
        raise InfrastructureError(
            f"cannot reach the hub {server}: {_reason(error)}",
            hint="is the hub up, and its address right?",
            evidence=str(error),
        ) from error


def _reason(unreachable: Exception) -> str:
    """The system's error text in an exception of requests, which wraps it in those of two libraries."""
    reasons = re.findall(r"\[Errno [^]]*\] ([^'\")(]+)", str(unreachable))
    return reasons[-1].strip() if reasons else last_line(str(unreachable))


def _fault_text(fault: Exception) -> str:
    return str(fault.faultString) if isinstance(fault, Fault) else str(fault)


@contextmanager
def _quietly() -> Iterator[None]:
    """For the logout, whose failure changes nothing."""
    try:
        yield
    except (koji.GenericError, Fault, requests.exceptions.RequestException, OSError, ExpatError):
        return


def _as_tree(info: dict[str, Any], descendents: dict[str, list[dict[str, Any]]]) -> BuildTask:
    children = sorted(descendents.get(str(info["id"]), []), key=lambda child: int(child["id"]))
    return BuildTask(
        task_id=int(info["id"]),
        method=info["method"],
        arch=info["arch"],
        state=koji.TASK_STATES[info["state"]],
        children=tuple(_as_tree(child, descendents) for child in children),
    )


def was_cancelled(tree: BuildTask) -> bool:
    """Whether the ended build ``tree`` or a part of it was cancelled by a person.

    The parent of a task that was cancelled FAILED, with the fault "Task N is canceled"; where one really failed,
    fail_fast cancels its siblings.
    """
    failed = _failed(tree)
    return failed.state == "CANCELED" or any(child.state == "CANCELED" for child in failed.children)


def _failed(tree: BuildTask) -> BuildTask:
    """The deepest failed task, whose result has the reason."""
    for child in tree.children:
        if child.state == "FAILED":
            return _failed(child)
    return tree
