"""The tables of reports: which letter of the ledger was delivered to whom. The ledger can be used without them."""

from __future__ import annotations

import sqlalchemy as sa

from distgate.ledger_tables import META

#: A channel that was once switched on: every letter up to ``through`` is settled; the counts go on for ever.
CHANNELS = sa.Table(
    "report_channels",
    META,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("through", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
)
#: What became of a letter in a channel: waiting, done, or refused. Rows of what is done go when ``through`` passes.
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
TABLES = [CHANNELS, REPORTS]
