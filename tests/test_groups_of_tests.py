"""Tests that share what is dear to start run in one process: pytest and pytest-xdist have to agree on groups."""

from __future__ import annotations

import sys
from pathlib import Path

from distgate.process import run

GROUPED = """\
import pathlib
import pytest

@pytest.mark.xdist_group("shared")
@pytest.mark.parametrize("number", range(20))
def test_it(number, worker_id):
    (pathlib.Path(__file__).parent / f"{number}.worker").write_text(worker_id)
"""


def test_the_tests_of_a_group_run_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run([sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", tmp_path], cwd=tmp_path, timeout=300)
    workers = [path.read_text() for path in tmp_path.glob("*.worker")]
    assert (len(workers), len(set(workers))) == (20, 1)
