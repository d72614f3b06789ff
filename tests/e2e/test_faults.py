"""Killed in the middle of a run: nothing is lost, nothing stays behind, and the run can be completed."""

import signal

import pytest
from commits import ALL, PACKAGE, SMOKE, engines, guests, kill, push, push_slow, status_of

from distgate.builds.koji import KojiClient, KojiProfile
from distgate.ledger.ledger import Ledger
from distgate.waiting import wait_for
from lab.servers import supervisor
from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]
ENDS = ("image__test__smoke__complete", "complete")
TO_SMOKE = ALL[: ALL.index("image.test.smoke.complete")]


def test_relay_and_broker_may_be_killed_and_no_message_is_lost_or_out_of_order(lab: World) -> None:
    commit = push(lab, "tests")
    commit.until("package.running")
    supervisor.kill(lab.state, "relay", signal.SIGKILL)
    commit.until("image.test.smoke.running")
    supervisor.kill(lab.state, "rabbitmq", signal.SIGKILL)
    commit.until("complete")
    assert commit.said == status_of(ALL, package__test__functional__complete="UNSTABLE", complete="UNSTABLE")
    assert commit.ended().state_name == "Unstable"
    wait_for("every message to be confirmed", lambda: not Ledger(lab.ledger_url).unsent(), 60)


def test_a_killed_run_is_aborted_its_guest_is_gone_and_a_retry_completes_it(lab: World) -> None:
    commit = push(lab)
    commit.until("image.test.smoke.running")
    wait_for("the guest to run", lambda: guests(lab) or None, 60)
    kill(engines(lab))
    wait_for("the guest to be gone", lambda: not guests(lab), 30)
    commit.until("complete")
    aborted = status_of(TO_SMOKE) + status_of(
        ["image.test.smoke.complete", "complete"], **dict.fromkeys(ENDS, "ABORTED")
    )
    assert commit.said == aborted
    assert commit.ended().state_name == "Crashed"
    built = sorted(commit.room().glob("build/*.rpm"), key=lambda path: path.stat().st_mtime_ns)[0].stat().st_mtime_ns

    commit.retry()
    commit.until("complete")
    assert commit.said == aborted + status_of(ALL)
    assert [body["build_id"] for body in commit.bodies[len(aborted) :]] == [f"{commit.bodies[0]['build_id']}.2"] * 13
    rpms = sorted(commit.room().glob("build/*.rpm"), key=lambda path: path.stat().st_mtime_ns)
    assert rpms[0].stat().st_mtime_ns == built  # resumed at the smoke test: nothing was built again
    assert commit.ended().run_count == 2


def test_a_run_whose_worker_died_with_it_is_ended_by_the_reconciler(lab: World) -> None:
    commit = push(lab, "compose")
    commit.until("package.running")
    supervisor.kill(lab.state, "prefect-worker", signal.SIGKILL)
    kill(engines(lab))
    commit.until("complete")
    assert commit.said == status_of([*PACKAGE, "complete"], package__complete="ABORTED", complete="ABORTED")
    assert "no heartbeat" in (lab.state / "logs/reconciler.log").read_text()
    assert commit.ended().state_name == "Crashed"
    commit.retry()
    commit.until("complete")
    assert commit.said[-2:] == ["image.complete FAILURE", "complete FAILURE"]


def test_a_run_goes_on_when_only_its_worker_is_killed(lab: World) -> None:
    commit = push(lab, "smoke")
    commit.until("package.running")
    supervisor.kill(lab.state, "prefect-worker", signal.SIGKILL)
    commit.until("complete")
    assert commit.said == status_of([*TO_SMOKE, *SMOKE[2:], "complete"], **dict.fromkeys(ENDS, "FAILURE"))
    supervisor.wait_healthy(lab.state, ["prefect-worker"], supervisor.Deadline(60))


def test_a_lost_koji_task_is_replaced_and_a_cancelled_run_takes_its_build_along(lab: World) -> None:
    hub = KojiClient(KojiProfile(server=lab.koji_hub_url, topurl=lab.koji_topurl))
    commit = push_slow(lab)
    commit.until("package.running")
    first = wait_for("a Koji task", lambda: commit.koji_task() or None, 60)
    supervisor.kill(lab.state, "koji-hub", signal.SIGKILL)
    second = wait_for("another Koji task", lambda: max(0, commit.koji_task() - first) or None, 120) + first
    commit.cancel()
    commit.until("complete")
    assert commit.said == status_of([*PACKAGE, "complete"], package__complete="ABORTED", complete="ABORTED")
    wait_for("the build to be cancelled", lambda: hub.tree(second).state == "CANCELED", 60)
    assert commit.ended().state_name == "Cancelled"
