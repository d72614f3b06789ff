"""The tasks of the Koji hub stand-in: records in the hub's own shape, kept on disk across restarts."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from distgate.records import write_record


class State(IntEnum):
    """Koji's task states."""

    FREE = 0
    OPEN = 1
    CLOSED = 2
    CANCELED = 3
    ASSIGNED = 4
    FAILED = 5

    @property
    def finished(self) -> bool:
        return self in (State.CLOSED, State.CANCELED, State.FAILED)


class TaskFault(Exception):
    """What a failed task answers: a fault code of koji's and the builder's text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Task:
    """One task; times are seconds since the epoch, ``outcome`` is its result or [fault code, text]."""

    id: int
    method: str
    arch: str
    request: tuple[Any, ...]
    priority: int
    create_ts: float
    parent: int | None = None
    label: str | None = None
    state: State = State.FREE
    start_ts: float | None = None
    completion_ts: float | None = None
    host_id: int | None = None
    outcome: Any = None

    def info(self, request: bool) -> dict[str, Any]:
        """The dictionary that getTaskInfo answers with."""
        fields = asdict(self)
        for name in ("request", "outcome"):
            del fields[name]
        fields |= {
            "state": int(self.state),
            "owner": 1,
            "channel_id": 1,
            "weight": 1.0,
            "awaited": None,
            "waiting": None,
            "create_time": _readable(self.create_ts),
            "start_time": _readable(self.start_ts),
            "completion_time": _readable(self.completion_ts),
        }
        return fields | ({"request": list(self.request)} if request else {})


class TaskStore:
    """All tasks, thread-safe; each is also a JSON file, and its output lies in Koji's own directory scheme."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self._records = self.state / "tasks"
        self._records.mkdir(parents=True, exist_ok=True)
        #: What a real hub has at its topurl, and the part of it that results name their files below.
        self.files = self.state / "kojifiles"
        self.work = self.files / "work"
        self._lock = threading.RLock()
        self._tasks = {task.id: task for task in map(_load, self._records.glob("*.json"))}
        self._fail_interrupted()

    def add(self, method: str, arch: str, request: list[Any], priority: int, parent: int | None, label: str) -> Task:
        """A new FREE task with the next ID."""
        with self._lock:
            number = max(self._tasks, default=0) + 1
            task = Task(number, method, arch, tuple(request), priority, time.time(), parent, label or None)
            return self._save(task)

    def get(self, task_id: int) -> Task | None:
        return self._tasks.get(task_id)

    def all(self) -> list[Task]:
        """Every task, oldest first."""
        with self._lock:
            return [self._tasks[number] for number in sorted(self._tasks)]

    def children(self, task_id: int) -> list[Task]:
        return [task for task in self.all() if task.parent == task_id]

    def family(self, task_id: int) -> list[Task]:
        """A task and all its descendants, parents before children; empty when it is unknown."""
        task = self.get(task_id)
        if task is None:
            return []
        return [task, *(each for child in self.children(task_id) for each in self.family(child.id))]

    def advance(self, task_id: int, state: State, outcome: Any = None) -> bool:
        """Move a task to ``state`` unless it is finished already (cancelled meanwhile); whether it moved."""
        with self._lock:
            task = self._tasks[task_id]
            if task.state.finished:
                return False
            now = time.time()
            if state.finished:
                self._save(replace(task, state=state, completion_ts=now, outcome=outcome))
            elif state is State.OPEN:
                self._save(replace(task, state=state, host_id=1, start_ts=now))
            else:
                self._save(replace(task, state=state, host_id=1))
            return True

    def output(self, task_id: int) -> Path:
        """The directory of a task's files; made when first asked for."""
        path = self.work / self.relative_output(task_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def relative_output(task_id: int) -> str:
        """The same directory as koji's results name it."""
        return f"tasks/{task_id % 10000}/{task_id}"

    def _save(self, task: Task) -> Task:
        write_record(self._records / f"{task.id}.json", task)
        self._tasks[task.id] = task
        return task

    def _fail_interrupted(self) -> None:
        # A hub that was killed cannot resume its builders; the submitter gets a failure instead of waiting for ever.
        for task in self.all():
            self.advance(task.id, State.FAILED, [1000, "GenericError: the hub was restarted during this task"])


def _load(path: Path) -> Task:
    stored = json.loads(path.read_text())
    return Task(**{**stored, "request": tuple(stored["request"]), "state": State(stored["state"])})


def _readable(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="microseconds")
