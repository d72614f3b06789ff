"""A process that holds something for us holds it for as long as we want it, and no longer than we live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distgate.process import ProcessFailed, ProcessTimedOut, background
from distgate.waiting import wait_for

HOLD = ["sh", "-c", 'echo "$$" > "$0"; echo noise; echo held; cat > /dev/null']


def gone(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def pid_in(file: Path) -> int:
    return int(wait_for("its process ID", lambda: file.exists() and file.read_text().strip(), 30))


def test_it_runs_while_the_body_does_and_ends_with_it(tmp_path: Path) -> None:
    with background([*HOLD, tmp_path / "pid"], ready_line="held", timeout=30):
        assert not gone(pid_in(tmp_path / "pid"))
    assert gone(pid_in(tmp_path / "pid"))


def test_what_does_not_end_by_itself_is_killed_with_its_group(tmp_path: Path) -> None:
    stubborn = ["sh", "-c", 'echo "$$" > "$0"; echo held; sleep 600', tmp_path / "pid"]
    with background(stubborn, ready_line="held", timeout=30):
        pass
    assert gone(pid_in(tmp_path / "pid"))


def test_one_that_ends_before_it_holds_is_an_error_with_its_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ProcessFailed) as failed,
        background(["sh", "-c", "echo taken >&2"], ready_line="held", timeout=30),
    ):
        pass
    assert failed.value.evidence == "taken\n"


def test_one_that_says_nothing_is_given_up() -> None:
    with (
        pytest.raises(ProcessTimedOut, match="'held' was not said"),
        background(["cat"], ready_line="held", timeout=0.3),
    ):
        pass


def test_a_line_that_only_contains_the_word_is_not_the_word() -> None:
    with pytest.raises(ProcessFailed), background(["echo", "not held yet"], ready_line="held", timeout=30):
        pass


def test_it_is_gone_when_whoever_wants_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from distgate.process import background\n"
        "with background(sys.argv[1:], ready_line='held', timeout=30):\n    time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, *HOLD, tmp_path / "pid"])
    try:
        holder = pid_in(tmp_path / "pid")
        os.kill(owner.pid, signal.SIGKILL)
        wait_for("the end of what it held", lambda: gone(holder), 30)
    finally:
        owner.kill()
        owner.wait()
