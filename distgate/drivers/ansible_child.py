"""The process that ansible-runner runs in: reads a specification, leaves ``outcome.json`` beside it.

Its environment is the suite's environment, which is why it is not the worker's (distgate.drivers.ansible).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ansible_runner

#: Events of ansible-runner that tell how one task went on one host.
_COUNTED = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_skipped": "skipped",
    "runner_on_unreachable": "unreachable",
}


def main(specification: Path) -> None:
    """Run what ``specification`` (JSON, the arguments of ansible_runner.run) describes."""
    tasks: Counter[str] = Counter()

    def count(event: dict[str, Any]) -> bool:
        word = _COUNTED.get(event["event"])
        if word:
            tasks[word] += 1
        return False  # no files of events: the log and the counters are enough

    spec = json.loads(specification.read_text())
    ended = ansible_runner.run(
        **spec,
        event_handler=count,
        quiet=False,
        # The default, a file per host, breaks on host names with a slash.
        fact_cache_type="memory",
        # How often, in seconds, the deadline is looked at.
        settings={"pexpect_timeout": 1},
    )
    outcome = {"returncode": ended.rc, "timed_out": ended.status == "timeout", "tasks": tasks}
    draft = specification.with_name("outcome.new")
    draft.write_text(json.dumps(outcome))
    draft.replace(specification.with_name("outcome.json"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
