"""In whose name runs are reported: the name of the tests, whom to ask about them, and where the logs are."""

from __future__ import annotations

from dataclasses import dataclass

from distgate.reports.notice import RunEvent
from distgate.settings import Settings


@dataclass(frozen=True)
class ReporterIdentity:
    """The first part of the tests' names, the team with its address and page, and where artifacts are served."""

    namespace: str
    team: str
    email: str = ""
    docs: str = ""
    artifacts_url: str = ""

    @classmethod
    def of(cls, settings: Settings) -> ReporterIdentity:
        """The identity that the settings describe."""
        return cls(
            settings.report_namespace,
            settings.report_team,
            settings.report_email,
            settings.report_docs,
            settings.artifacts_url,
        )

    def log_of(self, notice: RunEvent) -> str:
        """Where the logs of a run are: its directory, when artifacts are served over http, else its page."""
        run_id = notice.build_id.partition(".")[0]
        return f"{self.artifacts_url.rstrip('/')}/{run_id}/" if self.artifacts_url else notice.build_url
