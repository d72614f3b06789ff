"""The end of a lab: no process, mount or loop device of it stays, however it was started or broken off."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import remove_tree
from distgate.process import run
from distgate.steps import Progress
from distgate.waiting import Deadline
from lab.servers.process_table import ProcessId, ancestry, members
from lab.servers.service import last_start, read_json, start_levels, wanted_services, write_json
from lab.servers.supervisor import end, supervisor_of

log = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
_STARTER = "up.json"


def record_starter(state: Path, process: ProcessId) -> None:
    """Record which process is starting the lab: ``down`` ends it first, so that nothing more is started."""
    write_json(state / _STARTER, {"pid": process.pid, "started": process.started})


def starting(state: Path) -> ProcessId | None:
    """The process that is starting the lab at this moment."""
    record = read_json(state / _STARTER)
    process = ProcessId(**record) if record else None
    return process if process and process.alive else None


def forget_starter(state: Path) -> None:
    """No process is starting the lab any more."""
    (state / _STARTER).unlink(missing_ok=True)


def down(state: Path, progress: Progress = log.info, *, remove: bool = False) -> None:
    """End the lab in ``state``: its supervisor, its services in reverse order, then every process that is left.

    Works on whatever it finds, also after a start that was killed half-way. What the lab wrote stays, unless
    ``remove``. Raises InfrastructureError, saying what, when something would not go.
    """
    state = state.resolve()
    _end_starter(state)
    supervisor = supervisor_of(state)
    if supervisor:
        end([supervisor], 5)
    _end_services(state, progress)
    _sweep(state, progress)
    _unmount(state, progress)
    _detach(state, progress)
    for name in ("services", "running", "held"):
        remove_tree(state / name, ignore_errors=True)
    (state / "supervisor.json").unlink(missing_ok=True)
    forget_starter(state)
    if remove:
        remove_tree(state, ignore_errors=True)
    progress("the lab is down")


def leftovers(state: Path) -> list[str]:
    """What of the lab is still there, one line each: processes, mounts, loop devices."""
    state = state.resolve()
    return [
        *(f"process {process.pid}: {_command(process)}" for process in members(state)),
        *(f"mount {path}" for path in mounts_below(state)),
        *(f"loop device {device} on {backing}" for device, backing in loops_below(state)),
    ]


def mounts_below(state: Path) -> list[Path]:
    """Mount points in or below ``state``, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The kernel writes blanks and the like as octal escapes.
    paths = [Path(point.encode().decode("unicode_escape")) for point in points]
    return sorted((path for path in paths if path.is_relative_to(state)), key=lambda path: -len(path.parts))


def loops_below(state: Path) -> list[tuple[str, Path]]:
    """Loop devices whose backing file lies below ``state``."""
    loops = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached while we look
            backing = Path(entry.read_text().strip().removesuffix(" (deleted)"))
            if backing.is_relative_to(state):
                loops.append((f"/dev/{entry.parents[1].name}", backing))
    return loops


def _end_starter(state: Path) -> None:
    process = starting(state)
    if process and process.pid not in ancestry():
        end([process], 5)


def _end_services(state: Path, progress: Progress) -> None:
    for level in reversed(start_levels(wanted_services(state))):
        starts = {service.name: last_start(state, service.name) for service in level}
        running = {name: start.process for name, start in starts.items() if start and start.process.alive}
        if running:
            progress(f"ending {', '.join(running)}")
            end(list(running.values()), max(service.grace for service in level))


def _sweep(state: Path, progress: Progress) -> None:
    # What dies may still be starting children, so look again until nothing is found.
    deadline = Deadline(SWEEP_SECONDS)
    signalled: set[ProcessId] = set()
    while remaining := members(state):
        if deadline.passed:
            raise InfrastructureError(f"processes of the lab would not end: {[process.pid for process in remaining]}")
        if new := set(remaining) - signalled:
            progress(f"ending {len(new)} more: {', '.join(sorted({_command(process)[:40] for process in new}))}")
        for process in remaining:
            # The second look is three quarters of a second later: long enough for what cleans up after itself.
            process.signal(signal.SIGKILL if process in signalled else signal.SIGTERM)
        signalled |= set(remaining)
        time.sleep(0.75)


def _unmount(state: Path, progress: Progress) -> None:
    for point in mounts_below(state):
        progress(f"unmounting {point}")
        run(["umount", "--lazy", point], timeout=30, hint="unmount it by hand")


def _detach(state: Path, progress: Progress) -> None:
    for device, backing in loops_below(state):
        progress(f"detaching {device} from {backing}")
        run(["losetup", "--detach", device], timeout=30, hint="detach it by hand")


def _command(process: ProcessId) -> str:
    with contextlib.suppress(OSError):
        argv = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        # A process that is gone but not reaped yet has no command line any more.
        return " ".join(argument.decode("utf-8", "replace") for argument in argv).strip() or "(gone)"
    return "(gone)"
