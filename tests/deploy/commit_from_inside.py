"""Pushes a commit in the lab of a directory and prints what the bus says of it, a line each, until its verdict.

    python commit_from_inside.py STATE [--curious]

A curious commit's tests look for what they should not see, on the side of the controller, and print it all.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from distgate.bus.queues import Subscription
from distgate.waiting import Deadline
from lab.dist_git.demo_package import PACKAGE_DIR, push_change
from lab.dist_git.repository import push
from lab.world import World

PREFIX = "org.centos.prod.ci.pipeline.allpackages."
SECONDS = 900.0
BRANCH = "f41"
#: First line of what a curious commit prints.
LOOKED = "LOOKED AROUND"
_LOOK = (
    "env; cat /proc/*/environ /etc/distgate/* /var/lib/distgate/prefect/*; ls -R /var/lib/distgate /run /etc/distgate"
)
_PLAY = f"""
- hosts: localhost
  gather_facts: false
  tags: [classic]
  tasks:
    - debug: {{msg: "{{{{ lookup('pipe', '(echo {LOOKED}; {_LOOK}) 2>&1; true') }}}}"}}
"""


def push_commit(world: World, curious: bool) -> str:
    """Push the demo package's next commit; its hash."""
    if not curious:
        return push_change(world.demo_repository, BRANCH)
    tests = (PACKAGE_DIR / "tests/tests.yml").read_text() + _PLAY
    return push(world.demo_repository, BRANCH, {"tests/tests.yml": tests}, "Look around")


def main() -> None:
    """Print the commit's hash, then a line for each message: its suffix and status, and the run's ID."""
    world, queue = World.load(Path(sys.argv[1])), f"test.{uuid.uuid4().hex[:8]}"
    with Subscription(world.amqp_url, world.exchange, [f"{PREFIX}#"], queue=queue) as bus:
        rev = push_commit(world, "--curious" in sys.argv)
        print(rev, flush=True)
        deadline = Deadline(SECONDS)
        while not deadline.passed:
            delivery = bus.receive(1)
            if delivery is None or delivery.body.get("rev") != rev:
                continue
            suffix = delivery.topic.removeprefix(PREFIX)
            print(f"{suffix} {delivery.body['status']} {delivery.body['build_id']}", flush=True)
            if suffix == "complete":
                return
    sys.exit("no verdict came")


if __name__ == "__main__":
    main()
