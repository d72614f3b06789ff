"""A notice: one message of a run with all that the other ways of telling it need to know.

News for people: the first red verdict, and the first that is green again; nothing for each red in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distgate.bus.order import Said
from distgate.errors import DistgateError
from distgate.ledger.runs import OutboxMessage, Run
from distgate.pipelines import FUNCTIONAL, STAGES, Pipeline, Stage
from distgate.text import printable

#: A verdict on the package, for those who want to hear of changes alone; None is no verdict on it at all.
Colour = Literal["green", "red"] | None

#: Who is to blame when the change is not: such an end says nothing of the package.
OURS = ("infrastructure", "configuration", "cancelled", "bug")


class Refused(DistgateError):
    """The other side will not have this report, however often it is sent."""


@dataclass(frozen=True)
class RunEvent:
    """One letter of a run. ``status`` is the run's so far, ``own_status`` the stage's own; times are epoch seconds.

    ``blame`` and ``sentence`` are the verdict's, empty before the last message or where nobody wrote them down.
    ``before`` is the colour of the last verdict on the same package, branch and pipeline. ``tested`` says that the
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
    before: Colour = None
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
    def words(self) -> str:
        """The verdict, or the state so far, in one sentence for people."""
        if not self.last:
            return f"{self.title}: {self.suffix} {self.state}"
        return self.sentence or f"{self.title}: {self.status}" + (f" (blame: {self.blame})" if self.blame else "")


def notice_of(
    letter: OutboxMessage,
    run: Run,
    *,
    verdict: tuple[str, str] = ("", ""),
    before: Colour = None,
    current: bool = True,
    repeated: bool = False,
) -> RunEvent:
    """The notice for a letter of ``run``; ``verdict`` is who is to blame and the sentence, told with the last one."""
    message = Said(letter.topic, letter.body["status"])
    last = message.last
    blame, sentence = verdict if last else ("", "")
    return RunEvent(
        message_id=letter.message_id,
        pipeline=run.pipeline,
        suffix=message.suffix,
        state=message.state,
        status=message.status,
        own_status=run.facts.statuses.get(message.suffix) or message.status,
        namespace=run.change.namespace,
        repo=run.change.repo,
        branch=run.change.branch,
        rev=run.change.rev,
        username=run.change.username,
        key=run.change.key,
        build_id=letter.body["build_id"],
        build_url=letter.body["build_url"],
        main_topic=letter.topic.partition(".ci.pipeline.")[0],
        created_at=letter.created_at,
        nvr=letter.body.get("nvr", "").strip("'"),
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


def colour_of(status: str, blame: str) -> Colour:
    """What an end says of the package: an aborted run, and one that broke on our side, say nothing."""
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
    """A changed verdict: one line, and a text with where to look."""

    subject: str
    text: str


def news_of(notice: RunEvent) -> VerdictChange | None:
    """The news in a notice; None when the verdict on this package, branch and pipeline is what it was."""
    colour = colour_of(notice.status, notice.blame) if notice.last else None
    if colour is None or colour == (notice.before or "green"):
        return None
    what = "works again" if colour == "green" else "fails"
    subject = f"{notice.repo} {notice.branch} {what} ({notice.pipeline}, {notice.rev[:7]} by {notice.username})"
    lines = [
        printable(notice.words, newlines=False),
        "",
        f"Commit: {notice.namespace}/{notice.repo} {notice.branch} {notice.rev}",
        *([f"Build: {notice.nvr}"] if notice.nvr else []),
        f"Run: {notice.build_url}",
    ]
    return VerdictChange(printable(subject, newlines=False), "\n".join(lines) + "\n")
