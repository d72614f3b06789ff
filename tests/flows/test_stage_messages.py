"""What ends up in the outbox, for each way in which a stage can end; on a real Prefect server."""

import sys
from pathlib import Path

import pytest

from distgate.ledger import Ledger
from distgate.process import run
from lab.prefect_server import PrefectServer

HERE = Path(__file__).parent
PACKAGE = ["package.queued SUCCESS", "package.running SUCCESS"]
BUILT = [*PACKAGE, "package.complete SUCCESS"]
TESTED = [*BUILT, "package.test.functional.queued SUCCESS", "package.test.functional.running SUCCESS"]

CASES: list[tuple[str, int, int, list[str]]] = [
    ("success", 0, 1, [*TESTED, "package.test.functional.complete SUCCESS", "complete SUCCESS"]),
    ("unstable", 0, 1, [*TESTED, "package.test.functional.complete UNSTABLE", "complete UNSTABLE"]),
    ("package", 1, 1, [*PACKAGE, "package.complete FAILURE", "complete FAILURE"]),
    ("cancelled", 1, 1, [*PACKAGE, "package.complete ABORTED", "complete ABORTED"]),
    ("infrastructure", 1, 3, [*PACKAGE, "package.complete FAILURE", "complete FAILURE"]),
    ("hiccup", 0, 3, [*TESTED, "package.test.functional.complete SUCCESS", "complete SUCCESS"]),
    ("bug", 1, 1, [*BUILT, "complete FAILURE"]),
]


def run_tiny(server: PrefectServer, word: str, scratch: Path) -> int:
    environment = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{scratch}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(scratch),
        "DISTGATE_RETRY_DELAYS": "[0, 0]",
    }
    ended = run(
        [sys.executable, HERE / "tiny_pipeline.py", word, str(scratch)],
        timeout=300,
        env=server.environment | environment,
        log_to=scratch / "flow.log",
        allowed=(0, 1),
    )
    return ended.returncode


@pytest.mark.lab
@pytest.mark.parametrize(("word", "status", "tries", "messages"), CASES, ids=[case[0] for case in CASES])
def test_a_run_says_what_happened_and_ends_with_complete(
    prefect_server: PrefectServer, tmp_path: Path, word: str, status: int, tries: int, messages: list[str]
) -> None:
    assert run_tiny(prefect_server, word, tmp_path) == status
    letters = Ledger(f"sqlite:///{tmp_path}/ledger.db").unsent()
    assert [f"{x.topic.split('allpackages.')[1]} {x.body['status']}" for x in letters] == messages
    assert len((tmp_path / "tries").read_text()) == tries
    assert {x.body["nvr"] for x in letters[3:-1]} <= {"tiny-1-1.fc41"}


@pytest.mark.lab
def test_a_second_run_for_the_same_change_does_nothing(prefect_server: PrefectServer, tmp_path: Path) -> None:
    assert [run_tiny(prefect_server, "success", tmp_path) for _ in range(2)] == [0, 0]
    assert len((tmp_path / "tries").read_text()) == 1
    assert len(Ledger(f"sqlite:///{tmp_path}/ledger.db").unsent()) == 7
