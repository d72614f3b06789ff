"""The host that guests run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from blocks.site import SiteBlock
from distgate.guests.base import GuestMachineFields

if TYPE_CHECKING:
    from distgate.guests.base import GuestHost
    from distgate.guests.monitor import HeldGuests
    from distgate.runners.session import RunnerFor


class GuestMachine(GuestMachineFields, SiteBlock):
    """This worker's own libvirt, embedded in the process: no daemon, and no guest outlives its run."""

    _block_type_name: ClassVar[str | None] = "Guest machine"
    _block_type_slug: ClassVar[str | None] = "guest-machine"
    _description: ClassVar[str | None] = "How guests are started on the worker's host."

    def guests(self) -> GuestHost:
        """What starts guests here; `distgate guests list` shows them while they run."""
        # Drivers are imported where they are opened, here and in the other blocks: every run imports every block
        # before its first message, and most runs need few of the drivers.
        from distgate.guests.host import open_guests

        return open_guests(self)

    def held(self, seconds: float) -> HeldGuests:
        """What starts guests that can be kept for ``seconds`` beyond the end of this process."""
        from distgate.guests.monitor import HeldGuests

        return HeldGuests(self.directory, seconds, memory=self.memory, cpus=self.cpus, after_owner=True)

    def suites(
        self,
        branch: str,
        *,
        roles_path: Sequence[Path],
        ansible: Mapping[str, Path],
        srpm: Path | None,
        tag: str,
        variables: Mapping[str, str] | None,
    ) -> RunnerFor:
        """What runs test suites against these guests. See distgate.runners.session.runner_for."""
        from distgate.runners.session import runner_for

        return runner_for(branch, roles_path=roles_path, ansible=ansible, srpm=srpm, tag=tag, variables=variables)
