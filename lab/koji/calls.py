"""The calls of the Koji hub stand-in, in the shapes that a real hub answers in."""

from __future__ import annotations

import base64
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import koji

from lab.koji.builds import Builds, Target
from lab.koji.rpc import fault
from lab.koji.tasks import State, Task, TaskStore
from lab.koji.uploads import Uploads

HUB_VERSION = "1.35.3"
_SCRATCH_PRIORITY, _PRIORITY = 25, 20


class Hub:
    """What the hub answers. The public methods carry koji's names and arguments: they are the calls."""

    def __init__(self, store: TaskStore, builds: Builds, user: str) -> None:
        self._store = store
        self._builds = builds
        self._uploads = Uploads(store.work)
        self._user = user
        self._sessions: dict[str, str] = {}
        self._caller = threading.local()

    def calls(self) -> dict[str, Any]:
        """The calls by name."""
        names = [
            name for name in vars(Hub) if not name.startswith("_") and name not in ("calls", "identify", "upload")
        ]
        return {name: getattr(self, name) for name in names}

    def identify(self, session_id: str, key: str) -> None:
        """Say whose call the current thread serves; raises AuthExpired for a session that is no more."""
        if session_id and self._sessions.get(session_id) != key:
            raise koji.AuthExpired(f"session {session_id} has expired")
        self._caller.session = session_id

    def upload(self, query: Mapping[str, list[str]], chunk: bytes) -> dict[str, Any]:
        """A part of a file, from a client that is logged in: no call, but a request of its own."""
        self._session()
        return self._uploads.receive(query, chunk, self._user)

    # sessions

    def getAPIVersion(self) -> int:
        return 1

    def getKojiVersion(self) -> str:
        return HUB_VERSION

    def login(self, user: str, password: str, opts: Any = None, renew: bool = False, exclusive: bool = False) -> Any:
        if not (user, password) == (self._user, self._user):
            raise koji.AuthError("invalid username or password")
        session_id, key = str(len(self._sessions) + 1), secrets.token_hex(16)
        self._sessions[session_id] = key
        return {"session-id": int(session_id), "session-key": key, "header-auth": True}

    def sslLogin(self, proxyuser: Any = None, **_: Any) -> Any:
        raise koji.AuthError("this hub takes passwords only")

    def logout(self, session_id: Any = None) -> None:
        self._sessions.pop(str(session_id or self._session()), None)

    def getLoggedInUser(self) -> Any:
        if not getattr(self._caller, "session", ""):
            return None
        account = {"id": 1, "name": self._user, "status": 0, "usertype": 0}
        return account | {"krb_principals": [], "authtype": 0, "krb_principal": None}

    def showSession(self) -> str:
        return f"session {self._session()} of {self._user}"

    # builds

    def getBuildTarget(self, info: str, event: Any = None, strict: bool = False) -> Any:
        target = Target.find(info)
        if target is None:
            if strict:
                raise koji.GenericError(f"No such build target: {info}")
            return None
        tags = {"build_tag": target.build_tag, "build_tag_name": f"f{target.fedora}-build"}
        dest = {"dest_tag": target.build_tag + 1, "dest_tag_name": target.name}
        return {**tags, **dest, "id": target.id, "name": target.name}

    def build(self, src: str, target: str, opts: Any = None, priority: Any = None, channel: Any = None) -> int:
        self._session()
        options = dict(opts or {})
        base = _SCRATCH_PRIORITY if options.get("scratch") else _PRIORITY
        return self._builds.submit(src, target, options, base + (priority or 0))

    def checkUpload(self, path: str, name: str, verify: Any = None, tail: Any = None, volume: Any = None) -> Any:
        return self._uploads.check(path, name, verify, tail, volume)

    def cancelTask(self, task_id: int, recurse: bool = True) -> None:
        self._session()
        self._builds.cancel(self._task(task_id).id)

    def listBuilds(self, taskID: int | None = None, state: int | None = None, **_: Any) -> Any:
        return [build for build in self._builds.releases.of_task(taskID) if state in (None, build["state"])]

    def listBuildRPMs(self, build: int) -> Any:
        return self._builds.releases.rpms(build)

    def getBuildLogs(self, build: int) -> Any:
        return self._builds.releases.logs(build)

    # tasks

    def getTaskInfo(self, task_id: Any, request: bool = False, strict: bool = False) -> Any:
        if isinstance(task_id, list):
            return [self.getTaskInfo(each, request, strict) for each in task_id]
        if self._store.get(task_id) is None and not strict:
            return None
        return self._task(task_id).info(request)

    def getTaskChildren(self, task_id: int, request: bool = False, strict: bool = False) -> Any:
        if strict:
            self._task(task_id)
        return [task.info(request) for task in self._store.children(task_id)]

    def getTaskDescendents(self, task_id: int, request: bool = False) -> Any:
        family = self._store.family(self._task(task_id).id)
        return {str(task.id): self.getTaskChildren(task.id, request) for task in family}

    def listTasks(self, opts: Any = None, queryOpts: Any = None) -> Any:
        filters = {
            name: value for name, value in (opts or {}).items() if name in ("method", "parent", "arch", "owner")
        }
        records = [task.info(request=True) for task in self._store.all()]
        chosen = [task for task in records if all(task[name] == value for name, value in filters.items())]
        states = (opts or {}).get("state")
        return [task for task in chosen if states is None or task["state"] in states]

    def getTaskResult(self, taskId: int, raise_fault: bool = True) -> Any:
        task = self._task(taskId)
        if task.state is State.CANCELED:
            raise koji.GenericError(f"Task {task.id} is canceled")
        if not task.state.finished:
            raise koji.GenericError(f"Task {task.id} is not finished")
        if task.state is State.CLOSED:
            return task.outcome
        code, text = task.outcome
        if raise_fault:
            raise fault(code, text)
        return {"faultCode": code, "faultString": text}

    def listTaskOutput(
        self, taskID: int, stat: bool = False, all_volumes: bool = False, strict: bool = False
    ) -> list[str] | dict[str, Any]:
        if strict:
            self._task(taskID)
        files = self._outputs(taskID)
        if stat and all_volumes:
            return {path.name: {"DEFAULT": _stat(path)} for path in files}
        if stat:
            return {path.name: _stat(path) for path in files}
        if all_volumes:
            return {path.name: ["DEFAULT"] for path in files}
        return [path.name for path in files]

    def downloadTaskOutput(
        self, taskID: int, fileName: str, offset: int = 0, size: int = -1, volume: Any = None
    ) -> str:
        if "/" in fileName or fileName not in (path.name for path in self._outputs(taskID)):
            raise koji.GenericError(f'no file "{fileName}" output by task {taskID}')
        with (self._store.output(taskID) / fileName).open("rb") as stream:
            stream.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            return base64.b64encode(stream.read(size)).decode()

    def _outputs(self, task_id: int) -> list[Path]:
        if self._store.get(task_id) is None:
            return []
        return sorted(path for path in self._store.output(task_id).iterdir() if path.is_file())

    def _task(self, task_id: int) -> Task:
        task = self._store.get(task_id)
        if task is None:
            raise koji.GenericError("query returned no rows")
        return task

    def _session(self) -> str:
        session = str(getattr(self._caller, "session", ""))
        if not session:
            raise koji.ActionNotAllowed("you must be logged in for this operation")
        return session


def _stat(path: Path) -> dict[str, Any]:
    facts = path.stat()
    # The size is a string, as XML-RPC integers end at 2 GiB.
    times = {name: getattr(facts, name) for name in ("st_atime", "st_mtime", "st_ctime")}
    return {"st_size": str(facts.st_size), **times}
