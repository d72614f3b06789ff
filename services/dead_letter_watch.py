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
    """Looks at the queue's dead letters whenever their number has changed."""

    def __init__(self, ledger: Ledger, own: Settings) -> None:
        self._ledger = ledger
        self._settings = own
        self._count = 0

    def look(self) -> list[str]:
        """Note what nobody wrote down, and return a sentence for each; raises InfrastructureError when the broker or
        the ledger is away."""
        own = self._settings
        try:
            count = messages_in(own.amqp_url, f"{own.queue}.dead")
        except ConfigurationError as error:
            log.debug("no dead letters: %s", error)  # the intake has not made the queue yet
            return []
        if count == self._count:
            return []
        said = self._note()
        self._count = count
        return said

    def _note(self) -> list[str]:
        own = self._settings
        times: Counter[str] = Counter()
        said = []
        for letter in dead_letters(own.amqp_url, own.queue):
            times[letter.message_id] += 1
            reason = reason_of(letter.topic, letter.raw, own)
            if note_dead(self._ledger, letter.message_id, letter.topic, reason, times[letter.message_id]):
                said.append(f"message {letter.message_id} ({letter.topic}) was refused: {reason}")
                log.warning("%s", said[-1])
        return said
