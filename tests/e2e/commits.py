"""A commit on its way through the lab: pushed for real, followed by what another program reads from the broker."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from distgate.drivers.amqp_queues import Delivery, Subscription
from distgate.drivers.prefect_api import FlowRun, PrefectApi
from distgate.ledger import Ledger
from distgate.process import run, tail_of
from distgate.stages import Pipeline, split_topic
from distgate.waiting import Deadline, wait_for
from lab.bare_repository import Files, create_repository, install_hook
from lab.bare_repository import push as push_files
from lab.demo_package import ATOMIC_BRANCH, push_change
from lab.process_table import members
from lab.world import World

PREFIX = "org.centos.prod.ci.pipeline.allpackages."
ATOMIC = "org.centos.prod.ci.pipeline."
PACKAGE = ["package.queued", "package.running", "package.complete"]
IMAGE = ["image.queued", "image.running", "image.complete"]
SMOKE = [f"image.test.smoke.{state}" for state in ("queued", "running", "complete")]
FUNCTIONAL = [f"package.test.functional.{state}" for state in ("queued", "running", "complete")]
ALL = [*PACKAGE, *IMAGE, *SMOKE, *FUNCTIONAL, "complete"]
RUN_SECONDS = 400.0


@dataclass
class Commit:
    """One pushed commit and the messages about it so far; those that came twice are counted once, by their ID."""

    world: World
    bus: Subscription
    rev: str
    prefix: str = PREFIX
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    @property
    def bodies(self) -> list[dict[str, str]]:
        return [delivery.body for delivery in self.deliveries.values()]

    @property
    def pipeline(self) -> Pipeline:
        return "atomic" if self.prefix == ATOMIC else "allpackages"

    @property
    def said(self) -> list[str]:
        """``stage.state STATUS`` of each message, in the order of their arrival."""
        return [f"{body['topic'].removeprefix(self.prefix)} {body['status']}" for body in self.bodies]

    def until(self, word: str, seconds: float = RUN_SECONDS) -> list[str]:
        """Read until a message whose stage and state are ``word`` came; what was said."""
        known = len(self.deliveries)
        deadline = Deadline(seconds)
        while not any(line.split()[0] == word for line in self.said[known:]):
            delivery = self.bus.receive(1)
            if delivery and delivery.body.get("rev") == self.rev and split_topic(delivery.topic)[0] == self.pipeline:
                assert delivery.topic == delivery.body["topic"]
                self.deliveries.setdefault(delivery.message_id, delivery)
            assert not deadline.passed, f"{word} did not come; so far: {self.said}\n{self.worker_log()}"
        return self.said

    def flow_runs(self) -> list[FlowRun]:
        with PrefectApi(self.world.prefect_api_url) as prefect:
            return prefect.flow_runs(tags=[self.rev])

    def ended(self) -> FlowRun:
        """The one run of this commit, once Prefect knows that it is over."""
        (found,) = wait_for("the run to end", lambda: [x for x in self.flow_runs() if x.finished] or None, 60)
        return found

    def retry(self) -> None:
        """What an operator does: the same run again, from the stage that did not end."""
        self._prefect("retry")

    def cancel(self) -> None:
        """Cancel the run as an operator does."""
        self._prefect("cancel")

    def _prefect(self, verb: str) -> None:
        (one,) = self.flow_runs()
        run(["prefect", "flow-run", verb, one.id], timeout=120, env=self.world.environment)

    def koji_task(self) -> int:
        """The Koji task that the run waits for; 0 when it has none."""
        known = Ledger(self.world.ledger_url).run(self.bodies[0]["build_id"])
        return int((known.facts.get("koji_task", "") if known else "").rpartition(" ")[2] or 0)

    def room(self) -> Path:
        return self.world.artifacts_dir / self.bodies[0]["build_id"].partition(".")[0]

    def worker_log(self) -> str:
        return tail_of(self.world.state / "logs/prefect-worker.log")


def push(world: World, stage: str = "") -> Commit:
    """Push a commit of the demo package that breaks ``stage``, or nothing."""
    bus = Subscription(world.amqp_url, world.exchange, [f"{PREFIX}#"], queue=f"test.{uuid.uuid4().hex[:8]}")
    return Commit(world, bus, push_change(world.demo_repository, stage=stage))


def push_to_host(world: World, stage: str = "") -> Commit:
    """The same on the branch that the lab's Atomic Host is made of."""
    bus = Subscription(world.amqp_url, world.exchange, [f"{ATOMIC}#"], queue=f"test.{uuid.uuid4().hex[:8]}")
    return Commit(world, bus, push_change(world.demo_repository, ATOMIC_BRANCH, stage), ATOMIC)


#: A package that takes a second to fail.
BROKEN = """\
Name: {name}
Version: 1
Release: 1%{{?dist}}
Summary: A package that does not build
License: MIT
BuildArch: noarch
%description
Nothing.
%build
exit 1
%files
"""
#: What is said of it.
FAILURE = [f"{line} SUCCESS" for line in PACKAGE[:2]] + ["package.complete FAILURE", "complete FAILURE"]


def push_broken(
    world: World, name: str, branch: str = "f41", files: Files | None = None, *, told: bool = True
) -> str:
    """Push a package called ``name`` that does not build; the commit. ``told`` says whether the bus hears of it."""
    repository = create_repository(world.state / "dist-git", name)
    if told:
        install_hook(repository, {"url": world.amqp_url, "exchange": world.exchange})
    content = {f"{name}.spec": BROKEN.format(name=name), "sources": "", **(files or {})}
    return push_files(repository, branch, content, "Break the build")


SLOW = """\
Name: slow
Version: 1
Release: 1%{?dist}
Summary: A package that takes its time
License: MIT
BuildArch: noarch
%description
Nothing.
%build
sleep 300
%files
"""


def push_slow(world: World) -> Commit:
    """Push a package whose build lasts longer than any test."""
    repository = create_repository(world.state / "dist-git", "slow")
    install_hook(repository, {"url": world.amqp_url, "exchange": world.exchange})
    bus = Subscription(world.amqp_url, world.exchange, [f"{PREFIX}#"], queue=f"test.{uuid.uuid4().hex[:8]}")
    return Commit(world, bus, push_files(repository, "f41", {"slow.spec": SLOW, "sources": ""}, "Take time"))


def status_of(lines: list[str], **other: str) -> list[str]:
    """The messages ``lines``, each SUCCESS, but for those whose name (dots as __) is given another status."""
    given = {name.replace("__", "."): status for name, status in other.items()}
    return [f"{line} {given.get(line, 'SUCCESS')}" for line in lines]


def processes(world: World, wanted: Callable[[str], bool]) -> list[int]:
    """Processes of the lab whose command line is ``wanted``."""
    return [process.pid for process in members(world.state) if wanted(_command(process.pid))]


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def guests(world: World) -> list[int]:
    return processes(world, lambda words: "qemu-system" in words and "guest=" in words)


def engines(world: World) -> list[int]:
    return processes(world, lambda words: "prefect.engine" in words)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
