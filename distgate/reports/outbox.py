"""What still has to be reported to a channel, and what was: in the ledger, beside the messages themselves.

Every message counts as soon as it is written, whether the broker has it or not: a broker that cannot be reached is no
reason to leave a flag on a commit pending. A channel begins with what is written after it was first switched on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from distgate.bus.order import NO_RUN, SentMessage
from distgate.errors import ConfigurationError
from distgate.files import RUN_RECORD
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import OutboxMessage, Run, RunFacts
from distgate.ledger.tables import CHANGES, CHANNELS, OUTBOX, REPORTS, RUNS
from distgate.reports.notice import RunEvent, notice_of, package_verdict
from distgate.runs.record import load
from distgate.text import printable

#: Pauses after the tries of one report, in seconds; the last one goes on.
PAUSES = (2, 5, 15, 60)
#: Messages that are read together.
AT_ONCE = 200
#: Seconds after which no message turns up any more before one that was seen: PostgreSQL numbers messages when they
#: are written, and shows them when they are committed.
LATE_SECONDS = 600.0
#: Earlier verdicts that are searched for the last one on the package.
LOOK_BACK = 50
_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Due:
    """A report to be tried now: the message with its run, and how often it was tried before."""

    message: OutboxMessage
    run_id: str
    tries: int

    @property
    def seq(self) -> int:
        """The message's place in the ledger."""
        return self.message.seq


@dataclass(frozen=True)
class RefusedReport:
    """A report that a channel refused: the message, and the other side's reason."""

    seq: int
    topic: str
    build_id: str
    error: str
    at: float


@dataclass(frozen=True)
class ChannelState:
    """A channel as the ledger knows it; ``oldest`` is when the oldest waiting message was written, ``error`` what
    went wrong last and has not gone well since."""

    name: str
    delivered: int
    pending: int
    oldest: float | None
    error: str
    refused: tuple[RefusedReport, ...] = ()


