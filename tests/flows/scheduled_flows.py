"""Runs each flow that a site has by the clock, in a site of its own: started by test_scheduled_flows."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks import DistGit, GuestMachine, ImageFactory, ImageStore
from flows.base_images import base_images
from flows.clean_up import clean_up
from flows.reconciler import reconciler
from flows.retest_rawhide import retest_rawhide
from flows.worker_health import worker_health

SITE = "tiny"
WISH = {"has_tests": True, "changed_since": datetime(2000, 1, 1, tzinfo=UTC), "window_minutes": 60}


def save_blocks(room: Path, dist_git: str) -> None:
    DistGit(url=dist_git).save(SITE, overwrite=True)
    GuestMachine(state=str(room / "guests")).save(SITE, overwrite=True)
    ImageFactory().save(SITE, overwrite=True)
    ImageStore(root=str(room / "images")).save(SITE, overwrite=True)


def main(room: Path, dist_git: str, names: str) -> None:
    save_blocks(room, dist_git)
    asked: dict[str, Callable[[], Any]] = {
        "retest": lambda: retest_rawhide(WISH, dry_run=True, names_file=names, site=SITE, return_state=True),
        "clean-up dry": lambda: clean_up(dry_run=True, site=SITE, return_state=True),
        "clean-up": lambda: clean_up(site=SITE, return_state=True),
        "base-images": lambda: base_images(site=SITE, return_state=True),
        "worker-health": lambda: worker_health("tiny", return_state=True),
        "reconciler": lambda: reconciler(return_state=True),
    }
    said: dict[str, Any] = {}
    for name, flow in asked.items():
        state = flow()
        said[name] = {"state": state.name, "message": state.message or ""}
        if name == "retest":
            said[name]["rows"] = state.result()
    (room / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
