"""Changes and the audit in lines for people and as JSON: ``distgate why`` and ``distgate audit``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from distgate.bus.order import SentMessage
from distgate.ledger.runs import OutboxMessage, Run
from distgate.operations.audit import Audit
from distgate.operations.ledger_queries import ChangeReport


def history_as_json(report: ChangeReport) -> dict[str, Any]:
    """One change in one pipeline as ``distgate why --json`` prints it; times are ISO 8601 in UTC."""
    return {
        "change": report.change.model_dump(include={"namespace", "repo", "rev", "branch", "username"}),
        "pipeline": report.pipeline,
        "decision": report.decision,
        "rule": report.rule,
        "reason": report.reason,
        "seen": report.seen,
        "first_seen": moment(report.accepted_at),
        "offered": moment(report.offered_at),
        "messages": [_message_as_json(message) for message in report.announced],
        "runs": [
            {
                "run_id": run.run_id,
                "url": run.build_url,
                "attempts": [_attempt_as_json(run, number, messages) for number in range(1, run.attempt + 1)],
            }
            for run, messages in report.runs
        ],
    }


def format_history(report: ChangeReport) -> str:
    """One change in lines for people."""
    return "\n".join(_lines(report))


def format_audit(audit: Audit, limit: int) -> Iterator[str]:
    """The audit in lines for people, at most ``limit`` of each list."""
    yield "the books balance" if audit.balanced else f"the books do not balance: {len(audit.problems)} problems"
    for name, counts in (("triggers", audit.triggers), ("runs", audit.runs), ("messages", audit.messages)):
        yield f"{name + ':':<10}" + ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in counts.items())
    for message in audit.queued[:limit]:
        age = f"{audit.now - message.created_at:.0f} s"
        yield f"queued for {age}: {message.topic} of {message.build_id}" + (
            f" ({message.error})" if message.error else ""
        )
    for problem in audit.problems[:limit]:
        whose = "" if problem.pipeline == "allpackages" else f" ({problem.pipeline})"
        yield f"problem: {problem.about}{whose}: {problem.problem}"
    for name, count in (("queued messages", len(audit.queued)), ("problems", len(audit.problems))):
        if count > limit:
            yield f"... and {count - limit} more {name}; --json has them all"


def moment(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _attempt_as_json(run: Run, number: int, messages: tuple[OutboxMessage, ...]) -> dict[str, Any]:
    of_attempt = _of_attempt(run, number, messages)
    return {
        "build_id": run.run_id if number == 1 else f"{run.run_id}.{number}",
        "verdict": _verdict(of_attempt),
        "messages": [_message_as_json(message) for message in of_attempt],
    }


def _message_as_json(message: OutboxMessage) -> dict[str, Any]:
    return {
        "topic": message.topic,
        "status": message.body["status"],
        "message_id": message.message_id,
        "written": moment(message.created_at),
        "sent": moment(message.sent_at),
        "error": message.error,
    }


def _lines(report: ChangeReport) -> Iterator[str]:
    change = report.change
    yield f"{change.namespace}/{change.repo} {change.branch} {change.rev} by {change.username}, {report.pipeline}"
    yield f"  {report.decision}: {report.reason} (rule {report.rule})"
    yield f"  seen {_times(report.seen)}, first at {moment(report.accepted_at)}"
    yield from (f"  {_message_line(message)}" for message in report.announced)
    if not report.runs and report.decision == "queued":
        offer = f"offered to Prefect at {moment(report.offered_at)}" if report.offered_at else "not offered yet"
        yield f"  no run has claimed it so far; {offer}"
    for run, messages in report.runs:
        for number in range(1, run.attempt + 1):
            of_attempt = _of_attempt(run, number, messages)
            yield f"  run {run.run_id}" + (f" attempt {number}" if run.attempt > 1 else "") + f": {run.build_url}"
            yield f"    verdict: {_verdict(of_attempt) or 'none yet'}"
            yield from (f"    {_message_line(message)}" for message in of_attempt)


def _message_line(message: OutboxMessage) -> str:
    sent = (
        f"sent {moment(message.sent_at)}" if message.sent_at else f"not sent yet ({message.error or 'in the outbox'})"
    )
    return f"{SentMessage(message.topic, '').name:<34} {message.body['status']:<9} {sent}"


def _of_attempt(run: Run, number: int, messages: tuple[OutboxMessage, ...]) -> list[OutboxMessage]:
    build_id = run.run_id if number == 1 else f"{run.run_id}.{number}"
    return [message for message in messages if message.body["build_id"] == build_id]


def _verdict(messages: list[OutboxMessage]) -> str | None:
    last = [message.body["status"] for message in messages if SentMessage(message.topic, "").last]
    return last[-1] if last else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
