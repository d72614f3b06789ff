"""Build tasks of the hub stand-in: the tree that a scratch build grows, its states, and its cancellation."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import koji

from distgate.files import remove_tree
from lab.koji.package_builder import Job, PackageBuilder, architectures
from lab.koji.releases import Releases
from lab.koji.task_process import TaskStopped
from lab.koji.tasks import State, Task, TaskFault, TaskStore

log = logging.getLogger(__name__)

#: Fedora's number behind each build target; Rawhide's moves with the years.
TARGETS = {"rawhide": 44, "f43": 43, "f42": 42, "f41": 41}
_SUFFIX = "-candidate"


@dataclass(frozen=True)
class Target:
    """A build target: its ID, its name and the Fedora release it builds for."""

    id: int
    name: str
    fedora: int

    @classmethod
    def find(cls, name: str) -> Target | None:
        """The target called ``name`` (fNN-candidate is another name of fNN), or None."""
        release = name.removesuffix(_SUFFIX)
        if release not in TARGETS:
            return None
        return cls(list(TARGETS).index(release) + 1, name, TARGETS[release])

    @property
    def build_tag(self) -> int:
        return 2 * self.id - 1


class Builds:
    """Runs build tasks in the background, ``capacity`` at a time."""

    def __init__(self, store: TaskStore, builder: PackageBuilder, arch: str, capacity: int = 2) -> None:
        self._store = store
        self._builder = builder
        #: What was built for good.
        self.releases = Releases(store.files)
        self._arch = arch
        self._pool = ThreadPoolExecutor(capacity, thread_name_prefix="build")
        self._stops: dict[int, threading.Event] = {}
        self._closing = False
        self._scratch = store.state / "building"
        remove_tree(self._scratch, ignore_errors=True)  # what a killed hub left
        self._scratch.mkdir()

    def submit(self, source: str, target: str, options: dict[str, Any], priority: int) -> int:
        """Queue a build and return its task ID; whatever is wrong with it shows in the task."""
        task = self._store.add("build", "noarch", [source, target, options], priority, None, "")
        self._stops[task.id] = threading.Event()
        self._pool.submit(self._run, task)
        return task.id

    def tasks(self) -> list[Task]:
        """Every task that was ever queued here, oldest first."""
        return self._store.all()

    def cancel(self, task_id: int) -> None:
        """Cancel a task with its descendants and kill what runs for them; a finished one stays as it is."""
        for task in self._store.family(task_id):
            if self._store.advance(task.id, State.CANCELED):
                self._stops[task.id if task.parent is None else task.parent].set()

    def close(self) -> None:
        """Stop everything that runs and wait until it has ended."""
        self._closing = True
        for stop in list(self._stops.values()):
            stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Task) -> None:
        self._store.advance(task.id, State.ASSIGNED)
        if self._store.advance(task.id, State.OPEN):
            self._finish(task, lambda: self._build(task))

    def _finish(self, task: Task, work: Any) -> Any:
        """Run ``work`` as the body of ``task``: its result or fault becomes the task's outcome."""
        try:
            result = work()
        except TaskFault as error:
            self._store.advance(task.id, State.FAILED, [error.code, error.text])
            return None
        except TaskStopped:
            self._store.advance(task.id, State.CANCELED)
            return None
        except Exception as error:
            log.exception("task %d broke", task.id)
            self._store.advance(task.id, State.FAILED, [1000, f"GenericError: {error}"])
            return None
        self._store.advance(task.id, State.CLOSED, result)
        return result

    def _build(self, task: Task) -> dict[str, Any]:
        source, name, options = task.request
        target = Target.find(name)
        if target is None:
            raise TaskFault(koji.GenericError.faultCode, f"GenericError: unknown build target: {name}")
        if options.get("arch_override") and not options.get("scratch"):
            what = "arch_override is only allowed for scratch builds"
            raise TaskFault(koji.BuildError.faultCode, f"BuildError: {what}")
        with tempfile.TemporaryDirectory(prefix=f"task-{task.id}-", dir=self._scratch) as scratch:
            result = self._scratch_build(task, target, source, options.get("arch_override") or "", Path(scratch))
        if not options.get("scratch"):
            self.releases.add(task.id, result)
        return result

    def _scratch_build(self, task: Task, target: Target, source: str, arches: str, work: Path) -> dict[str, Any]:
        srpm = self._source_task(task, target, source, work)
        results = {
            arch: self._arch_task(task, target, srpm, arch, work, index == 0)
            for index, arch in enumerate(architectures(self._store.work / srpm, arches, self._arch))
        }
        return {
            "srpms": [srpm],
            "rpms": [rpm for result in results.values() for rpm in result["rpms"]],
            "logs": {arch: result["logs"] for arch, result in results.items()},
        }

    def _source_task(self, parent: Task, target: Target, source: str, work: Path) -> str:
        uploaded = "://" not in source
        method = "rebuildSRPM" if uploaded else "buildSRPMFromSCM"
        request = [source, target.build_tag, {"scratch": True, "repo_id": 1}]
        child = self._store.add(method, "noarch", request, parent.priority - 1, parent.id, "srpm")

        def body() -> dict[str, Any]:
            job = self._job(parent, child, target, work / "srpm")
            if uploaded:
                srpm = self._builder.rebuilt_source_package(self._uploaded(source), job)
                origin = {"source": srpm.name, "url": srpm.name}
            else:
                srpm = self._builder.source_package(source, job)
                origin = {"source": source}
            paths = self._relative(child, [srpm.name])
            return {"srpm": paths[0], "logs": self._logs(child), "brootid": 1, "source": origin}

        return str(self._child(child, body)["srpm"])

    def _uploaded(self, source: str) -> Path:
        path = (self._store.work / source).resolve()
        if not path.is_relative_to(self._store.work) or not path.is_file():
            raise TaskFault(koji.BuildError.faultCode, f"BuildError: Input SRPM file missing: {path}")
        return path

    def _arch_task(
        self, parent: Task, target: Target, srpm: str, arch: str, work: Path, keep_srpm: bool
    ) -> dict[str, Any]:
        request = [srpm, target.build_tag, arch, keep_srpm, {"repo_id": 1}]
        child = self._store.add("buildArch", arch, request, parent.priority - 1, parent.id, arch)

        def body() -> dict[str, Any]:
            job = self._job(parent, child, target, work / arch)
            source = self._store.work / srpm
            rpms = self._builder.binary_packages(source, arch, job)
            if keep_srpm:
                shutil.copyfile(source, job.output / source.name)
            return {
                "rpms": self._relative(child, [rpm.name for rpm in rpms]),
                "srpms": self._relative(child, [source.name] if keep_srpm else []),
                "logs": self._logs(child),
                "brootid": 1,
            }

        return self._child(child, body)

    def _child(self, child: Task, body: Any) -> dict[str, Any]:
        """Run a child task to its end; its failure or cancellation fails its parent, as with koji's own builder."""
        self._store.advance(child.id, State.OPEN)
        result = self._finish(child, body)
        if result is not None:
            return dict(result)
        ended = self._store.get(child.id)
        if ended is not None and ended.state is State.FAILED:
            raise TaskFault(*ended.outcome)
        if self._closing:
            raise TaskStopped
        raise TaskFault(koji.GenericError.faultCode, f"GenericError: Task {child.id} is canceled")

    def _job(self, parent: Task, child: Task, target: Target, work: Path) -> Job:
        work.mkdir()
        return Job(work, self._store.output(child.id), target.fedora, self._stops[parent.id])

    def _relative(self, task: Task, names: list[str]) -> list[str]:
        return [f"{self._store.relative_output(task.id)}/{name}" for name in names]

    def _logs(self, task: Task) -> list[str]:
        return self._relative(task, sorted(path.name for path in self._store.output(task.id).glob("*.log")))
