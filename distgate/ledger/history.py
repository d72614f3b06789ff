"""What the ledger knows of a change in one pipeline, and the decisions that are taken after its push has settled.

docs/decisions has the reasons: a push is tested at its head, and git.receive does not say which commit that is.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from distgate.changes.change import Change
from distgate.changes.rules import ACCEPTED, SETTLING, RecordedDecision
from distgate.changes.triage import Decision
from distgate.ledger.database import starts_with
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES
from distgate.pipelines import Pipeline

#: Rules of commits that were really pushed to the branch: a fork's makes nothing old, nor does a run by hand.
_PUSHED = (ACCEPTED, SETTLING, "superseded", "shed")
#: Changes that are read at once: others wait while they are worked on.
AT_ONCE = 200


class LedgerHistory:
    """A PushHistory (distgate.changes.rules) from a ledger, which also writes later decisions into it.

    Each pipeline has a history of its own; a decision of one is none of the other.
    """

    def __init__(self, ledger: Ledger, pipeline: Pipeline = "allpackages") -> None:
        self._ledger = ledger
        self._of_pipeline = CHANGES.c.pipeline == pipeline

    def recorded(self, change: Change) -> RecordedDecision | None:
        query = sa.select(CHANGES.c.decision, CHANGES.c.rule, CHANGES.c.seen)
        with self._ledger.transaction() as connection:
            row = connection.execute(query.where(CHANGES.c.key == change.key, self._of_pipeline)).one_or_none()
        return RecordedDecision(row.decision, row.rule, row.seen) if row else None

    def newer(self, change: Change, within: float) -> str | None:
        accepted = sa.select(CHANGES.c.accepted_at).where(CHANGES.c.key == change.key, self._of_pipeline)
        with self._ledger.transaction() as connection:
            arrival = connection.execute(accepted).scalar_one_or_none() or time.time()
            later = CHANGES.c.accepted_at > arrival
            named = sa.and_(CHANGES.c.head, CHANGES.c.accepted_at >= arrival - within)
            others = sa.and_(_same_branch(change), CHANGES.c.key != change.key, CHANGES.c.rule.in_(_PUSHED))
            # A condition of its own lets the database use its index.
            recent = CHANGES.c.accepted_at >= arrival - within
            query = sa.select(CHANGES.c.key).where(self._of_pipeline, recent, others, sa.or_(later, named))
            query = query.order_by(CHANGES.c.accepted_at)
            keys = connection.execute(query).scalars().all()
        return keys[-1].rpartition("#")[2] if keys else None

    def accepted(self, seconds: float, like: Change | None = None) -> int:
        recent = sa.and_(self._of_pipeline, CHANGES.c.rule == ACCEPTED, CHANGES.c.accepted_at > time.time() - seconds)
        if like is not None:
            recent = sa.and_(recent, starts_with(CHANGES.c.key, f"{like.namespace}/{like.repo}@"))
        with self._ledger.transaction() as connection:
            return int(connection.execute(sa.select(sa.func.count()).where(recent)).scalar_one())

    def settled(self, older_than: float) -> list[Change]:
        """Changes that wait for a newer commit and have done so for ``older_than`` seconds; the oldest ones."""
        settling = sa.and_(CHANGES.c.rule == SETTLING, CHANGES.c.accepted_at <= time.time() - older_than)
        return self._changes(settling)

    def unoffered(self) -> list[Change]:
        """Accepted changes that were not offered to Prefect yet; the oldest ones."""
        return self._changes(sa.and_(CHANGES.c.rule == ACCEPTED, CHANGES.c.offered_at.is_(None)))

    def decide_again(self, change: Change, decision: Decision, *, arrived: bool = False) -> bool:
        """Replace the recorded decision, unless a run holds the change; return whether it was replaced.

        ``arrived`` says that a message asked for it just now: from now on the change is as new as that message.
        """
        values = {"decision": decision.decision, "reason": decision.reason, "rule": decision.rule}
        arrival = {"accepted_at": time.time(), "head": decision.head} if arrived else {}
        this_change = sa.and_(CHANGES.c.key == change.key, self._of_pipeline, CHANGES.c.run_id.is_(None))
        with self._ledger.transaction() as connection:
            return connection.execute(CHANGES.update().where(this_change).values(**values, **arrival)).rowcount == 1

    def _changes(self, condition: ColumnElement[bool]) -> list[Change]:
        query = sa.select(CHANGES.c.change).where(self._of_pipeline, condition, CHANGES.c.run_id.is_(None))
        with self._ledger.transaction() as connection:
            query = query.order_by(CHANGES.c.accepted_at).limit(AT_ONCE)
            return [Change.model_validate_json(row) for row in connection.execute(query).scalars()]


def _same_branch(change: Change) -> ColumnElement[bool]:
    # The length tells f41 from a branch that is called f41#2.
    prefix = f"{change.namespace}/{change.repo}@{change.branch}#"
    return sa.and_(starts_with(CHANGES.c.key, prefix), sa.func.length(CHANGES.c.key) == len(change.key))
