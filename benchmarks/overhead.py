"""What the pipeline costs beyond Prefect: a run with idle drivers beside a bare flow of as many tasks.

Everything is real (claim, ledger on SQLite, hooks, run record, results, artifacts, a Prefect server), but for
what the drivers do: the block documents of the site ``idle`` name classes that stand in for our blocks and open
drivers that do nothing (benchmarks.idle); the edit of the kickstart counts as a driver's work. Of programs, rpm and
createrepo_c look at one small package. Each run is a new process, started as Prefect's worker starts it, the two
kinds in turn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.cost import Cost, measured
from benchmarks.idle.places import SITE
from distgate.changes.change import Change
from distgate.errors import InfrastructureError
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.process import run
from distgate.rpm.nevra import QUERY
from distgate.waiting import Deadline, wait_for
from lab import teardown
from lab.servers import prefect_server, supervisor
from lab.servers.prefect_server import PrefectServer
from lab.servers.service import save_service
from lab.world import PROJECT

ROUNDS = 7
#: Looks at what an import costs, and events that are timed to the first stage; of each kind.
IMPORTS, EVENTS = 5, 3
START_SECONDS, RUN_SECONDS = 240.0, 300.0
OURS, THEIRS = "all-packages/idle", "bare/idle"
MODULES = ("prefect", "flows.all_packages", "flows.atomic_host")
#: The task that each kind is timed to: a run of ours has claimed its change by then.
FIRST = {OURS: "Build package", THEIRS: "first"}
EVENT = {OURS: "distgate.idle.pipeline", THEIRS: "distgate.idle.bare"}
#: What a run of the pipeline must have ended with for its cost to count.
PASSED = "its tests passed: 1 in 1 suite"
_SPEC = """\
Name: idle
Version: 1
Release: 1
Summary: Nothing
License: MIT
BuildArch: noarch
%description
Nothing.
%files
"""


@dataclass(frozen=True)
class IdleSite:
    """A Prefect server with both deployments and no worker, and what a run of either kind has in its environment."""

    state: Path
    server: PrefectServer
    environment: Mapping[str, str]


def measure(progress: Callable[[str], None]) -> dict[str, Any]:
    """ROUNDS of both, in turn; medians of the rounds' ratios. See benchmarks/README.md for what they mean."""
    report = {"benchmark": "overhead", "import_seconds": _imports()}
    with tempfile.TemporaryDirectory(prefix="distgate-bench-") as scratch:
        progress("starting a Prefect server")
        with _idle_site(Path(scratch).resolve()) as site, PrefectApi(site.server.api_url) as prefect:
            report |= _rounds(site, prefect, progress)
            report |= _events(site, prefect, progress)
    return report


def _imports() -> dict[str, dict[str, float]]:
    """Seconds until a new Python has imported each module, and of CPU."""
    costs: dict[str, list[Cost]] = {module: [] for module in MODULES}
    for _ in range(IMPORTS):
        for module, spent in costs.items():
            with measured() as cost:
                run([sys.executable, "-c", f"import {module}"], timeout=RUN_SECONDS)
            spent.append(cost)
    return {module: _medians(spent) for module, spent in costs.items()}


# -- one run after another, each in a process as a worker would start it ---------------------------------------------


def _rounds(site: IdleSite, prefect: PrefectApi, progress: Callable[[str], None]) -> dict[str, Any]:
    costs: dict[str, list[Cost]] = {OURS: [], THEIRS: []}
    for kind in costs:  # what is done once, such as the tables of the ledger
        _one_run(site, prefect, kind)
    for number in range(1, ROUNDS + 1):
        for kind, spent in costs.items():
            spent.append(_one_run(site, prefect, kind))
        pipeline, bare = costs[OURS][-1], costs[THEIRS][-1]
        progress(
            f"round {number}: pipeline {pipeline.wall:.2f} s, CPU {pipeline.cpu:.2f}; "
            f"bare flow {bare.wall:.2f} s, CPU {bare.cpu:.2f}"
        )
    pairs = list(zip(costs[OURS], costs[THEIRS], strict=True))
    return {
        "rounds": {kind: [[cost.wall, cost.cpu] for cost in spent] for kind, spent in costs.items()},
        "seconds": {"pipeline": _medians(costs[OURS]), "prefect": _medians(costs[THEIRS])},
        "pipeline_over_prefect_wall": round(median(pipeline.wall / bare.wall for pipeline, bare in pairs), 2),
        "pipeline_over_prefect_cpu": round(median(pipeline.cpu / bare.cpu for pipeline, bare in pairs), 2),
    }


def _one_run(site: IdleSite, prefect: PrefectApi, kind: str) -> Cost:
    """What one run costs. Raises InfrastructureError when it did not do what it should."""
    flow_run = prefect.create_flow_run(kind, {"change": _change()}, idempotency_key=uuid4().hex)
    # As prefect.runner's EngineCommandStarter has it.
    engine = {"PREFECT__FLOW_RUN_ID": flow_run.id, "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false"}
    log = site.state / f"{flow_run.id}.log"
    with measured() as cost:
        argv = [sys.executable, "-m", "prefect.engine"]
        run(argv, timeout=RUN_SECONDS, env={**site.environment, **engine}, cwd=site.state, log_to=log)
    _check(prefect, kind, flow_run.id, log)
    return cost


