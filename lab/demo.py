"""The demo: a real commit through the whole pipeline, followed live, its messages as the broker hands them out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distgate.bus.queues import Delivery, Subscription
from distgate.errors import InfrastructureError
from distgate.pipelines import STAGES, Pipeline, split_topic
from distgate.steps import Step, share_sentence
from distgate.waiting import Deadline
from lab.dist_git.demo_package import ATOMIC_BRANCH, NAME, push_change
from lab.run_page import last_log_line, latest_artifact
from lab.world import World

TOPICS = ("org.centos.prod.ci.pipeline.#",)
#: The branch that is pushed to, for each pipeline.
BRANCHES: dict[Pipeline, str] = {"allpackages": "f41", "atomic": ATOMIC_BRANCH}
#: Seconds after which a demo that does not end is given up: the lab is broken then.
PATIENCE = 2400.0
#: Seconds between looks at Prefect for the log line and the task tree.
REFRESH_SECONDS = 2.0
STYLES = {"SUCCESS": "green", "UNSTABLE": "yellow", "FAILURE": "red", "ABORTED": "magenta"}
EXIT = {"SUCCESS": 0, "UNSTABLE": 1, "FAILURE": 1, "ABORTED": 2}


@dataclass
class Row:
    """A stage as the table shows it; times are seconds since the push."""

    state: str
    status: str
    began: float
    ended: float | None = None


@dataclass
class FollowedRun:
    """What was seen of one run so far."""

    rev: str
    branch: str = BRANCHES["allpackages"]
    pushed: float = field(default_factory=time.monotonic)
    stages: dict[str, Row] = field(default_factory=dict)
    bodies: list[dict[str, str]] = field(default_factory=list)
    log_line: str = ""
    work: str = ""

    @property
    def verdict(self) -> str | None:
        """The status of the last message, once it is there."""
        last = self.bodies[-1] if self.bodies else None
        return last["status"] if last and split_topic(last["topic"])[1] == "complete" else None

    @property
    def run_id(self) -> str:
        """The flow run's ID, from the messages."""
        return self.bodies[0]["build_id"].partition(".")[0] if self.bodies else ""

    def at(self, suffix: str) -> bool:
        """Whether the stage ``suffix`` is at work."""
        row = self.stages.get(suffix)
        return row is not None and row.ended is None

    def see(self, body: dict[str, str]) -> None:
        self.bodies.append(body)
        suffix, _, state = split_topic(body["topic"])[1].rpartition(".")
        if not suffix:
            return
        now = time.monotonic() - self.pushed
        row = self.stages.setdefault(suffix, Row(state, body["status"], now))
        row.state, row.status = state, body["status"]
        if state == "running":
            row.began = now
        if state == "complete":
            row.ended = now

    def table(self) -> Table:
        table = Table(
            "stage", "state", "status", "seconds", title=f"{NAME} {self.branch} {self.rev[:7]}", title_justify="left"
        )
        for suffix, row in self.stages.items():
            until = row.ended or time.monotonic() - self.pushed
            status = Text(row.status, STYLES.get(row.status, "")) if row.ended else Text("")
            table.add_row(suffix, row.state, status, f"{until - row.began:.1f}")
        return table

    def picture(self) -> RenderableType:
        """The live view: the stages, what the one at work shows on the page, and the last line of the run's log."""
        parts: list[RenderableType] = [self.table()]
        if self.work:
            parts.append(Text("\n".join(self.work.splitlines()[-5:]), "dim"))
        return Group(*parts, Text(self.log_line[:200], "dim", no_wrap=True, overflow="ellipsis"))


def demo(world: World, stage: str, console: Console, pipeline: Pipeline = "allpackages") -> int:
    """Push a commit (``stage`` names what it breaks, or is empty) to the branch that ``pipeline`` watches in the lab,
    follow it to its end; the exit status.

    0 for SUCCESS, 1 for UNSTABLE or FAILURE. Raises InfrastructureError when the lab broke.
    """
    # A queue with a name outlives the broker, and holds what arrives while it restarts.
    with Subscription(world.amqp_url, world.exchange, TOPICS, queue=f"distgate.demo.{uuid.uuid4().hex[:8]}") as bus:
        branch = BRANCHES[pipeline]
        if pipeline == "atomic" and stage:
            _age_latest_image(world.trees_dir / branch / "images")
        rev = push_change(world.demo_repository, branch, stage)
        console.print(f"pushed {NAME} {branch} {rev[:7]}" + (f", which breaks {stage}" if stage else ""))
        followed = _follow(world, bus, FollowedRun(rev, branch), console, pipeline)
    _close(world, followed, console)
    return EXIT[followed.verdict or "ABORTED"]


