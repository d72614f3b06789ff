"""Keeps the lab's services running: a small process of its own, and the commands that people and tests give it.

The state directory is the whole interface: ``services/`` holds what shall run, ``running/`` what was started,
``held/`` what is kept ended for now. When a supervisor dies, the next one reads on from there.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.files import tail_of
from distgate.process import spawn
from distgate.waiting import Deadline, wait_for
from lab.servers.process_table import MARKER, ProcessId, identify
from lab.servers.service import (
    Running,
    Service,
    forget_service,
    last_start,
    load_service,
    read_json,
    record_start,
    service_log,
    wanted_services,
    write_json,
)

log = logging.getLogger("lab.servers.supervisor")

TICK = 0.2
FIRST_DELAY, LONGEST_DELAY = 0.5, 15.0
#: A service that ran this many seconds is taken for sound again: its next crash starts with the first delay.
SOUND_AFTER = 30.0


@dataclass(frozen=True)
class ServiceStatus:
    """A service as people see it: ``since`` is in seconds since the epoch, ``pid`` is None when it does not run."""

    name: str
    pid: int | None
    healthy: bool
    since: float | None
    log: Path
    restarts: int


class Supervisor:
    """Starts what is wanted in the order of its dependencies, and again when it dies."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._not_before: dict[str, float] = {}
        self._delay: dict[str, float] = {}
        self._ending = False

    def run(self) -> None:
        """Look after the services until SIGTERM or SIGINT; they run on without us."""
        # Handlers of our own also undo an inherited "ignore SIGINT" (a shell's `&` sets that), which would reach
        # every service: Prefect's worker turns SIGTERM into SIGINT for its flow runs and could never end them.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        log.info("looking after the lab in %s", self.state)
        while not self._ending:
            self.tick()
            time.sleep(TICK)
        log.info("the supervisor ends; the services run on")

    def tick(self) -> None:
        """Look at every wanted service once."""
        alive = {service.name: service for service in wanted_services(self.state)}
        for service in alive.values():
            if not self._ending:
                self._supervise(service, alive)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _supervise(self, service: Service, by_name: dict[str, Service]) -> None:
        last = last_start(self.state, service.name)
        if last and last.process.alive:
            if time.time() - last.since > SOUND_AFTER:
                self._delay.pop(service.name, None)
            return
        if last and service.name not in self._not_before:
            self._note_death(service.name, last)
        if _held(self.state, service.name).exists() or time.monotonic() < self._not_before.get(service.name, 0):
            return
        if all(name in by_name and is_healthy(self.state, by_name[name]) for name in service.after):
            self._start(service, last)

    def _note_death(self, name: str, last: Running) -> None:
        child = self._children.pop(name, None)
        status = child.poll() if child else None
        if _held(self.state, name).exists():
            self._not_before[name] = 0
            log.info("%s (pid %d) %s; it is held", name, last.pid, _ending_of(status))
            return
        delay = self._delay.get(name, FIRST_DELAY)
        self._delay[name] = min(2 * delay, LONGEST_DELAY)
        self._not_before[name] = time.monotonic() + delay
        log.warning("%s (pid %d) %s; it starts again in %g s", name, last.pid, _ending_of(status), delay)

    def _start(self, service: Service, last: Running | None) -> None:
        log_file = service_log(self.state, service.name)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        environment = {**service.environment, MARKER: str(self.state)}
        try:
            child = spawn(
                service.argv, log_to=log_file, env=environment, cwd=Path(service.cwd) if service.cwd else None
            )
        except (ConfigurationError, OSError) as error:
            self._not_before[service.name] = time.monotonic() + LONGEST_DELAY
            log.error("%s cannot start: %s", service.name, error)
            return
        self._children[service.name] = child
        self._not_before.pop(service.name, None)
        # A child that died already is a zombie of ours: it has a start time, but identify() knows only the living.
        started = identify(child.pid) or ProcessId(child.pid, 0)
        restarts = last.restarts + 1 if last else 0
        record_start(self.state, service.name, Running(child.pid, started.started, time.time(), restarts))
        log.info("%s started with pid %d%s", service.name, child.pid, f" (restart {restarts})" if restarts else "")


