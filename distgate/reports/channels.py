"""Everybody whom runs can be reported to, by the names that DISTGATE_REPORTS knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from distgate.reports.dist_git_flag import DistGitFlags
from distgate.reports.mail import Mail, MailServer
from distgate.reports.matrix import Matrix
from distgate.reports.notice import RunEvent
from distgate.reports.reporter import ReporterIdentity
from distgate.reports.resultsdb import ResultsDb
from distgate.settings import Channel, Settings


class ReportChannel(Protocol):
    """One way of telling others; ``deliver`` may be called again with what has arrived already."""

    @property
    def name(self) -> str: ...

    def deliver(self, notice: RunEvent) -> bool:
        """Tell the other side; False when this notice is nothing to it.

        Raises InfrastructureError when it is away, ConfigurationError when the site has to mend something (nothing
        is lost meanwhile), Refused when the other side will never have this report.
        """


def open_channel(name: Channel, own: Settings) -> ReportChannel:
    """The channel as the settings describe it, with its secret. Raises ConfigurationError for what is missing."""
    return _OPENERS[name](own)


def _build_tests(own: Settings) -> ReportChannel:
    # Twisted and all that fedora-messaging brings along is for those who speak on the bus.
    from distgate.bus.amqp import Publisher
    from distgate.reports.ci_messages import BuildTestBus

    return BuildTestBus(Publisher(own.amqp_url, own.exchange), ReporterIdentity.of(own))


def _resultsdb(own: Settings) -> ReportChannel:
    speaker = ReporterIdentity.of(own)
    return ResultsDb(own.resultsdb_url, speaker, user=own.resultsdb_user, secret_file=own.resultsdb_secret)


def _flags(own: Settings) -> ReportChannel:
    return DistGitFlags(own.dist_git_flags_url, own.dist_git_flags_token)


def _matrix(own: Settings) -> ReportChannel:
    return Matrix(own.matrix_url, own.matrix_room, own.matrix_token)


def _mail(own: Settings) -> ReportChannel:
    server = MailServer(own.mail_server, own.mail_tls, own.mail_user, own.mail_password)
    return Mail(server, own.mail_from, own.mail_to)


_OPENERS: Mapping[Channel, Callable[[Settings], ReportChannel]] = {
    "ci-messages": _build_tests,
    "resultsdb": _resultsdb,
    "dist-git-flag": _flags,
    "matrix": _matrix,
    "mail": _mail,
}
