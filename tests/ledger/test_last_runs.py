"""What the ledger tells of a branch's packages and their last runs."""

from __future__ import annotations

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.ledger.last_runs import known_packages, last_runs
from distgate.ledger.ledger import Ledger
from distgate.settings import Settings


def change(repo: str, digit: str, branch: str = "rawhide", namespace: str = "rpms") -> Change:
    return Change(namespace=namespace, repo=repo, rev=digit * 40, branch=branch, username="jane")


def test_the_latest_run_of_each_package_counts_whatever_rawhide_was_called(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    announcer = Announcer(ledger, Settings())
    for run, one in enumerate(
        [change("bash", "a", "master"), change("bash", "b"), change("bash", "c", "f41"), change("zsh", "d")]
    ):
        ledger.claim(one, f"run-{run}", "http://x")
        if one.repo == "bash":
            announcer.close(f"run-{run}", "FAILURE")
    ledger.claim(change("elsewhere", "e", namespace="tests"), "run-t", "http://x")
    found = last_runs(ledger, "rpms", "rawhide")
    assert {repo: (one.rev[0], one.status, one.at is None) for repo, one in found.items()} == {
        "bash": ("b", "FAILURE", False),
        "zsh": ("d", "SUCCESS", True),
    }
    assert last_runs(ledger, "rpms", "f41")["bash"].rev == "c" * 40
    assert last_runs(ledger, "rpms", "rawhide", "atomic") == {}
    assert known_packages(ledger, "rpms") == {"bash", "zsh"}
