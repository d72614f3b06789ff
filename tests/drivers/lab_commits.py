"""Two commits of the lab's Atomic Host, one after the other, kept in the cache: they take a minute to compose."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from small_rpms import SmallRpm, make_repository

from distgate import treefile
from distgate.drivers import branch_trees, ostree_repository, transaction, transaction_child, tree_dnf, tree_shape
from distgate.drivers.base import ComposedTree
from distgate.packages import Nevra, read_rpms
from distgate.process import run
from lab.cache import ensure_entry, identity_of
from lab.rpm_repository import ensure_repository
from lab.tree import lab_trees

BRANCH = "f41"
#: The package under test, and its versions: one per commit.
PACKAGE, VERSIONS = "witness", ("1.0", "2.0")


@dataclass(frozen=True)
class Commits:
    """The repository that is served, and its trees, oldest first; the last is the head."""

    published: Path
    trees: tuple[ComposedTree, ...]

    def spoiled(self, overlay: Path) -> ComposedTree:
        """One more commit at the head: the last with the files of ``overlay`` over it."""
        last = self.trees[-1]
        words = ["commit", f"--branch={last.ref}", f"--tree=ref={last.ref}", f"--tree=dir={overlay}"]
        words += ["--owner-uid=0", "--owner-gid=0", "--add-metadata-string=version=41.3"]
        rev = run(["ostree", f"--repo={self.published}", *words], timeout=300).output.strip()
        run(["ostree", f"--repo={self.published}", "summary", "-u"], timeout=60)
        return replace(last, rev=rev, parent=last.rev, version="41.3")


def two_commits(cache: Path, into: Path) -> Commits:
    """A copy of them, in the new directory ``into``, that may be changed."""
    cache = cache.resolve()
    modules = (treefile, branch_trees, ostree_repository, transaction, transaction_child, tree_dnf, tree_shape)
    sources = [inspect.getsource(module) for module in modules]
    definitions = [path.read_text() for path in sorted(treefile.HOME.rglob("*lab*.yaml"))]
    identity = identity_of(
        ensure_repository(cache, print).identity, Path(__file__).read_text(), *sources, *definitions
    )
    entry = ensure_entry(cache, "test-commits", identity, lambda making: _compose(cache, making))
    # Whoever writes to a repository replaces files and changes none: the objects can be shared.
    run(["cp", "-al", entry / BRANCH / "ostree", into], timeout=120)
    facts = json.loads((entry / "trees.json").read_text())
    return Commits(into, tuple(_tree(fact) for fact in facts))


def _compose(cache: Path, making: Path) -> None:
    trees = lab_trees(cache, making, BRANCH)
    facts = []
    for version in VERSIONS:
        place = making / f"rpms-{version}"
        place.mkdir()
        repository = make_repository(place, [SmallRpm(PACKAGE, version=version)])
        packages = [rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))]
        tree = trees.compose(repository, packages, print)
        trees.accept(tree, repository, packages)
        requested = [list(vars(one).values()) for one in tree.requested]
        facts.append(
            {"ref": tree.ref, "rev": tree.rev, "version": tree.version, "parent": tree.parent, "requested": requested}
        )
        shutil.rmtree(place)
    (making / "trees.json").write_text(json.dumps(facts))
    shutil.rmtree(making / BRANCH / "build")  # nothing is composed onto these


def _tree(fact: dict[str, object]) -> ComposedTree:
    requested = tuple(Nevra(*one) for one in fact["requested"])  # type: ignore[attr-defined]
    return ComposedTree(
        ref=str(fact["ref"]),
        rev=str(fact["rev"]),
        version=str(fact["version"]),
        parent=str(fact["parent"]) if fact["parent"] else None,
        installed=(),
        changes=(),
        requested=requested,
        driver="dnf",
        size=0,
    )


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of ``directory`` over http."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
