"""A small workshop for stores of base images: real qcow2 files, a guest that says what it is told, and a worker.

``python tiny_bases.py ROOT REPOSITORY [--refresh] [--stay]`` asks the store in ROOT for its base, and leases it; what
it has to build is ready once there is a file ``go`` in REPOSITORY.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from distgate.drivers.accelerator import Accelerator
from distgate.drivers.base import BuiltImage, CommandResult, Guest, Progress
from distgate.drivers.base_store import BaseStore
from distgate.drivers.base_store_build import Workshop
from distgate.drivers.base_store_definition import BaseDefinition
from distgate.drivers.qualification import FAILED_UNITS_COMMAND, STATE_COMMAND
from distgate.errors import DistgateError
from distgate.packages import Nevra
from distgate.process import run
from distgate.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.steps import Step
from distgate.waiting import wait_for

MIB = 1 << 20
EMULATED = Accelerator("tcg", "the tests need no more", 0.01)
BASH = Nevra("bash", 0, "5.2", "1.fc41", "x86_64", "bash-5.2-1.fc41.src.rpm")
KERNEL = Nevra("kernel-core", 0, "6.11.4", "301.fc41", "x86_64", "kernel-6.11.4-301.fc41.src.rpm")
OFFLINE = (BASH, KERNEL)


def line(package: Nevra) -> str:
    """What rpm prints for a package."""
    return "|".join(str(part) for part in package.__dict__.values())


SAID = {
    STATE_COMMAND: CommandResult(0, "running\n", ""),
    FAILED_UNITS_COMMAND: CommandResult(0, "", ""),
    INSTALLED_COMMAND: CommandResult(0, "".join(f"{line(package)}\n" for package in OFFLINE), ""),
    KERNEL_COMMAND: CommandResult(0, "6.11.4-301.fc41.x86_64\n", ""),
}


@dataclass(frozen=True)
class ToldGuest:
    """Answers as it was told to."""

    console: Path
    said: dict[str, CommandResult]
    lost: DistgateError | None = None
    name: str = "told"
    port: int = 0
    key: Path = Path("/nowhere")

    def run(self, command: str, timeout: float) -> CommandResult:
        if self.lost:
            raise self.lost
        return self.said[command]

    def console_tail(self, size: int = 2000) -> str:
        return ""


@dataclass
class ToldGuests:
    """A host whose guests say ``said``, stop answering with ``lost``, or do not start, with ``refused``."""

    said: dict[str, CommandResult] = field(default_factory=lambda: dict(SAID))
    refused: DistgateError | None = None
    lost: DistgateError | None = None
    boots: int = 0

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        self.boots += 1
        if self.refused:
            raise self.refused
        yield ToldGuest(workdir / "console.log", self.said, self.lost)


@dataclass
class TinyBuilder:
    """Writes a real qcow2 of ``size`` bytes, notes each build in ``notes``; ``gated``, it waits there for ``go``."""

    notes: Path
    size: int = MIB
    gated: bool = False
    fault: DistgateError | None = None

    @property
    def builds(self) -> list[str]:
        """The process IDs of the builders, in order."""
        return self.notes.read_text().split() if self.notes.exists() else []

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        log = into.with_name(f"{into.name}.log")
        log.write_text(f"{name} of {release}\n")
        raw = self.notes.with_name(f"{into.parent.name}.raw")  # its scratch space may well be on another disk
        raw.write_bytes(os.urandom(self.size // 2))
        if self.gated:
            wait_for("the word to go", (self.notes.parent / "go").exists, timeout, interval=0.02)
        if self.fault:
            raise self.fault
        run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, into], timeout=60)
        raw.unlink()
        return BuiltImage(into, log, (Step("install", 1.5),))


@dataclass
class Bench:
    """A store in ``root`` for one repository on disk, whose content ``publish`` changes."""

    root: Path
    repository: Path
    guests: ToldGuests = field(default_factory=ToldGuests)
    limit: int = 1 << 40
    max_age: float | None = None

    def __post_init__(self) -> None:
        self.builder = TinyBuilder(self.repository / "builds")
        if not (self.repository / "repodata").is_dir():
            self.publish("first")

    def publish(self, content: str) -> None:
        (self.repository / "repodata").mkdir(parents=True, exist_ok=True)
        (self.repository / "repodata/repomd.xml").write_text(content)

    def definition(self, branch: str = "f41", kickstart: str = "%packages\n@core\n%end\n") -> BaseDefinition:
        source = f"repo --name=tiny --baseurl={self.repository.as_uri()}\n"
        return BaseDefinition(branch, branch.removeprefix("f"), source + kickstart)

    @property
    def store(self) -> BaseStore:
        workshop = Workshop(
            builder=self.builder,
            guests=self.guests,
            root_offset=lambda _image: MIB,
            installed=lambda _image, _offset: OFFLINE,
            ssh_key=self.root / "key",
            build_timeout=60,
            accelerated_by=lambda: EMULATED,
        )
        return BaseStore(self.root, self.limit, workshop, self.max_age, who=f"worker {os.getpid()}")


def failing(**changed: CommandResult) -> dict[str, CommandResult]:
    """A guest that systemd calls degraded."""
    broken = {STATE_COMMAND: CommandResult(1, "degraded\n", "")}
    return {**SAID, **broken, FAILED_UNITS_COMMAND: CommandResult(0, "sshd.socket loaded failed failed SSH\n", "")}


def main() -> None:
    """Ask for the base and say what happens; lease it, when told to, until the end."""
    bench = Bench(Path(sys.argv[1]), Path(sys.argv[2]))
    bench.builder = replace(bench.builder, gated=True)

    def say(text: str) -> None:
        print(text, flush=True)

    if "--refresh" in sys.argv:
        bench.store.refresh(bench.definition(), say)
    with bench.store.leased_base(bench.definition(), "run-7", say) as base:
        say(f"leased {base.identity}")
        if "--stay" in sys.argv:
            time.sleep(600)


if __name__ == "__main__":
    main()
