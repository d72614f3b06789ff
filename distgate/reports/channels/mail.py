"""News by mail, over SMTP."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import NoReturn

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.reports.http import HINT, required, secret
from distgate.reports.notice import Refused, RunEvent, VerdictChange, verdict_change
from distgate.settings import Settings

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in: ``address`` is host:port; with ``tls`` nothing is sent in the clear."""

    address: str
    tls: bool = False
    user: str = ""
    password: Path | None = None


class Mail:
    """Mail to the same people for every package, or to each package's own: {repo} and {branch} in an address."""

    name = "mail"

    def __init__(self, server: MailServer, sender: str, recipients: Sequence[str]) -> None:
        self._server = server
        host, _, port = server.address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigurationError(f"DISTGATE_MAIL_SERVER is not HOST:PORT: {server.address!r}", hint=HINT)
        self._host, self._port = host.strip("[]"), int(port)
        self._sender = required(sender, "mail_from")
        self._recipients = tuple(recipients)
        required("".join(self._recipients), "mail_to")
        self._password = secret(server.password, "mail_password") if server.user else ""
        if server.user and not server.tls:
            raise ConfigurationError(
                "DISTGATE_MAIL_USER needs DISTGATE_MAIL_TLS: no password in the clear", hint=HINT
            )

    def deliver(self, notice: RunEvent) -> bool:
        """Send what has changed, if anything has. The same mail has the same Message-ID whenever it is sent."""
        change = verdict_change(notice)
        if change is None:
            return False
        mail = self._mail(notice, change)
        try:
            self._send(mail)
        except (OSError, smtplib.SMTPException) as error:
            self._explain(error)
        return True

    def _mail(self, notice: RunEvent, change: VerdictChange) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = [_filled(address, notice) for address in self._recipients]
        mail["Subject"] = change.subject
        mail["Date"] = _date(notice.created_at)
        mail["Message-ID"] = f"<{notice.message_id}@distgate>"
        # Automatic answers are of no use.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(change.text)
        return mail

    def _send(self, mail: EmailMessage) -> None:
        smtp = smtplib.SMTP(self._host, self._port, timeout=ANSWER_SECONDS)
        try:
            if self._server.tls:
                smtp.starttls(context=ssl.create_default_context())
            if self._server.user:
                smtp.login(self._server.user, self._password)
            smtp.send_message(mail)
        finally:
            # The mail is handed in by now, or it is not: an error of QUIT changes nothing.
            with suppress(OSError, smtplib.SMTPException):
                smtp.quit()

    def _explain(self, error: OSError | smtplib.SMTPException) -> NoReturn:
        sentence = f"the mail server {self._server.address} said: {_answer_of(error)}"
        if isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPNotSupportedError | ssl.SSLError):
            raise ConfigurationError(sentence, hint=HINT) from error
        if _is_final(error):
            raise Refused(sentence) from error
        raise InfrastructureError(sentence) from error


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _filled(address: str, notice: RunEvent) -> str:
    # Not format(): an address is a site's text, and no program.
    return address.replace("{repo}", notice.repo).replace("{branch}", notice.branch)


def _answer_of(error: OSError | smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{address}: {code} {_text(answer)}" for address, (code, answer) in error.recipients.items())
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    return repr(error)


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _is_final(error: OSError | smtplib.SMTPException) -> bool:
    """A 5xx stays; a 4xx, as of greylisting, is for later."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPConnectError):
        return False
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500


def open_channel(settings: Settings) -> Mail:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    server = MailServer(settings.mail_server, settings.mail_tls, settings.mail_user, settings.mail_password)
    return Mail(server, settings.mail_from, settings.mail_to)
