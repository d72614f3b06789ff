"""A plugin that tmt loads from TMT_PLUGINS: it looks for its ssh connection again after a tenth of a second.

tmt starts an ssh master and asks at once whether it is up. It never is, and tmt then sleeps for its default tick of
30 s, which no option changes. (A run directory with a long name avoids that too, by switching the master off, at the
price of a new connection for each of some twenty commands a test.) Nothing else of tmt is touched, and a tmt that has
no such function any more is merely slow.
"""

from __future__ import annotations

import tmt.guest
from tmt.utils.wait import Deadline, Waiting

TICK = 0.1


def quick_ssh_master_start_waiting() -> Waiting:
    """tmt's own deadline for the master, with a tick of TICK seconds."""
    return Waiting(deadline=Deadline.from_seconds(tmt.guest.SSH_MASTER_START_TIMEOUT), tick=TICK)


tmt.guest.default_ssh_master_start_waiting = quick_ssh_master_start_waiting
