"""What our global limits in Prefect are called: each name begins with one of these, and goes on with whose it is."""

from __future__ import annotations

KOJI = "koji-"
GUESTS = "guests-"
OSTREE = "ostree-"
#: A server may have others, which are none of ours.
OURS = (KOJI, GUESTS, OSTREE)
