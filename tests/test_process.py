"""Processes: what is passed on to them, what comes back, and that none of them holds us up."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, PackageError
from distgate.process import ProcessFailed, ProcessTimedOut, run
from distgate.waiting import wait_for


def test_a_process_sees_nothing_of_our_environment_but_a_few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    seen = run(["env"], timeout=10, env={"OWN": "1"}).output
    assert "hunter2" not in seen
    assert "OWN=1" in seen
    assert "PATH=" in seen


def test_output_that_is_no_text_is_replaced_and_errors_can_be_had_apart() -> None:
    ended = run(["sh", "-c", r"printf 'a\377b'; echo bad >&2"], timeout=10, split_errors=True)
    assert (ended.output, ended.errors) == ("a\ufffdb", "bad\n")


def test_of_a_flood_only_the_beginning_is_kept() -> None:
    ended = run(
        ["sh", "-c", "yes | head -c 5000000; echo bad >&2"],
        timeout=60,
        split_errors=True,
        most=1000,
    )
    assert (len(ended.output), ended.errors) == (1000, "bad\n")


def test_a_flood_without_end_ends_at_the_deadline() -> None:
    with pytest.raises(ProcessTimedOut):
        run(["yes"], timeout=0.5, most=1000)


def test_a_status_that_is_not_allowed_raises_the_callers_class_with_the_output() -> None:
    assert run(["sh", "-c", "exit 3"], timeout=10, allowed=(0, 3)).returncode == 3
    with pytest.raises(ProcessFailed, match="sh ended with status 3: sh -c") as failed:
        run(["sh", "-c", "echo why; exit 3"], timeout=10)
    assert failed.value.evidence == "why\n"
    assert pickle.loads(pickle.dumps(failed.value)).evidence == "why\n"
    with pytest.raises(PackageError):
        run(["false"], timeout=10, error=PackageError)


@pytest.mark.parametrize(
    ("program", "cwd", "said"),
    [
        ("no-such-program", None, "cannot start no-such-program"),
        ("/etc/passwd", None, "cannot start /etc/passwd: Permission denied"),
        ("true", Path("/nonexistent"), "cannot start true in /nonexistent"),
    ],
)
def test_what_cannot_be_started_is_named(program: str, cwd: Path | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run([program], timeout=10, cwd=cwd)


def test_at_the_deadline_the_whole_group_is_killed_and_what_it_said_is_kept(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/pid; echo so far; wait"
    with pytest.raises(ProcessTimedOut, match=r"was killed after 0\.5 s") as late:
        run(["sh", "-c", script], timeout=0.5)
    assert late.value.evidence == "so far\n"
    wait_for("the end of its child", lambda: not _alive(int((tmp_path / "pid").read_text())), 10)


def test_a_descendant_that_left_the_group_and_holds_the_output_does_not_hold_us(tmp_path: Path) -> None:
    script = f"setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 1000' & echo so far; sleep 1000"
    with pytest.raises(ProcessTimedOut) as late:
        run(["sh", "-c", script], timeout=0.5)
    stray = int((tmp_path / "pid").read_text())
    assert _alive(stray)  # it still has the pipe, and we are back all the same
    assert late.value.evidence == "so far\n"
    os.kill(stray, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
