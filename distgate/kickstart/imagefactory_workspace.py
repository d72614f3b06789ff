"""How imagefactory is called: one private directory with its configuration, template, kickstart and storage.

What it reads and writes was looked up in imagefactory 1.1.16 and Oz 0.17; both also know directories of the whole
host, so every one that can be named is named here.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import walk

#: Oz logs where it left a picture of the installer's screen, should it not know our directory.
PICTURES = (".png", ".ppm")


@dataclass(frozen=True)
class Resources:
    """Where the installer's virtual machine runs, and what it gets: ``memory`` in MiB, ``disk`` in GiB (None: 10).

    ``libvirt`` is the address of the daemon, or empty for a builder that uses none.
    """

    libvirt: str = "qemu:///system"
    memory: int = 2048
    cpus: int = 1
    disk: int | None = None


@dataclass(frozen=True)
class Workspace:
    """The private directory of one build."""

    top: Path

    @property
    def storage(self) -> Path:
        """Where finished images are: ``UUID.body`` (raw) and ``UUID.meta`` (JSON)."""
        return self.top / "storage"

    @property
    def screenshots(self) -> Path:
        return self.top / "screenshots"

    @property
    def temporary(self) -> Path:
        return self.top / "tmp"

    def prepare(self, kickstart: str, template: str) -> None:
        """Write everything that imagefactory reads."""
        for name in ("storage", "screenshots", "tmp", "images", "oz"):
            (self.top / name).mkdir(mode=0o755)
        (self.top / "image.ks").write_text(kickstart, encoding="utf-8")
        (self.top / "image.tdl").write_text(template, encoding="utf-8")
        (self.top / "imagefactory.json").write_text(json.dumps(self._configuration(), indent=2) + "\n")

    def argv(
        self, command: Sequence[str], timeout: float, resources: Resources, parameters: Mapping[str, str]
    ) -> list[str]:
        """The command line: ``parameters`` are further ``--parameter NAME VALUE`` pairs."""
        # The body is converted as raw. Probing its format would let the guest, whose disk it is, name a backing file.
        machine = {"image_type": "raw", "memory": str(resources.memory), "cpus": str(resources.cpus)}
        oz = {"libvirt": machine | ({"uri": resources.libvirt} if resources.libvirt else {})}
        chosen = {"generate_icicle": "false", "oz_overrides": json.dumps(oz)} | dict(parameters)
        pairs = [argument for name, value in chosen.items() for argument in ("--parameter", name, value)]
        return [
            *(*command, "--debug", "--config", str(self.top / "imagefactory.json")),
            *("--imgdir", str(self.top / "images"), "--tmpdir", str(self.temporary)),
            # Somewhat less than ours: when the installer hangs, only Oz takes a picture of its screen.
            *("--timeout", str(math.ceil(timeout * 0.9)), "base_image"),
            *("--file-parameter", "install_script", str(self.top / "image.ks"), *pairs),
            str(self.top / "image.tdl"),
        ]

    def body(self) -> Path:
        """The disk that was built. Raises InfrastructureError unless there is exactly one, and it is complete.

        The exit status is not enough: imagefactory also ends with 0 when it was asked to end (SIGTERM).
        """
        complete = [path.with_suffix(".body") for path in self.storage.glob("*.meta") if _is_complete(path)]
        bodies = [path for path in complete if path.is_file() and path.stat().st_size]
        if len(bodies) != 1:
            raise InfrastructureError(
                f"imagefactory ended as if it had succeeded, and left {len(bodies) or 'no'} complete images",
                hint="was it asked to end, or does it not follow image_manager_args in its --config?",
            )
        return bodies[0]

    def keep_screenshot(self, named: Path | None, beside: Path) -> Path | None:
        """Copy the newest picture of the installer's screen to ``beside`` plus its suffix, if there is one."""
        pictures = sorted(self.screenshots.iterdir(), key=lambda path: path.stat().st_mtime)
        if named is not None and named.suffix in PICTURES and named.is_file() and not named.is_symlink():
            pictures.append(named)
        pictures = [path for path in pictures if path.suffix in PICTURES]
        if not pictures:
            return None
        copy = beside.with_name(beside.name + pictures[-1].suffix)
        shutil.copyfile(pictures[-1], copy)
        return copy

    def _configuration(self) -> dict[str, object]:
        return {
            "image_manager": "file",
            "image_manager_args": {"storage_path": str(self.storage)},
            "oz_data_dir": str(self.top / "oz"),
            "oz_screenshot_dir": str(self.screenshots),
            "tdl_require_root_pw": 0,
            "jeos_config": [],
            "clients": {},
            "max_concurrent_local_sessions": 2,
            "max_concurrent_ec2_sessions": 4,
        }


def _is_complete(meta: Path) -> bool:
    try:
        return bool(json.loads(meta.read_text())["status"] == "COMPLETE")
    except (ValueError, KeyError, TypeError):
        return False


@dataclass
class BuildProgress:
    """Whether anything moves: a new line of the log, or a file that grows.

    Oz counts down aloud while it waits for an installer that may well hang, so a line that differs from an earlier
    one in its numbers alone is no news.
    """

    log: Path
    paths: tuple[Path, ...]
    #: Seconds between two walks over the files, of which there may be many thousand.
    pause: float
    _polled_at: float = field(default_factory=time.monotonic)
    _read: int = 0
    _rest: bytes = b""
    _seen_marks: set[int] = field(default_factory=set)
    _files: dict[str, tuple[int, int]] = field(default_factory=dict)

    def poll(self) -> tuple[bool, list[str]]:
        """Whether something moved since the last poll, and the new lines of the log that are news."""
        lines = [line for line in self._new_lines() if self._is_news(line)]
        return bool(lines) or self._grown(), lines

    def _grown(self) -> bool:
        if time.monotonic() < self._polled_at + self.pause:
            return False
        files = self._sizes()
        grown, self._files, self._polled_at = files != self._files, files, time.monotonic()
        return grown

    def _new_lines(self) -> list[str]:
        with self.log.open("rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        self._read += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]

    def _is_news(self, line: str) -> bool:
        mark = hash("".join(sign for sign in line if not sign.isdigit()).strip())
        new = bool(line.strip()) and mark not in self._seen_marks
        self._seen_marks.add(mark)
        return new

    def _sizes(self) -> dict[str, tuple[int, int]]:
        return {
            str(path / entry.path): (entry.status.st_size, entry.status.st_blocks)
            for path in self.paths
            for entry in walk(path)
            if not entry.is_directory
        }
