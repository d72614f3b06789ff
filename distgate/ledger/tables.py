"""The tables of the ledger; what they mean is in distgate.ledger.ledger."""

from __future__ import annotations

import sqlalchemy as sa

#: To be raised with every change of a table; a ledger of another number is refused, never guessed at.
SCHEMA = 4
META = sa.MetaData()

#: What was decided about a change, once for each pipeline that was asked: neither answers for the other.
CHANGES = sa.Table(
    "changes",
    META,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False, default=1),
    sa.Column("head", sa.Boolean, nullable=False, default=False),
    sa.Column("accepted_at", sa.Float, nullable=False, index=True),
    sa.Column("offered_at", sa.Float),
    sa.Column("run_id", sa.Text),
    # What waits, and what was not offered to Prefect, is queried twice a second.
    sa.Index("ix_changes_rule_offered", "rule", "pipeline", "offered_at"),
)
RUNS = sa.Table(
    "runs",
    META,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("build_url", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("open_stage", sa.Text),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("claimed_at", sa.Float, nullable=False),
    sa.Column("beat_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.ForeignKeyConstraint(["key", "pipeline"], ["changes.key", "changes.pipeline"]),
    sa.Index("ix_runs_key_pipeline", "key", "pipeline"),
)
OUTBOX = sa.Table(
    "outbox",
    META,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("message_id", sa.Text, nullable=False, unique=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("run_id", "topic", "attempt"),
)
#: The relay queries these several times a second, among millions that were sent. In SQL, for every database's own
#: kind of index would have each run import all of them.
OUTBOX_UNSENT = "CREATE INDEX IF NOT EXISTS ix_outbox_unsent ON outbox (seq) WHERE sent_at IS NULL"

#: Messages that are no push that could be read, by their ID on the bus; they lie in the dead-letter queue.
REJECTIONS = sa.Table(
    "rejections",
    META,
    sa.Column("message_id", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False, default=1),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("requeued_at", sa.Float),
)

#: A channel that was once switched on: every message up to ``through`` is settled; the counts go on for ever.
CHANNELS = sa.Table(
    "report_channels",
    META,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("through", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
)
#: A message in a channel: waiting, done, or refused. Rows of what is done go when ``through`` passes.
REPORTS = sa.Table(
    "reports",
    META,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("due_at", sa.Float, nullable=False, default=0.0),
    sa.Column("settled_at", sa.Float),
    sa.Column("error", sa.Text),
)

SCHEMAS = sa.Table("schema", META, sa.Column("version", sa.Integer, primary_key=True))