def start_supervisor(state: Path) -> ProcessId:
    """Start the supervisor of ``state`` detached from us, unless it runs already; its log is supervisor.log."""
    running = supervisor_of(state)
    if running:
        return running
    log_file = service_log(state, "supervisor")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "lab.servers.supervisor", "--state", str(state)]
    child = spawn(argv, log_to=log_file, env={MARKER: str(state)}, cwd=Path(__file__).parents[2])
    return wait_for(
        "the lab's supervisor to start",
        lambda: supervisor_of(state) if child.poll() is None else None,
        20,
        evidence=lambda: tail_of(log_file),
        interval=0.05,
    )


def supervisor_of(state: Path) -> ProcessId | None:
    """The running supervisor of ``state``."""
    record = read_json(state / "supervisor.json")
    process = ProcessId(**record) if record else None
    return process if process and process.alive else None


def is_healthy(state: Path, service: Service) -> bool:
    """Whether the service runs and its health check passes."""
    last = last_start(state, service.name)
    return bool(last and last.process.alive and service.health())


def wait_healthy(state: Path, names: list[str], deadline: Deadline) -> None:
    """Return when all those services are healthy; TimedOut names the first that is not, with its log's end."""
    for name in names:
        _wait_for_one(state, load_service(state, name), deadline)


def status(state: Path) -> list[ServiceStatus]:
    """Every service of the lab in starting order, each asked for its health now."""
    return [_status_of(state, service) for service in wanted_services(state)]


def kill(state: Path, name: str, number: int = signal.SIGKILL) -> bool:
    """Send a signal to the service's main process, as a fault; False when it does not run."""
    load_service(state, name)
    last = last_start(state, name)
    return bool(last and last.process.signal(number))


def restart(state: Path, name: str, timeout: float = 60) -> None:
    """End the service in order and return when the supervisor has brought it back and it is healthy."""
    hold(state, name)
    release(state, name)
    wait_healthy(state, [name], Deadline(timeout))


def hold(state: Path, name: str) -> None:
    """End the service and keep it ended until ``release``."""
    service = load_service(state, name)
    keep_ended(state, name)
    last = last_start(state, name)
    if last:
        end([last.process], service.grace)


def retire(state: Path, name: str) -> None:
    """End the service for good and forget it; an unknown one is no error."""
    if any(service.name == name for service in wanted_services(state)):
        hold(state, name)
        forget_service(state, name)
        release(state, name)


def keep_ended(state: Path, name: str) -> None:
    """However the service ends from now on, it is not started again until ``release``."""
    marker = _held(state, name)
    marker.parent.mkdir(exist_ok=True)
    marker.touch()


def release(state: Path, name: str) -> None:
    """Let the supervisor start a held service again."""
    _held(state, name).unlink(missing_ok=True)


def end(processes: list[ProcessId], grace: float) -> None:
    """SIGTERM to all of them, SIGKILL to whatever is left after ``grace`` seconds; returns when all are gone."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = Deadline(grace)
    while not deadline.passed and any(process.alive for process in processes):
        time.sleep(0.05)
    for process in processes:
        process.signal(signal.SIGKILL)
    wait_for("killed processes to go", lambda: not any(process.alive for process in processes), 10, interval=0.05)


def _status_of(state: Path, service: Service) -> ServiceStatus:
    last = last_start(state, service.name)
    alive = last is not None and last.process.alive
    return ServiceStatus(
        name=service.name,
        pid=last.pid if last and alive else None,
        healthy=alive and service.health(),
        since=last.since if last and alive else None,
        log=service_log(state, service.name),
        restarts=last.restarts if last else 0,
    )


def _wait_for_one(state: Path, service: Service, deadline: Deadline) -> None:
    log_file = service_log(state, service.name)
    wait_for(
        f"the lab's service {service.name} to be healthy",
        lambda: is_healthy(state, service),
        deadline,
        evidence=lambda: tail_of(log_file),
        hint=f"its log is {log_file}",
    )


def _held(state: Path, name: str) -> Path:
    return state / "held" / name


def _ending_of(status: int | None) -> str:
    if status is None:
        return "is gone"  # a child of an earlier supervisor: its exit status is lost
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def main() -> None:
    """``python -m lab.servers.supervisor --state DIR``: look after the lab in DIR until SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--state", type=Path, required=True)
    state: Path = parser.parse_args().state.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    process = identify(os.getpid())
    if process is None or supervisor_of(state):
        raise SystemExit(f"another supervisor looks after {state}")
    write_json(state / "supervisor.json", {"pid": process.pid, "started": process.started})
    Supervisor(state).run()


if __name__ == "__main__":
    main()