class ReportOutbox:
    """One channel's view of the ledger's messages; every method is one transaction and safe to repeat.

    ``artifacts`` is where runs keep their records, which have the blame when the ledger does not.
    """

    def __init__(self, ledger: Ledger, channel: str, artifacts: Path | None = None) -> None:
        self._ledger, self._channel, self._artifacts = ledger, channel, artifacts
        with ledger.transaction() as connection:
            channel_row = sa.select(CHANNELS.c.channel).where(CHANNELS.c.channel == channel)
            if connection.execute(channel_row).scalar_one_or_none() is None:
                newest = connection.execute(sa.select(sa.func.max(OUTBOX.c.seq))).scalar_one_or_none()
                row = {"channel": channel, "began_at": time.time(), "through": newest or 0, "delivered": 0}
                connection.execute(CHANNELS.insert().values(**row))

    def due(self) -> list[Due]:
        """The reports to try now, oldest first, at most one of each run: its next is for after that."""
        now = time.time()
        with self._ledger.transaction() as connection:
            rows = list(connection.execute(_unsettled(self._channel).limit(AT_ONCE)))
        heads = {row.run_id: row for row in reversed(rows)}
        ready = [row for row in sorted(heads.values(), key=lambda row: row.seq) if (row.due_at or 0) <= now]
        return [Due(_message(row), row.run_id, row.report_tries or 0) for row in ready]

    def trying(self, due: Due) -> None:
        """Note that the report is on its way: if we die now, the next try knows that it may have arrived."""
        pause = PAUSES[min(due.tries, len(PAUSES) - 1)]
        self._note(due.seq, state="waiting", tries=due.tries + 1, due_at=time.time() + pause)

    def done(self, due: Due, *, delivered: bool) -> None:
        """Note that it was delivered, or that the channel does not report it (``delivered`` False)."""
        with self._ledger.transaction() as connection:
            self._write(connection, due.seq, {"state": "done", "settled_at": time.time(), "error": None})
            if delivered:
                self._amend(connection, delivered=CHANNELS.c.delivered + 1, error=None)

    def refused(self, due: Due, reason: str) -> None:
        """Note that the other side will never accept it, and its reason."""
        values = {"state": "refused", "settled_at": time.time(), "error": _readable(reason)}
        self._note(due.seq, **values)

    def failed(self, due: Due, reason: str) -> None:
        """Note why it could not be delivered this time."""
        with self._ledger.transaction() as connection:
            this_report = sa.and_(REPORTS.c.channel == self._channel, REPORTS.c.seq == due.seq)
            connection.execute(REPORTS.update().where(this_report).values(error=_readable(reason)))
            self._amend(connection, error=_readable(reason))

    def tidy(self) -> None:
        """Forget what is settled and can have nothing before it any more."""
        with self._ledger.transaction() as connection:
            first = connection.execute(_unsettled(self._channel).limit(1)).one_or_none()
            old = sa.select(sa.func.max(OUTBOX.c.seq)).where(OUTBOX.c.created_at < time.time() - LATE_SECONDS)
            through = connection.execute(old).scalar_one_or_none() or 0
            if first is not None:
                through = min(through, first.seq - 1)
            this_channel = sa.and_(CHANNELS.c.channel == self._channel, CHANNELS.c.through < through)
            if connection.execute(CHANNELS.update().where(this_channel).values(through=through)).rowcount:
                settled = sa.and_(REPORTS.c.channel == self._channel, REPORTS.c.seq <= through)
                connection.execute(REPORTS.delete().where(settled, REPORTS.c.state == "done"))

    def again(self) -> int:
        """Put back what was refused, to be tried once more, and count it."""
        with self._ledger.transaction() as connection:
            refused = sa.and_(REPORTS.c.channel == self._channel, REPORTS.c.state == "refused")
            first = connection.execute(sa.select(sa.func.min(REPORTS.c.seq)).where(refused)).scalar_one()
            if first is None:
                return 0
            self._step_back(connection, first - 1)
            waiting = {"state": "waiting", "due_at": 0.0, "settled_at": None, "error": None}
            return connection.execute(REPORTS.update().where(refused).values(**waiting)).rowcount

    def notice(self, due: Due) -> RunEvent | None:
        """All that a channel needs to know of a message; None when it is not of a run."""
        sent = SentMessage(due.message.topic, "")
        run = None if sent.state in NO_RUN else self._ledger.run(due.run_id)
        if run is None:
            return None
        with self._ledger.transaction() as connection:
            before = _verdict_before(connection, run, due.message) if sent.last else None
            this_change = sa.and_(CHANGES.c.key == run.change.key, CHANGES.c.pipeline == run.pipeline)
            holder = connection.execute(sa.select(CHANGES.c.run_id).where(this_change)).scalar_one_or_none()
        return notice_of(
            due.message,
            run,
            verdict=self._verdict(run) if sent.last else ("", ""),
            before=before,
            current=holder == run.run_id,
            repeated=due.tries > 0,
        )

    # -- writing --------------------------------------------------------------------------------------------------

    def _note(self, seq: int, **values: Any) -> None:
        with self._ledger.transaction() as connection:
            self._write(connection, seq, values)

    def _write(self, connection: Connection, seq: int, values: dict[str, Any]) -> None:
        this_report = sa.and_(REPORTS.c.channel == self._channel, REPORTS.c.seq == seq)
        if not connection.execute(REPORTS.update().where(this_report).values(**values)).rowcount:
            connection.execute(REPORTS.insert().values(channel=self._channel, seq=seq, **values))

    def _step_back(self, connection: Connection, through: int) -> None:
        """Begin after ``through`` again, and note of what lies between that it was settled."""
        report = sa.select(REPORTS.c.seq).where(REPORTS.c.channel == self._channel, REPORTS.c.seq == OUTBOX.c.seq)
        now = sa.select(CHANNELS.c.through).where(CHANNELS.c.channel == self._channel).scalar_subquery()
        between = sa.and_(OUTBOX.c.seq > through, OUTBOX.c.seq <= now, ~report.exists())
        row = sa.select(sa.literal(self._channel), OUTBOX.c.seq, sa.literal("done"), sa.literal(0), sa.literal(0.0))
        names = ["channel", "seq", "state", "tries", "due_at"]
        connection.execute(REPORTS.insert().from_select(names, row.where(between)))
        lower = sa.and_(CHANNELS.c.channel == self._channel, CHANNELS.c.through > through)
        connection.execute(CHANNELS.update().where(lower).values(through=through))

    def _amend(self, connection: Connection, **values: Any) -> None:
        connection.execute(CHANNELS.update().where(CHANNELS.c.channel == self._channel).values(**values))

    def _verdict(self, run: Run) -> tuple[str, str]:
        if run.facts.sentence or self._artifacts is None:
            return run.facts.blame, run.facts.sentence
        try:
            verdict = load(self._artifacts / run.run_id / RUN_RECORD).verdict
        except ConfigurationError:  # the run was lost, or its directory is on another host
            return "", ""
        return (verdict.blame, verdict.sentence) if verdict and verdict.status == run.status else ("", "")


