"""A run of Atomic Host is killed and leaves its tree at the head: the flow that looks every hour takes it back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import tiny_trees
from tiny_trees import REF, Packages, summary_of

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.ledger.ledger import Ledger
from distgate.process import run
from distgate.settings import Settings
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import Broker
from lab.world import PROJECT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root"),
]
CHANGE = Change(namespace="rpms", repo="tool", rev="ab" * 20, branch="f41", username="jane")
#: Saves the block of the site, and looks once.
LOOK = """
import sys
from blocks import OSTreeRepo
from flows.reconciler import reconciler

site, root, treefile = sys.argv[1:]
OSTreeRepo(root=root, treefiles={"*": treefile}).save(site, overwrite=True)
print("said:", reconciler(return_state=True).message)
"""


def test_a_tree_whose_run_was_killed_is_taken_back_by_the_hourly_reconciler(
    tmp_path: Path, prefect_server: PrefectServer, broker: Broker
) -> None:
    (tmp_path / "packages").mkdir()
    packages = Packages.built(tmp_path / "packages")
    root, run_id = tmp_path / "trees", str(uuid.uuid4())
    root.mkdir()
    trees, good = packages.branch(root / "f41")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.claim(CHANGE, run_id, "http://ui/run", pipeline="atomic")

    words = [root / "f41", packages.top, "tool-3.0", "summary: ", f"run {run_id}, {CHANGE.title}"]
    killed = subprocess.run(
        [sys.executable, tiny_trees.__file__, *words],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=240,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    left = trees.head()
    assert left not in (None, good.rev)

    site = f"trees-{uuid.uuid4().hex[:8]}"

    def look() -> str:
        own = {
            "DISTGATE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
            "DISTGATE_SITE": site,
            "DISTGATE_RUN_LEASE": "3600",
            "DISTGATE_AMQP_URL": broker.url,
            "DISTGATE_QUEUE": site,
            "PYTHONPATH": str(PROJECT),
        }
        argv = [sys.executable, "-c", LOOK, site, root, root / "f41-treefile/tree.yaml"]
        return run(argv, timeout=240, env=prefect_server.environment | own, cwd=tmp_path).output

    assert "said: nothing was to be mended" in look(), "the run may still be alive, or be retried"
    assert trees.head() == left
    Announcer(ledger, Settings()).close(run_id, "ABORTED")  # as the reconciler does when a run's lease is over
    said = look()
    assert f"f41: tree {str(left)[:12]} was never accepted, and its run {run_id}, tool f41 abababa has ended" in said
    assert "said: 1 things were mended" in said
    assert (trees.head(), summary_of(trees.published)) == (good.rev, {REF: good.rev})
    assert "said: nothing was to be mended" in look()
