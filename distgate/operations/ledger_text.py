"""What the ledger knows, told to people and to programs: ``distgate why`` and ``distgate audit``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from distgate.bus.order import Said
from distgate.ledger.runs import OutboxMessage, Run
from distgate.operations.audit import Audit
from distgate.operations.ledger_queries import History


def story_as_json(history: History) -> dict[str, Any]:
    """One change in one pipeline as ``distgate why --json`` prints it; times are ISO 8601 in UTC."""
    return {
        "change": history.change.model_dump(include={"namespace", "repo", "rev", "branch", "username"}),
        "pipeline": history.pipeline,
        "decision": history.decision,
        "rule": history.rule,
        "reason": history.reason,
        "seen": history.seen,
        "first_seen": moment(history.accepted_at),
        "offered": moment(history.offered_at),
        "messages": [_letter_as_json(letter) for letter in history.announced],
        "runs": [
            {
                "run_id": run.run_id,
                "url": run.build_url,
                "attempts": [_attempt_as_json(run, number, letters) for number in range(1, run.attempt + 1)],
            }
            for run, letters in history.runs
        ],
    }


def format_history(history: History) -> str:
    """One change in lines for people."""
    return "\n".join(_lines(history))


def format_audit(audit: Audit, shown: int) -> Iterator[str]:
    """The audit in lines for people, at most ``shown`` of each list."""
    yield "the books balance" if audit.balanced else f"the books do not balance: {len(audit.problems)} problems"
    for name, counts in (("triggers", audit.triggers), ("runs", audit.runs), ("messages", audit.messages)):
        yield f"{name + ':':<10}" + ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in counts.items())
    for letter in audit.queued[:shown]:
        age = f"{audit.now - letter.created_at:.0f} s"
        yield f"queued for {age}: {letter.topic} of {letter.build_id}" + (
            f" ({letter.error})" if letter.error else ""
        )
    for problem in audit.problems[:shown]:
        whose = "" if problem.pipeline == "allpackages" else f" ({problem.pipeline})"
        yield f"problem: {problem.about}{whose}: {problem.problem}"
    for word, count in (("queued messages", len(audit.queued)), ("problems", len(audit.problems))):
        if count > shown:
            yield f"... and {count - shown} more {word}; --json has them all"


def moment(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _attempt_as_json(run: Run, number: int, letters: tuple[OutboxMessage, ...]) -> dict[str, Any]:
    own = _of_attempt(run, number, letters)
    return {
        "build_id": run.run_id if number == 1 else f"{run.run_id}.{number}",
        "verdict": _verdict(own),
        "messages": [_letter_as_json(letter) for letter in own],
    }


def _letter_as_json(letter: OutboxMessage) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "status": letter.body["status"],
        "message_id": letter.message_id,
        "written": moment(letter.created_at),
        "sent": moment(letter.sent_at),
        "error": letter.error,
    }


def _lines(history: History) -> Iterator[str]:
    change = history.change
    yield f"{change.namespace}/{change.repo} {change.branch} {change.rev} by {change.username}, {history.pipeline}"
    yield f"  {history.decision}: {history.reason} (rule {history.rule})"
    yield f"  seen {_times(history.seen)}, first at {moment(history.accepted_at)}"
    yield from (f"  {_letter_line(letter)}" for letter in history.announced)
    if not history.runs and history.decision == "queued":
        told = f"offered to Prefect at {moment(history.offered_at)}" if history.offered_at else "not offered yet"
        yield f"  no run has claimed it so far; {told}"
    for run, letters in history.runs:
        for number in range(1, run.attempt + 1):
            own = _of_attempt(run, number, letters)
            yield f"  run {run.run_id}" + (f" attempt {number}" if run.attempt > 1 else "") + f": {run.build_url}"
            yield f"    verdict: {_verdict(own) or 'none yet'}"
            yield from (f"    {_letter_line(letter)}" for letter in own)


def _letter_line(letter: OutboxMessage) -> str:
    sent = f"sent {moment(letter.sent_at)}" if letter.sent_at else f"not sent yet ({letter.error or 'in the outbox'})"
    return f"{Said(letter.topic, '').name:<34} {letter.body['status']:<9} {sent}"


def _of_attempt(run: Run, number: int, letters: tuple[OutboxMessage, ...]) -> list[OutboxMessage]:
    build_id = run.run_id if number == 1 else f"{run.run_id}.{number}"
    return [letter for letter in letters if letter.body["build_id"] == build_id]


def _verdict(letters: list[OutboxMessage]) -> str | None:
    last = [letter.body["status"] for letter in letters if Said(letter.topic, "").last]
    return last[-1] if last else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