def _check(prefect: PrefectApi, kind: str, run_id: str, log: Path) -> None:
    ended = prefect.flow_run(run_id)
    if ended is None or ended.state_name != "Completed":
        raise InfrastructureError(f"a run of {kind} did not complete", evidence=log.read_text()[-4000:])
    if kind == OURS and PASSED not in log.read_text():
        raise InfrastructureError("a run of the pipeline left stages out", evidence=log.read_text()[-4000:])


# -- from the event to the first stage, through automation and worker ------------------------------------------------


def _events(site: IdleSite, prefect: PrefectApi, progress: Callable[[str], None]) -> dict[str, Any]:
    worker = site.server.worker(site.environment, site.state)
    save_service(site.state, worker)
    supervisor.wait_healthy(site.state, [worker.name], Deadline(START_SECONDS))
    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for number in range(1, EVENTS + 1):
        for kind, took in seconds.items():
            took.append(_one_event(site, prefect, kind))
        progress(f"event {number}: pipeline {seconds[OURS][-1]:.1f} s, bare flow {seconds[THEIRS][-1]:.1f} s")
    return {
        "event_to_first_stage_seconds": round(median(seconds[OURS]), 2),
        "event_to_first_task_of_prefect_seconds": round(median(seconds[THEIRS]), 2),
    }


def _one_event(site: IdleSite, prefect: PrefectApi, kind: str) -> float:
    earlier = {flow_run.id for flow_run in prefect.flow_runs(deployment=kind)}
    resource = {"prefect.resource.id": f"distgate.idle.{uuid4().hex}"}
    began = time.time()
    prefect.post_event({"event": EVENT[kind], "resource": resource, "payload": {"change": _change()}})
    ended = wait_for(f"a run of {kind}", lambda: _ended(prefect, kind, earlier), RUN_SECONDS, interval=0.5)
    started = wait_for(
        f"the record of the task {FIRST[kind]}",
        lambda: _started(site.server.api_url, ended.id, FIRST[kind]),
        RUN_SECONDS,
        interval=0.5,
    )
    return started - began


def _ended(prefect: PrefectApi, kind: str, earlier: set[str]) -> FlowRun | None:
    """The new run of ``kind``, once it has ended: the next event is not to find a busy machine."""
    return next(
        (
            flow_run
            for flow_run in prefect.flow_runs(deployment=kind)
            if flow_run.id not in earlier and flow_run.finished
        ),
        None,
    )


def _started(api_url: str, run_id: str, name: str) -> float | None:
    query = {"flow_runs": {"id": {"any_": [run_id]}}}
    answer = httpx.post(f"{api_url}/task_runs/filter", json=query, timeout=60, trust_env=False)
    tasks = answer.raise_for_status().json()
    starts = (task["start_time"] for task in tasks if task["name"].startswith(name) and task["start_time"])
    return next((datetime.fromisoformat(time).timestamp() for time in starts), None)


# -- the site ------------------------------------------------------------------------------------------------------


@contextmanager
def _idle_site(state: Path) -> Iterator[IdleSite]:
    server = prefect_server.prepare(state / "prefect")
    settings = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{state}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(state / "artifacts"),
        "DISTGATE_ARTIFACTS_URL": "http://artifacts.example",
        "DISTGATE_SITE": SITE,
        "DISTGATE_STAND_INS": '["benchmarks.idle.places"]',
        "PYTHONPATH": str(PROJECT),
    }
    environment = {**server.environment, **settings}
    try:
        save_service(state, server.server())
        supervisor.start_supervisor(state)
        supervisor.wait_healthy(state, [prefect_server.SERVER], Deadline(START_SECONDS))
        write_packages(state)
        run([sys.executable, "-m", "benchmarks.idle.places", state], timeout=RUN_SECONDS, env=environment)
        prefect_server.ensure_pool(server)
        prefect_server.deploy(server, PROJECT / "benchmarks/idle", environment)
        yield IdleSite(state, server, environment)
    finally:
        teardown.down(state, lambda _: None)


def write_packages(state: Path) -> None:
    """What benchmarks.idle.places needs below ``state``: ``packages``, a build of one package with its source, and
    ``installed``, what rpm says where that is."""
    spec, packages = state / "idle.spec", state / "packages"
    spec.write_text(_SPEC)
    defines = ["--define", f"_topdir {state}/rpmbuild", "--define", f"_rpmdir {packages}"]
    names = [
        "--define",
        f"_srcrpmdir {packages}",
        "--define",
        "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
    ]
    run(["rpmbuild", "-ba", "--quiet", *defines, *names, spec], timeout=RUN_SECONDS)
    binary = packages / "idle-1-1.noarch.rpm"
    listing = run(["rpm", "-qp", "--nosignature", "--qf", QUERY, binary], timeout=60, split_errors=True)
    (state / "installed").write_text(listing.output)


def _change() -> dict[str, str]:
    change = Change(namespace="rpms", repo="idle", rev=uuid4().hex + "0" * 8, branch="f44", username="idle")
    return change.model_dump()


def _medians(costs: list[Cost]) -> dict[str, float]:
    return {
        "wall": round(median(cost.wall for cost in costs), 2),
        "cpu": round(median(cost.cpu for cost in costs), 2),
    }
