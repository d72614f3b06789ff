"""What steps took, and how it is told."""

from __future__ import annotations

import pytest

from distgate.steps import Step, Steps, share_lines, share_sentence


def test_every_step_is_told_as_it_begins_and_ends_and_is_kept_even_when_it_fails() -> None:
    said: list[str] = []
    steps = Steps(said.append)
    with steps.step("mount"):
        pass
    with pytest.raises(OSError, match="broken"), steps.step("solve"):
        raise OSError("broken")
    assert [step.name for step in steps.taken] == ["mount", "solve"]
    assert [line.split(":")[0] for line in said] == ["mount ...", "mount", "solve ...", "solve"]


TAKEN = (Step("mount", 1.0), Step("transaction", 2.5), Step("unmount", 0.5))


def test_shares_are_of_the_whole() -> None:
    assert share_lines(TAKEN) == [
        "mount           1.0 s  25 %",
        "transaction     2.5 s  62 %",
        "unmount         0.5 s  12 %",
    ]
    assert share_sentence(TAKEN, most=2) == "4.0 s: transaction 62 %, mount 25 %"


def test_no_steps_are_no_time() -> None:
    assert share_lines(()) == []
    assert share_sentence((Step("nothing", 0.0),)) == "0.0 s: nothing 0 %"
