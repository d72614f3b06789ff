"""The images of a branch of Atomic Host as they are served: named, placed whole, promoted to latest, and pruned."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from distgate.errors import InfrastructureError
from distgate.files import draft_of, unfinished
from distgate.locks import in_use, unused
from distgate.ostree.base import ComposedTree
from distgate.records import write_record

LATEST = "latest"
LATEST_JSON = "latest.json"
#: How many hexadecimal digits of the commit are in an image's name.
DIGITS = 15
_PREFIX = "fedora-atomic-"
_SUFFIX = ".qcow2"
#: Seconds after which what a killed process left half done is removed: nobody works on one thing for so long.
_ABANDONED = 86400.0


@dataclass(frozen=True)
class TreeImage:
    """An image that is whole: made of the commit ``rev`` at ``created`` (seconds since the epoch), ``size`` in bytes.

    ``promoted`` is when its smoke test had passed, None before.
    """

    name: str
    path: Path
    url: str
    rev: str
    version: str
    size: int
    created: float
    promoted: float | None = None


@dataclass(frozen=True)
class TreeImages:
    """The images in ``directory``, served as ``url``/NAME; ``keep`` of them stay beside the latest."""

    directory: Path
    url: str
    keep: int = 3
    clock: Callable[[], float] = time.time

    def name(self, tree: ComposedTree) -> str:
        """The file name of the image of ``tree``."""
        return f"{_PREFIX}{tree.version}-{tree.rev[:DIGITS]}{_SUFFIX}"

    def place(self, image: Path, tree: ComposedTree) -> TreeImage:
        """Move the qcow2 ``image`` to its name, whole or not at all; one of that name is replaced.

        It counts from the moment when its record lies beside it. Raises InfrastructureError.
        """
        path = self.directory / self.name(tree)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _record_of(path).unlink(missing_ok=True)
            _move(image, path)
            path.chmod(0o644)
            facts = {
                "rev": tree.rev, "version": tree.version, "ref": tree.ref, "size": path.stat().st_size,
                "made": self.clock(),
            }  # fmt: skip
            write_record(_record_of(path), facts)
        except OSError as error:
            raise InfrastructureError(f"the image {path.name} cannot be placed: {error}") from error
        return self._read(path) or _vanished(path)

    def all(self) -> tuple[TreeImage, ...]:
        """The images that are whole, newest first."""
        images = (self._read(path) for path in self.directory.glob(f"{_PREFIX}*{_SUFFIX}"))
        return tuple(sorted((image for image in images if image), key=lambda image: -image.created))

    def latest(self) -> TreeImage | None:
        """The image that was promoted last; None when there is none, or it is not whole any more."""
        try:
            name = os.readlink(self.directory / LATEST)
        except OSError:
            return None
        return self._read(self.directory / name) if Path(name).name == name else None

    def due(self, older_than: float) -> bool:
        """Whether the last good image is older than ``older_than`` seconds, or there is none."""
        last = self.latest()
        return last is None or last.promoted is None or self.clock() - last.promoted > older_than

    def promote(self, image: TreeImage) -> TreeImage:
        """Make ``image`` the latest, to be called once its smoke test has passed; as it is recorded then.

        Link and latest.json change in one rename each: readers see the old or the new one. Raises InfrastructureError
        when the image is not there any more.
        """
        current = self._read(image.path) or _vanished(image.path)
        when = self.clock()
        try:
            write_record(_record_of(image.path), json.loads(_record_of(image.path).read_text()) | {"promoted": when})
            with draft_of(self.directory / LATEST) as link:
                link.symlink_to(current.name)
        except OSError as error:
            raise InfrastructureError(f"{image.name} cannot be made the latest: {error}") from error
        promoted = self._read(image.path) or _vanished(image.path)
        write_record(self.directory / LATEST_JSON, {k: v for k, v in asdict(promoted).items() if k != "path"})
        return promoted

    @contextmanager
    def using(self, image: TreeImage) -> Iterator[Path]:
        """Keep ``image`` from being pruned for the block. Raises InfrastructureError when it is gone already."""
        with in_use(image.path):
            yield image.path

    def prune(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove all images but the newest ``keep``, the latest and those in use; the names of those that went, or
        would go.

        What was half placed a day ago or earlier, by a process that was killed, goes as well.
        """
        latest = self.latest()
        others = [image for image in self.all() if not latest or image.name != latest.name]
        removed = [image.name for image in others[self.keep :] if _remove(image.path, dry_run=dry_run)]
        if not dry_run:
            self._sweep()
        return tuple(removed)

    def _sweep(self) -> None:
        whole = {image.path for image in self.all()}
        half = [path for path in self.directory.glob(f"{_PREFIX}*{_SUFFIX}") if path not in whole]
        drafts = [*self.directory.glob(".*.new"), *self.directory.glob(f".{_PREFIX}*.composing")]
        orphans = [path for path in self.directory.glob(f"{_PREFIX}*.json") if not path.with_suffix("").exists()]
        for path in (*half, *drafts, *orphans):
            with suppress(OSError):
                if self.clock() - path.lstat().st_mtime > _ABANDONED:
                    _remove(path)

    def _read(self, path: Path) -> TreeImage | None:
        try:
            facts = json.loads(_record_of(path).read_text())
            if path.is_symlink() or path.stat().st_size != facts["size"]:
                return None
            return TreeImage(
                name=path.name,
                path=path,
                url=f"{self.url.rstrip('/')}/{quote(path.name)}",
                rev=str(facts["rev"]),
                version=str(facts["version"]),
                size=int(facts["size"]),
                created=float(facts["made"]),
                promoted=facts.get("promoted"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _vanished(path: Path) -> TreeImage:
    raise InfrastructureError(f"the image {path.name} is gone, or not whole", hint="was it pruned or replaced?")


def _move(source: Path, into: Path) -> None:
    try:
        os.replace(source, into)
    except OSError:
        if not source.is_file():
            raise
        # From another file system: a copy that has no name until it is whole.
        with unfinished(into) as copy, source.open("rb") as stream:
            with os.fdopen(os.dup(copy.number), "wb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
            copy.publish(into)
        source.unlink()


def _remove(path: Path, *, dry_run: bool = False) -> bool:
    """Remove a file and its record unless somebody uses it; whether it went, or would go."""
    if path.is_symlink():
        if not dry_run:
            path.unlink(missing_ok=True)
        return True
    if not path.exists():
        return False
    with unused(path) as free:
        if free and not dry_run:
            _record_of(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return free
