"""The package stage alone: run by test_package_stage in a process of its own, with blocks for the given servers."""

import json
import sys
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks import DistGit, KojiInstance
from distgate.changes.change import Change
from distgate.pipelines import Pipeline
from lab.dist_git.lookaside import lookaside_address
from tasks.build import build_package
from tasks.claim import claim_change
from tasks.run.stage import end_of_run

SITE = "package-stage"


@flow(name="package-stage", on_completion=[end_of_run], on_failure=[end_of_run])
def package_stage(rev: str, pipeline: Pipeline, koji_task: int | None) -> State[Any]:
    change = Change(namespace="rpms", repo="tiny", rev=rev, branch="f41", username="jane")
    job = claim_change(change, SITE, False, pipeline=pipeline, koji_task=koji_task)
    assert job is not None
    built = build_package(job)
    print(json.dumps([built.nvr, built.original_nvr, built.unit_tests.status]))
    return Completed()


if __name__ == "__main__":
    _, rev, pipeline, dist_git, hub, *koji_task = sys.argv
    address = f"{dist_git}/{{namespace}}/{{repo}}.git"
    DistGit(url=address, lookaside=lookaside_address(dist_git)).save(SITE, overwrite=True)
    KojiInstance(
        server=f"{hub}/kojihub", topurl=f"{hub}/kojifiles", auth="password", user="koji", password="koji"
    ).save(SITE, overwrite=True)
    package_stage(rev, cast("Pipeline", pipeline), int(koji_task[0]) if koji_task else None)
