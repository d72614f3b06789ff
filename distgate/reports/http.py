"""One HTTP call of a report, and what its answer means: try again, mend the site, or never."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import httpx

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.reports.notice import Refused
from distgate.text import printable

ANSWER_SECONDS = 30.0
#: Characters of the other side's answer that are kept.
ANSWER_LENGTH = 300
#: The account is wrong, not this report: nothing is lost until it is mended.
_ACCOUNT = (401, 403, 407)
#: Client errors that pass: timeouts, a server that asks for patience.
_PASSING = (408, 425, 429)


class ReportClient:
    """An HTTP client for one service; ``name`` is how sentences call it. Safe to use from several threads."""

    def __init__(self, name: str, headers: dict[str, str] | None = None, auth: httpx.Auth | None = None) -> None:
        self._name = name
        self._client = httpx.Client(timeout=ANSWER_SECONDS, headers=headers, auth=auth)

    def call(self, method: str, url: str, **request: Any) -> Any:
        """The JSON of a successful answer (None when it is none).

        Raises InfrastructureError for what may pass, ConfigurationError when our account or the address is wrong,
        Refused with the other side's answer when it will never accept this report.
        """
        try:
            answer = self._client.request(method, url, **request)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigurationError(f"{url} is no address of {self._name}: {error}", hint=HINT) from error
        except httpx.HTTPError as error:
            raise InfrastructureError(f"{self._name} cannot be reached: {error!r}") from error
        if answer.is_success:
            return _content(answer)
        self._explain(answer)

    def _explain(self, answer: httpx.Response) -> NoReturn:
        text = printable(answer.text[: ANSWER_LENGTH * 4], newlines=False)[:ANSWER_LENGTH]
        sentence = f"{self._name} answered {answer.status_code} {answer.reason_phrase}: {text}"
        if answer.status_code in _ACCOUNT or answer.is_redirect:
            raise ConfigurationError(sentence, hint=HINT)
        if answer.status_code in _PASSING or answer.is_server_error:
            raise InfrastructureError(sentence)
        raise Refused(sentence)


HINT = "docs/reports.md has the settings of each channel"


def secret(path: Path | None, setting: str) -> str:
    """What the file ``path`` holds, without the line's end; read anew whenever a channel is opened, and never logged.

    Raises ConfigurationError that names the setting.
    """
    if path is None:
        raise ConfigurationError(f"DISTGATE_{setting.upper()} is not set", hint=HINT)
    try:
        text = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"DISTGATE_{setting.upper()}: cannot read {path}: {error}", hint=HINT) from error
    if not text or not text.isprintable():
        raise ConfigurationError(f"DISTGATE_{setting.upper()}: {path} holds no secret on one line", hint=HINT)
    return text


def required(value: str, setting: str) -> str:
    """``value``; ConfigurationError that names the setting when it is empty."""
    if not value:
        raise ConfigurationError(f"DISTGATE_{setting.upper()} is not set", hint=HINT)
    return value


def _content(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
