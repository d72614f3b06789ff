"""News in a Matrix room, over the client-server API."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from distgate.reports.http import ReportClient, required, secret
from distgate.reports.notice import RunEvent, verdict_change
from distgate.settings import Settings


class Matrix:
    """A room on the homeserver ``url`` that the token's account has joined."""

    name = "matrix"

    def __init__(self, url: str, room_id: str, token: Path | None) -> None:
        server, room_path = required(url, "matrix_url").rstrip("/"), quote(required(room_id, "matrix_room"), safe="")
        self._url = f"{server}/_matrix/client/v3/rooms/{room_path}/send/m.room.message"
        self._client = ReportClient(
            "the Matrix homeserver", {"Authorization": f"Bearer {secret(token, 'matrix_token')}"}
        )

    def deliver(self, notice: RunEvent) -> bool:
        """Send what has changed, if anything has; the homeserver takes the same transaction for one message."""
        change = verdict_change(notice)
        if change is None:
            return False
        # m.notice, by which bots know each other: no bot answers it.
        body = {"msgtype": "m.notice", "body": f"{change.subject}\n{change.text}"}
        self._client.call("PUT", f"{self._url}/{quote(notice.message_id, safe='')}", json=body)
        return True


def open_channel(settings: Settings) -> Matrix:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    return Matrix(settings.matrix_url, settings.matrix_room, settings.matrix_token)
