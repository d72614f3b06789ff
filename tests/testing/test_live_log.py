"""Which log is shown of work that is under way, and how much of it."""

from __future__ import annotations

import os
from pathlib import Path

from distgate.testing.live_log import MOST_LINES, newest_log, tail_text


def write(path: Path, text: str, at: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(at, at))
    return path


def test_the_log_that_was_written_to_last_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "guest/console.log", "booting", 1)
    write(tmp_path / "other.log", "nobody's", 9)
    write(tmp_path / "tests/artifacts/tmt.txt", "", 8)
    said = write(tmp_path / "tests/artifacts/ansible.txt", "TASK [Run]", 5)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/console.log").symlink_to("/proc/self/status")
    found = newest_log(tmp_path)
    assert found
    assert found.path == said


def test_a_directory_without_logs_shows_none(tmp_path: Path) -> None:
    assert newest_log(tmp_path) is None
    assert newest_log(tmp_path / "not there yet") is None


def test_the_end_of_a_log_is_shown_as_text(tmp_path: Path) -> None:
    lines = [f"line {number}\x1b[0m\r\n\n" for number in range(99)]
    write(tmp_path / "guest/console.log", "".join(lines), 1)
    found = newest_log(tmp_path)
    assert found
    head, *shown = tail_text(found, tmp_path).splitlines()
    assert head == f"guest/console.log, {found.size / 1000:.1f} kB:"
    assert shown == [f"line {number}" for number in range(99 - MOST_LINES, 99)]
