"""A channel: one way of reporting runs. Each is a file of distgate/reports/channels, and needs no other list.

Its module has ``open_channel``, and its name is the file's, with hyphens: that is what DISTGATE_REPORTS calls it.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from distgate.errors import ConfigurationError
from distgate.reports import channels
from distgate.reports.notice import RunEvent
from distgate.settings import Settings


class ReportChannel(Protocol):
    """One way of reporting runs; ``deliver`` may be called again with what has arrived already."""

    @property
    def name(self) -> str: ...

    def deliver(self, notice: RunEvent) -> bool:
        """Report to the other side; False when this notice is not for it.

        Raises InfrastructureError when it cannot be reached, ConfigurationError when the site has to mend something
        (nothing is lost meanwhile), Refused when the other side will never accept this report.
        """


class _ChannelModule(Protocol):
    def open_channel(self, settings: Settings) -> ReportChannel: ...


def channel_names() -> list[str]:
    """The names that DISTGATE_REPORTS may have, in their order."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(channels.__path__))


def check_names(names: tuple[str, ...]) -> None:
    """Raises ConfigurationError for a name that is no channel's."""
    for name in names:
        if name not in channel_names():
            raise ConfigurationError(
                f"the setting DISTGATE_REPORTS is wrong: there is no channel {name!r}",
                hint=f"there are {', '.join(channel_names())}",
            )


def open_channel(name: str, settings: Settings) -> ReportChannel:
    """The channel as the settings describe it, with its secret. Raises ConfigurationError for what is missing."""
    check_names((name,))
    # Only this one: Twisted and all that fedora-messaging brings along is for those who speak on the bus.
    module = import_module(f"{channels.__name__}.{name.replace('-', '_')}")
    return cast(_ChannelModule, module).open_channel(settings)
