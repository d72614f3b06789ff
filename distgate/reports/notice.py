"""The event of a run that channels report: one message of the run with all that they need to know.

Mail and chat: the first red verdict, and the first that is green again; nothing for each red in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distgate.bus.order import SentMessage
from distgate.errors import DistgateError
from distgate.ledger.runs import OutboxMessage, Run
from distgate.pipelines import FUNCTIONAL, STAGES, Pipeline, Stage
from distgate.text import printable

#: Who is to blame when the change is not: such an end is no verdict on the package.
OURS = ("infrastructure", "configuration", "cancelled", "bug")


class Refused(DistgateError):
    """The other side refuses this report, however often it is sent."""


@dataclass(frozen=True)
class RunEvent:
    """One message of a run. ``status`` is the run's so far, ``own_status`` the stage's own; times are epoch seconds.

    ``blame`` and ``sentence`` are the verdict's, empty before the last message or where they were not recorded.
    ``before`` is the last verdict on the same package, branch and pipeline. ``tested`` says that the
    package's tests were judged, ``current`` that the run holds its change, ``repeated`` that an earlier try to
    deliver this may have arrived.
    """

    message_id: str
    pipeline: Pipeline
    suffix: str
    state: str
    status: str
    own_status: str
    namespace: str
    repo: str
    branch: str
    rev: str
    username: str
    key: str
    build_id: str
    build_url: str
    main_topic: str
    created_at: float
    nvr: str = ""
    task_id: int | None = None
    tested: bool = False
    blame: str = ""
    sentence: str = ""
    before: Literal["green", "red"] | None = None
    current: bool = True
    repeated: bool = False

    @property
    def last(self) -> bool:
        """Whether it is the last message of a run, its verdict."""
        return not self.suffix and self.state == "complete"

    @property
    def stage(self) -> Stage:
        """The row of the stage table that it is about."""
        return STAGES[self.pipeline][self.suffix]

    @property
    def title(self) -> str:
        """The commit, readable in a list."""
        return f"{self.repo} {self.branch} {self.rev[:7]}"

    @property
    def headline(self) -> str:
        """The verdict, or the state so far, in one sentence for people."""
        if not self.last:
            return f"{self.title}: {self.suffix} {self.state}"
        return self.sentence or f"{self.title}: {self.status}" + (f" (blame: {self.blame})" if self.blame else "")


def notice_of(
    message: OutboxMessage,
    run: Run,
    *,
    verdict: tuple[str, str] = ("", ""),
    before: Literal["green", "red"] | None = None,
    current: bool = True,
    repeated: bool = False,
) -> RunEvent:
    """The notice for a message of ``run``; ``verdict`` is the blame and the sentence, passed on with the last one."""
    sent = SentMessage(message.topic, message.body["status"])
    last = sent.last
    blame, sentence = verdict if last else ("", "")
    return RunEvent(
        message_id=message.message_id,
        pipeline=run.pipeline,
        suffix=sent.suffix,
        state=sent.state,
        status=sent.status,
        own_status=run.facts.statuses.get(sent.suffix) or sent.status,
        namespace=run.change.namespace,
        repo=run.change.repo,
        branch=run.change.branch,
        rev=run.change.rev,
        username=run.change.username,
        key=run.change.key,
        build_id=message.body["build_id"],
        build_url=message.body["build_url"],
        main_topic=message.topic.partition(".ci.pipeline.")[0],
        created_at=message.created_at,
        nvr=message.body.get("nvr", "").strip("'"),
        task_id=_task_of(run),
        tested=any(
            stage.test == FUNCTIONAL and stage.suffix in run.facts.statuses for stage in STAGES[run.pipeline].values()
        ),
        blame=blame,
        sentence=sentence,
        before=before,
        current=current,
        repeated=repeated,
    )


def package_verdict(status: str, blame: str) -> Literal["green", "red"] | None:
    """The verdict on the package, None for no verdict: of an aborted run, and of one that broke on our side."""
    if status == "SUCCESS":
        return "green"
    if status == "ABORTED" or (status == "FAILURE" and blame in OURS):
        return None
    return "red"


def _task_of(run: Run) -> int | None:
    number = run.facts.koji_task.rpartition(" ")[2]
    return int(number) if number.isdigit() else None


@dataclass(frozen=True)
class VerdictChange:
    """A changed verdict: a subject line, and a text with where to look."""

    subject: str
    text: str


def verdict_change(notice: RunEvent) -> VerdictChange | None:
    """The changed verdict of a notice; None when the verdict on this package, branch and pipeline is what it was."""
    verdict = package_verdict(notice.status, notice.blame) if notice.last else None
    if verdict is None or verdict == (notice.before or "green"):
        return None
    what = "works again" if verdict == "green" else "fails"
    subject = f"{notice.repo} {notice.branch} {what} ({notice.pipeline}, {notice.rev[:7]} by {notice.username})"
    lines = [
        printable(notice.headline, newlines=False),
        "",
        f"Commit: {notice.namespace}/{notice.repo} {notice.branch} {notice.rev}",
        *([f"Build: {notice.nvr}"] if notice.nvr else []),
        f"Run: {notice.build_url}",
    ]
    return VerdictChange(printable(subject, newlines=False), "\n".join(lines) + "\n")
