"""What a channel still has to be told: every letter once, in the order of each run, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.files import RUN_RECORD
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.reports import outbox as report_outbox
from distgate.reports.outbox import Due, ReportOutbox, channel_states
from distgate.runs.record import RunRecordFile, VerdictRecord
from distgate.settings import Settings

CHANGE = Change(namespace="rpms", repo="bash", rev="ab" * 20, branch="f41", username="jane")
STAGES = [("package", "queued"), ("package", "running"), ("package", "complete")]


def write(ledger: Ledger, run: str, status: str = "SUCCESS", *, change: Change = CHANGE, **facts: str) -> None:
    """A run with all its messages."""
    announcer = Announcer(ledger, Settings())
    ledger.claim(change, run, f"http://ui/{run}", again=True)
    for suffix, state in STAGES:
        announcer.stage(run, suffix, state)
    ledger.record_facts(run, RunFacts.model_validate(facts))
    announcer.close(run, status)  # type: ignore[arg-type]


def names(work: list[Due]) -> list[str]:
    return [f"{due.run_id} {due.message.topic.rpartition('allpackages.')[2]}" for due in work]


def settle(outbox: ReportOutbox) -> list[str]:
    """Deliver what is due until nothing is."""
    told = []
    while work := outbox.due():
        for due in work:
            outbox.trying(due)
            outbox.done(due, delivered=True)
            told += names([due])
    return told


def test_a_channel_begins_with_what_is_written_after_it_was_switched_on(ledger: Ledger) -> None:
    write(ledger, "old")
    outbox = ReportOutbox(ledger, "matrix")
    assert outbox.due() == []
    write(ledger, "new")
    assert {name.split()[0] for name in settle(outbox)} == {"new"}
    assert settle(ReportOutbox(ledger, "matrix")) == []


def test_a_channel_is_told_each_letter_once_in_the_order_of_its_run(ledger: Ledger) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    write(ledger, "b")
    assert names(outbox.due()) == ["a package.queued", "b package.queued"]
    told = settle(outbox)
    for run in "ab":
        ours = [name.split()[1] for name in told if name.startswith(run)]
        assert ours == ["package.queued", "package.running", "package.complete", "complete"]


def test_letters_count_whether_the_broker_has_them_or_not(ledger: Ledger) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    assert ledger.counts()["sent"] == 0
    assert len(settle(outbox)) == len(STAGES) + 1


def test_a_letter_that_waits_holds_up_its_run_and_no_other(ledger: Ledger) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    write(ledger, "b")
    first = outbox.due()[0]
    outbox.trying(first)
    outbox.failed(first, "503")
    assert {name.split()[0] for name in settle(outbox)} == {"b"}
    (state,) = channel_states(ledger)
    assert (state.pending, state.refused) == (len(STAGES) + 1, ())


def test_a_try_that_ended_in_the_dark_is_marked_as_repeated(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_outbox, "PAUSES", (0,))
    write_later = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    (due,) = write_later.due()
    notice = write_later.notice(due)
    assert notice is not None
    assert not notice.repeated
    write_later.trying(due)
    outbox = ReportOutbox(ledger, "matrix")  # the process was killed; this is the next one
    (due,) = outbox.due()
    notice = outbox.notice(due)
    assert notice is not None
    assert notice.repeated


def test_what_was_refused_is_kept_with_its_words_and_can_be_put_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    (due,) = outbox.due()
    outbox.trying(due)
    outbox.refused(due, "400 your text is too long")
    assert len(settle(outbox)) == len(STAGES)
    monkeypatch.setattr(report_outbox, "LATE_SECONDS", -1)
    outbox.tidy()
    (state,) = channel_states(ledger)
    assert (state.pending, state.delivered) == (0, len(STAGES))
    assert [(one.build_id, one.error) for one in state.refused] == [("a", "400 your text is too long")]
    assert outbox.again() == 1
    assert names(outbox.due()) == ["a package.queued"]
    assert settle(outbox) == ["a package.queued"], "what lies between was told already"
    assert outbox.again() == 0


def test_what_is_settled_is_forgotten_and_not_told_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_outbox, "LATE_SECONDS", -1)
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    settle(outbox)
    outbox.tidy()
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM reports").scalar_one() == 0
    assert outbox.due() == []
    assert channel_states(ledger)[0].delivered == len(STAGES) + 1


def test_two_channels_know_nothing_of_each_other(ledger: Ledger) -> None:
    one, other = ReportOutbox(ledger, "matrix"), ReportOutbox(ledger, "mail")
    write(ledger, "a")
    assert settle(one) == settle(other) != []


def test_a_message_that_is_of_no_run_is_nobodys_notice(ledger: Ledger) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    Announcer(ledger, Settings()).ignored(CHANGE)
    (due,) = outbox.due()
    assert outbox.notice(due) is None


# the verdicts before, oldest first, and the colour that the next notice tells of them
VERDICTS: list[tuple[list[tuple[str, str]], str | None]] = [
    ([], None),
    ([("SUCCESS", "")], "green"),
    ([("SUCCESS", ""), ("UNSTABLE", "package")], "red"),
    ([("FAILURE", "package"), ("SUCCESS", "")], "green"),
    ([("FAILURE", "package"), ("ABORTED", "")], "red"),
    ([("SUCCESS", ""), ("FAILURE", "infrastructure")], "green"),
    ([("ABORTED", "")], None),
]


@pytest.mark.parametrize(("verdicts", "colour"), VERDICTS, ids=str)
def test_a_verdict_knows_the_one_before_it(
    verdicts: list[tuple[str, str]], colour: str | None, ledger: Ledger
) -> None:
    for number, (status, blame) in enumerate(verdicts):
        change = CHANGE.model_copy(update={"rev": f"{number:040x}"})
        write(ledger, f"run-{number}", status, change=change, blame=blame, sentence="so it is")
    for branch in ("f41", "f42"):
        other = CHANGE.model_copy(update={"repo": "bash2" if branch == "f41" else "bash", "branch": branch})
        write(ledger, f"other-{branch}", "FAILURE" if colour == "green" else "SUCCESS", change=other)
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "now", "FAILURE", blame="package", sentence="bash f41: it does not build")
    for _ in STAGES:
        (due,) = outbox.due()
        outbox.trying(due)
        outbox.done(due, delivered=False)
    (due,) = outbox.due()
    notice = outbox.notice(due)
    assert notice is not None
    assert (notice.last, notice.before) == (True, colour)
    assert (notice.blame, notice.sentence) == ("package", "bash f41: it does not build")


def test_the_capsule_says_who_is_to_blame_when_the_ledger_does_not(ledger: Ledger, tmp_path: Path) -> None:
    outbox = ReportOutbox(ledger, "matrix", tmp_path)
    record = RunRecordFile(tmp_path / "a" / RUN_RECORD)
    record.begin("a", "a", "lab", CHANGE)
    record.update(verdict=VerdictRecord(status="FAILURE", sentence="the hub is away", blame="infrastructure"))
    write(ledger, "a", "FAILURE")
    *_, last = ledger.messages_of("a")
    notice = outbox.notice(Due(last, "a", 0))
    assert notice is not None
    assert (notice.blame, notice.sentence) == ("infrastructure", "the hub is away")
    elsewhere = ReportOutbox(ledger, "matrix", tmp_path / "another-host").notice(Due(last, "a", 0))
    assert elsewhere is not None
    assert elsewhere.headline == "bash f41 abababa: FAILURE"


def test_a_run_that_lost_its_change_to_a_rerun_is_no_more_the_current_one(ledger: Ledger) -> None:
    outbox = ReportOutbox(ledger, "matrix")
    write(ledger, "a")
    write(ledger, "b")
    found = {due.run_id: outbox.notice(due) for due in outbox.due()}
    assert {run: notice and notice.current for run, notice in found.items()} == {"a": False, "b": True}