def _age_latest_image(images: Path) -> None:
    """A commit that shall fail in the image's stages has to get there: the last good image is as if of last week."""
    for record in images.glob("*.qcow2.json"):
        facts = json.loads(record.read_text())
        record.write_text(json.dumps(facts | {"promoted": 0.0} if facts.get("promoted") else facts))


def _follow(
    world: World, bus: Subscription, followed: FollowedRun, console: Console, pipeline: Pipeline
) -> FollowedRun:
    deadline, refreshed = Deadline(PATIENCE), 0.0
    with Live(console=console, refresh_per_second=4, transient=True, get_renderable=followed.picture) as live:
        while followed.verdict is None:
            delivery = bus.receive(0.3)
            if delivery and delivery.body.get("rev") == followed.rev and split_topic(delivery.topic)[0] == pipeline:
                followed.see(delivery.body)
                live.console.print(_line(delivery), soft_wrap=True, highlight=False)
            if followed.run_id and time.monotonic() - refreshed > REFRESH_SECONDS:
                refreshed = time.monotonic()
                _refresh(world.prefect_api_url, followed, pipeline)
            if deadline.passed:
                raise InfrastructureError(
                    f"the run did not end within {PATIENCE:g} s", hint="./run lab status shows what is wrong"
                )
    return followed


def _line(delivery: Delivery) -> Text:
    """One message as it was read from the broker: time, full topic, status, and the NVR once there is one."""
    body: dict[str, Any] = delivery.body
    text = Text(time.strftime("%H:%M:%S "), "dim")
    text.append(delivery.topic).append(" ").append(body["status"], STYLES.get(body["status"], ""))
    return text.append(f" nvr={body['nvr']}" if body.get("nvr") else "", "dim")


def _refresh(api_url: str, followed: FollowedRun, pipeline: Pipeline) -> None:
    followed.log_line = last_log_line(api_url, followed.run_id) or followed.log_line
    at_work = next((stage for stage in STAGES[pipeline].values() if followed.at(stage.suffix)), None)
    followed.work = latest_artifact(api_url, followed.run_id, at_work.live).strip("`\n") if at_work else ""


def _close(world: World, followed: FollowedRun, console: Console) -> None:
    console.print(followed.table())
    total = time.monotonic() - followed.pushed
    verdict = followed.verdict or "ABORTED"
    console.print(Text(f"{verdict} after {total:.1f} s, {len(followed.bodies)} messages", STYLES.get(verdict, "")))
    run_dir = world.artifacts_dir / followed.run_id
    for what, sentence in _shares(run_dir):
        console.print(f"{what:10} {sentence}", soft_wrap=True, highlight=False)
    for what, where in _addresses(world, followed, run_dir):
        console.print(f"{what:10} {where}", soft_wrap=True, highlight=False)


def _addresses(world: World, followed: FollowedRun, run_dir: Path) -> Sequence[tuple[str, str]]:
    images = sorted(run_dir.glob("image/*.qcow2"))
    return [
        ("run page", followed.bodies[0]["build_url"]),
        ("logs", f"{world.artifacts_url}/{followed.run_id}/"),
        ("files", str(run_dir)),
        *(("image", str(image)) for image in images),
        ("lab", "still up; ./run lab down ends it"),
    ]


def _shares(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Where the time of the image and of its boot went, as the run's own records say."""
    with suppress(OSError, ValueError, KeyError):
        image_steps = json.loads((run_dir / "image/image.json").read_text())["steps"]
        yield "image", share_sentence([Step(step["name"], step["seconds"]) for step in image_steps])
    with suppress(OSError, ValueError, KeyError):
        reached = json.loads((run_dir / "smoke/boot.json").read_text())["reached"]
        ends = [0.0, *(milestone["seconds"] for milestone in reached)]
        steps = [
            Step(milestone["condition"], milestone["seconds"] - before)
            for milestone, before in zip(reached, ends, strict=False)
        ]
        yield "boot", share_sentence(steps)
