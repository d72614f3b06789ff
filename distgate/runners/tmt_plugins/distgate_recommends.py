"""A plugin that tmt loads from TMT_PLUGINS: recommended packages that cannot be had do not keep a plan from running.

``recommend`` names what a test can do without, and most tests of Fedora name even the package under test there. tmt
leaves out a name that no repository has; but where no repository can be read at all, as in a guest without network,
the package manager fails as a whole, and so would the plan. What is required still has to be there.
"""

from __future__ import annotations

from tmt.guest import Guest
from tmt.log import Logger
from tmt.steps import PluginOutcome
from tmt.steps.prepare.install import PrepareInstall
from tmt.utils import GeneralError
from tmt.utils.environment import Environment

_go = PrepareInstall.go


def go_without(
    self: PrepareInstall, *, guest: Guest, environment: Environment | None = None, logger: Logger
) -> PluginOutcome:
    """tmt's own installation; where it may leave out packages, it may leave out all of them."""
    try:
        return _go(self, guest=guest, environment=environment, logger=logger)
    except GeneralError:
        if self.data.missing != "skip":
            raise
        names = ", ".join(str(package) for package in self.data.package)
        self.warn(f"Not to be had in the guest, and done without: {names}")
        return PluginOutcome()


PrepareInstall.go = go_without  # type: ignore[method-assign]
