"""A stage that works until the run's page shows it, and one that is done before: run by test_live_logs."""

import os
import sys
from pathlib import Path
from threading import Thread

from prefect import flow, runtime, task

from distgate.changes.change import Change
from distgate.runs.directory import RunDirectory
from distgate.waiting import wait_for
from lab.run_page import latest_artifact
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs

CHANGE = Change(namespace="rpms", repo="tiny", rev="ef" * 20, branch="f41")


def on_the_page(key: str, *words: str) -> bool:
    shown = latest_artifact(os.environ["PREFECT_API_URL"], str(runtime.flow_run.id), key)
    return all(word in shown for word in words)


@task
def boot_slowly(job: Job) -> None:
    room = job.run_dir.stage("slow")
    with LiveLogs(job, "slow", "What it does", room) as live:
        thread = Thread(target=live, args=("it began",))  # as nodes of a cluster boot
        thread.start()
        thread.join()
        console = room / "console.log"
        console.write_text("a guest boots\n")
        wait_for("the page to show the console", lambda: on_the_page("slow", "a guest boots"), 120)
        console.write_text("a guest boots\nand answers\n")
        wait_for("the page to follow", lambda: on_the_page("slow", "it began\n... at work", "and answers"), 120)
        live("it ended")


@task
def boot_at_once(job: Job) -> None:
    with LiveLogs(job, "quick", "What it does", job.run_dir.stage("quick")) as live:
        live("it began and ended")


@flow
def shown(room: Path) -> None:
    job = Job(str(runtime.flow_run.id), 1, CHANGE, "lab", RunDirectory(room))
    LiveLogs.EVERY = 0.2
    boot_slowly(job)
    LiveLogs.EVERY = 600.0
    boot_at_once(job)
    (room / "run-id").write_text(job.run_id)


if __name__ == "__main__":
    shown(Path(sys.argv[1]))
