"""What is tested on a whole host, beyond that it upgrades and boots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from blocks.guest_machine import GuestMachine
from blocks.site import SiteBlock
from distgate.builds.checkout import checkout_of_site
from distgate.steps import Progress

if TYPE_CHECKING:
    from distgate.conformance.run import Conformance


class HostTests(SiteBlock):
    """The integration suite of Atomic Host, and the cluster whose conformance is tested; either may be left out."""

    _block_type_name: ClassVar[str | None] = "Host tests"
    _block_type_slug: ClassVar[str | None] = "host-tests"
    _description: ClassVar[str | None] = "Which tests Atomic Host goes through as a whole."

    suite_url: str = Field(
        "", description="git repository of the integration suite, such as atomic-host-tests; empty: there is none"
    )
    suite_rev: str = Field("", description="Its commit, 40 hexadecimal digits")
    playbooks: list[str] = Field(
        default_factory=list,
        description="Paths of its playbooks to run, each on a guest of its own",
    )
    profile: str = Field(
        "", description="Conformance profile: a directory, or the name of one that distgate brings; empty: e2e is off"
    )
    profile_url: str = Field(
        "", description="git repository in which the profile is a directory; empty: it is on the worker"
    )
    profile_rev: str = Field("", description="The commit of that repository, 40 hexadecimal digits")
    variables: dict[str, Any] = Field(default_factory=dict, description="The site's variables for its playbooks")
    files: str = Field("", description="Directory that its playbooks read as distgate_files; empty: none")
    hosts: str = Field(
        "", description="Inventory of existing hosts that are the cluster; empty: guests of the image on the worker"
    )

    @property
    def has_suite(self) -> bool:
        """Whether an integration suite is configured."""
        return bool(self.suite_url and self.playbooks)

    def checkout(self, into: Path) -> Path:
        """The integration suite's files, at its commit, in ``into``. Raises ConfigurationError when there is no such
        commit, InfrastructureError when the repository cannot be read."""
        return checkout_of_site(self.suite_url, self.suite_rev, into)

    def conformance_on(self, machine: GuestMachine, directory: Path, progress: Progress) -> Conformance:
        """What tests the conformance of an image by the profile; its guests are started on ``machine``.

        A profile in a repository is checked out into ``directory``. Raises ConfigurationError for what is wrong in
        the profile, the variables or the inventory.
        """
        from distgate.conformance.run import ConformanceSetup

        setup = ConformanceSetup(
            self.profile,
            repository=self.profile_url,
            revision=self.profile_rev,
            hosts=Path(self.hosts) if self.hosts else None,
            variables=self.variables,
            files=Path(self.files) if self.files else None,
        )
        return setup.open(machine.directory, directory, progress)
