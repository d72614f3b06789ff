"""A console that is written without end stays small, and its end stays readable."""

from __future__ import annotations

from pathlib import Path

from distgate.bounded_logs import limited
from distgate.waiting import wait_for


def test_a_console_without_end_is_shortened_while_it_is_written(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    with limited(console, limit=100_000, remaining=1000, look=0.01), console.open("ab", buffering=0) as guest:
        guest.write(b"x" * 200_000 + b"the last words\n")
        wait_for("a short console", lambda: console.stat().st_size < 2000, 30)
        guest.write(b"and more\n")
    said = console.read_text()
    assert said.startswith("[distgate: 199015 bytes were dropped here]\n")
    assert said.endswith("the last words\nand more\n")


def test_a_short_console_is_left_as_it_is(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    with limited(console, limit=100, remaining=10, look=0.01):
        console.write_text("login:")
    assert console.read_text() == "login:"
