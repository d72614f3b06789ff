"""A clean-up finds the results where the runs of its worker keep them, whichever block names the place."""

from __future__ import annotations

import json
import re
import sys
import uuid

from object_store import running_object_store

from distgate.process import run
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

#: A block, and a run that keeps a result in it.
KEEP = """
import sys
from prefect import flow, task
from prefect.filesystems import RemoteFileSystem

@task(persist_result=True, cache_key_fn=lambda context, _: f"{context.task_run.flow_run_id}-Build package")
def build():
    return "built"

@flow
def pipeline():
    build()

name, url, options = sys.argv[1:]
if url:
    RemoteFileSystem(basepath=url, settings=__import__("json").loads(options)).save(name)
else:
    pipeline()
"""
LOOK = (
    "from tasks.operations.clean_up import result_storage; "
    "print(*(item.name for item in result_storage().results()), sep='|')"
)


def test_results_in_an_object_store_are_found_by_the_block_that_names_it(prefect_server: PrefectServer) -> None:
    name = f"results-{uuid.uuid4().hex[:8]}"
    with running_object_store() as store:
        own = prefect_server.environment | {
            "PYTHONPATH": str(PROJECT),
            "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": f"remote-file-system/{name}",
        }
        place = f"{store.bucket()}/results"
        run([sys.executable, "-c", KEEP, name, place, json.dumps(store.options)], timeout=120, env=own)
        run([sys.executable, "-c", KEEP, name, "", ""], timeout=120, env=own)
        said = run([sys.executable, "-c", LOOK], timeout=120, env=own, cwd=PROJECT, split_errors=True).output
    found = said.strip().split("|")
    (of_the_stage,) = (name for name in found if name.endswith("-Build package"))
    assert uuid.UUID(of_the_stage.removesuffix("-Build package"))
    # What the flow itself returned is kept, too, under a name that tells nothing of its run.
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in found if name != of_the_stage)