def channel_states(ledger: Ledger, limit: int = 1000) -> list[ChannelState]:
    """Every channel that was ever switched on, with at most ``limit`` of its refused reports, the newest first."""
    with ledger.transaction() as connection:
        names = connection.execute(sa.select(CHANNELS).order_by(CHANNELS.c.channel)).all()
        return [_state(connection, row, limit) for row in names]


def _state(connection: Connection, row: Row[Any], limit: int) -> ChannelState:
    waiting = _unsettled(row.channel).order_by(None).subquery()
    count = sa.select(sa.func.count(), sa.func.min(waiting.c.created_at)).select_from(waiting)
    pending, oldest = connection.execute(count).one()
    return ChannelState(
        name=row.channel,
        delivered=row.delivered,
        pending=pending,
        oldest=oldest,
        error=row.error or "",
        refused=tuple(_refusals(connection, row.channel, limit)),
    )


def _refusals(connection: Connection, channel: str, limit: int) -> Iterator[RefusedReport]:
    query = sa.select(REPORTS, OUTBOX.c.topic, OUTBOX.c.body).join(OUTBOX, OUTBOX.c.seq == REPORTS.c.seq)
    query = query.where(REPORTS.c.channel == channel, REPORTS.c.state == "refused")
    for row in connection.execute(query.order_by(REPORTS.c.seq.desc()).limit(limit)):
        yield RefusedReport(row.seq, row.topic, _body(row.body)["build_id"], row.error or "", row.settled_at)


def _unsettled(channel: str) -> sa.Select[Any]:
    """The messages that wait in a channel, oldest first."""
    through = sa.select(CHANNELS.c.through).where(CHANNELS.c.channel == channel).scalar_subquery()
    joined = sa.and_(REPORTS.c.seq == OUTBOX.c.seq, REPORTS.c.channel == channel)
    waiting = sa.or_(REPORTS.c.state.is_(None), REPORTS.c.state == "waiting")
    query = sa.select(OUTBOX, REPORTS.c.due_at, REPORTS.c.tries.label("report_tries"))
    return query.outerjoin(REPORTS, joined).where(OUTBOX.c.seq > through, waiting).order_by(OUTBOX.c.seq)


def _verdict_before(connection: Connection, run: Run, message: OutboxMessage) -> Literal["green", "red"] | None:
    """The last verdict before ``message`` on the same package, branch and pipeline."""
    prefix = run.change.key.rpartition("#")[0] + "#"
    same = sa.and_(RUNS.c.pipeline == run.pipeline, sa.func.substr(RUNS.c.key, 1, len(prefix)) == prefix)
    # The runs first: there are fewer of them, and their messages are found by an index.
    runs = connection.execute(
        sa.select(RUNS.c.run_id, RUNS.c.facts).where(same).order_by(RUNS.c.claimed_at.desc()).limit(LOOK_BACK)
    )
    blames = {row.run_id: RunFacts.from_column(row.facts).blame for row in runs}
    query = sa.select(OUTBOX.c.run_id, OUTBOX.c.body).where(
        OUTBOX.c.run_id.in_(blames), OUTBOX.c.topic == message.topic, OUTBOX.c.seq < message.seq
    )
    for row in connection.execute(query.order_by(OUTBOX.c.seq.desc())):
        verdict = package_verdict(_body(row.body)["status"], blames[row.run_id])
        if verdict is not None:
            return verdict
    return None


def _readable(text: str) -> str:
    """Another side's text as the ledger keeps it: not every database takes any text."""
    return printable(text)[:_ERROR_LENGTH]


def _body(text: str) -> dict[str, str]:
    body: dict[str, str] = json.loads(text)
    return body


def _message(row: Row[Any]) -> OutboxMessage:
    return OutboxMessage(
        row.seq, row.message_id, row.topic, _body(row.body), row.created_at, row.sent_at, row.tries, row.error
    )
