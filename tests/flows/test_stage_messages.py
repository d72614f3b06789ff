"""What ends up in the outbox, for each way in which a stage can end; on a real Prefect server."""

import sys
import uuid
from pathlib import Path

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.ledger.ledger import Ledger
from distgate.prefect_api import PrefectApi
from distgate.process import run
from distgate.settings import Settings
from lab.servers.prefect_server import PrefectServer

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


def run_tiny(server: PrefectServer, word: str, scratch: Path, pipeline: str = "allpackages") -> int:
    environment = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{scratch}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(scratch),
        "DISTGATE_RETRY_DELAYS": "[0, 0]",
    }
    ended = run(
        [sys.executable, HERE / "tiny_pipeline.py", word, str(scratch), pipeline],
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


@pytest.mark.lab
def test_a_run_of_each_pipeline_for_one_change_works_and_speaks_for_itself(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    runs = [("success", "allpackages"), ("unstable", "atomic"), ("success", "atomic")]
    assert [run_tiny(prefect_server, word, tmp_path, pipeline) for word, pipeline in runs] == [0, 0, 0]
    assert len((tmp_path / "tries").read_text()) == 2
    letters = Ledger(f"sqlite:///{tmp_path}/ledger.db").unsent()
    said = [f"{x.topic.partition('.ci.pipeline.')[2]} {x.body['status']}" for x in letters]
    assert said[:7] == [f"allpackages.{line}" for line in CASES[0][3]]
    assert said[7:] == CASES[1][3]
    assert {x.body["ref"] for x in letters[7:]} == {"fedora/f41/x86_64/atomic-host"}
    with PrefectApi(prefect_server.api_url) as prefect:
        found = [prefect.flow_run(run_id) for run_id in dict.fromkeys(x.body["build_id"] for x in letters)]
    assert [one is not None and pipeline in one.tags for one, (_, pipeline) in zip(found, runs, strict=False)] == [
        True,
        True,
    ]


HOOK = """
import sys, uuid
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed
from distgate.pipelines import DUPLICATE
from flows.all_packages import all_packages
from tasks.run.stage import end_of_run
end_of_run(all_packages, FlowRun(id=uuid.UUID(sys.argv[1]), flow_id=uuid.uuid4()), Completed(name=DUPLICATE))
"""


def test_a_broken_off_run_whose_change_a_re_run_has_taken_never_says_that_it_passed(tmp_path: Path) -> None:
    url, run_id = f"sqlite:///{tmp_path}/ledger.db", str(uuid.uuid4())
    ledger = Ledger(url)
    change = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41")
    ledger.claim(change, run_id, "http://ui/run")
    Announcer(ledger, Settings()).stage(run_id, "package", "queued")
    ledger.claim(change, "another", "http://ui/another", again=True)
    assert ledger.claim(change, run_id, "http://ui/run") is None
    run([sys.executable, "-c", HOOK, run_id], timeout=120, env={"DISTGATE_LEDGER_URL": url})
    said = [f"{one.topic.split('allpackages.')[1]} {one.body['status']}" for one in ledger.unsent()]
    assert said == ["package.queued SUCCESS", "package.complete ABORTED", "complete ABORTED"]
