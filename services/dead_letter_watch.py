"""Dead letters that the intake never saw (no JSON, wrong headers) are written into the ledger, with their reason."""

from __future__ import annotations

import logging
from collections import Counter

from distgate.bus.dead_letters import dead_letters
from distgate.bus.queues import messages_in
from distgate.errors import ConfigurationError
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import note_dead, reason_of
from distgate.settings import Settings

log = logging.getLogger(__name__)


class DeadLetterWatch:
    """Reads the queue's dead letters whenever their number has changed."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._count = 0

    def check(self) -> list[str]:
        """Record the messages that the ledger does not have, and return a sentence for each.

        Raises InfrastructureError when the broker or the ledger cannot be reached.
        """
        settings = self._settings
        try:
            count = messages_in(settings.amqp_url, f"{settings.queue}.dead")
        except ConfigurationError as error:
            log.debug("no dead letters: %s", error)  # the intake has not made the queue yet
            return []
        if count == self._count:
            return []
        refusals = self._note()
        self._count = count
        return refusals

    def _note(self) -> list[str]:
        settings = self._settings
        times: Counter[str] = Counter()
        refusals = []
        for message in dead_letters(settings.amqp_url, settings.queue):
            times[message.message_id] += 1
            reason = reason_of(message.topic, message.raw, settings)
            if note_dead(self._ledger, message.message_id, message.topic, reason, times[message.message_id]):
                refusals.append(f"message {message.message_id} ({message.topic}) was refused: {reason}")
                log.warning("%s", refusals[-1])
        return refusals
