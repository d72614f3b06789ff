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
from distgate.reports.notice import Refused, RunEvent, VerdictChange, news_of
from distgate.settings import Settings

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in: ``address`` is host:port; with ``tls`` nothing is said in the clear."""

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
        change = news_of(notice)
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
        mail["To"] = [_filled(recipient, notice) for recipient in self._recipients]
        mail["Subject"] = change.subject
        mail["Date"] = _date(notice.created_at)
        mail["Message-ID"] = f"<{notice.message_id}@distgate>"
        # Answers of holiday robots help nobody.
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
            # The mail is handed in by now, or it is not: a quarrel at the farewell says nothing.
            with suppress(OSError, smtplib.SMTPException):
                smtp.quit()

    def _explain(self, trouble: OSError | smtplib.SMTPException) -> NoReturn:
        sentence = f"the mail server {self._server.address} said: {_words(trouble)}"
        if isinstance(trouble, smtplib.SMTPAuthenticationError | smtplib.SMTPNotSupportedError | ssl.SSLError):
            raise ConfigurationError(sentence, hint=HINT) from trouble
        if _is_final(trouble):
            raise Refused(sentence) from trouble
        raise InfrastructureError(sentence) from trouble


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _filled(address: str, notice: RunEvent) -> str:
    # Not format(): an address is a site's text, and no program.
    return address.replace("{repo}", notice.repo).replace("{branch}", notice.branch)


def _words(trouble: OSError | smtplib.SMTPException) -> str:
    if isinstance(trouble, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{who}: {code} {_text(answer)}" for who, (code, answer) in trouble.recipients.items())
    if isinstance(trouble, smtplib.SMTPResponseException):
        return f"{trouble.smtp_code} {_text(trouble.smtp_error)}"
    return repr(trouble)


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _is_final(trouble: OSError | smtplib.SMTPException) -> bool:
    """A 5xx stays; a 4xx, as of greylisting, is for later."""
    if isinstance(trouble, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in trouble.recipients.values())
    if isinstance(trouble, smtplib.SMTPConnectError):
        return False
    return isinstance(trouble, smtplib.SMTPResponseException) and trouble.smtp_code >= 500


def open_channel(settings: Settings) -> Mail:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    server = MailServer(settings.mail_server, settings.mail_tls, settings.mail_user, settings.mail_password)
    return Mail(server, settings.mail_from, settings.mail_to)
