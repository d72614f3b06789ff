"""The lab's rpm-ostree: the command line of ``rpm-ostree compose tree``, and a real commit made by dnf and ostree.

``python -m lab.images.rpm_ostree compose tree --repo=REPO [...] TREEFILE``; what rpm-ostree alone follows in a
treefile is refused. It says what rpm-ostree says when the packages cannot be installed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distgate.errors import ConfigurationError, DistgateError, PackageError
from distgate.ostree.base import TreeRequest
from distgate.ostree.compose_dnf import DnfTreeComposer
from distgate.ostree.repo_files import repositories_of
from distgate.ostree.treefile import read_treefile

#: How to start it.
COMMAND = (sys.executable, "-m", "lab.images.rpm_ostree")
VERSION = "2024.9"


def parser() -> argparse.ArgumentParser:
    """The real one's options, as far as they concern ``compose tree``."""
    top = argparse.ArgumentParser(prog="rpm-ostree", description="Compose trees (the lab's stand-in).")
    top.add_argument("--version", action="version", version=f"rpm-ostree:\n Version: '{VERSION}'")
    compose = top.add_subparsers(dest="command", required=True).add_parser("compose")
    tree = compose.add_subparsers(dest="verb", required=True).add_parser("tree")
    tree.add_argument("treefile", type=Path)
    tree.add_argument("-r", "--repo", type=Path, required=True)
    tree.add_argument("--cachedir", type=Path)
    for flag in ("--unified-core", "--force-nocache", "--no-parent"):
        tree.add_argument(flag, action="store_true")
    tree.add_argument("--parent")
    tree.add_argument("--add-metadata-string", action="append", default=[])
    tree.add_argument("--write-commitid-to", type=Path, required=True)
    tree.add_argument("--write-composejson-to", type=Path)
    return top


def main(argv: Sequence[str]) -> int:
    """Compose what the command line asks for; 0 when there is a commit, 1 when there is none."""
    options = parser().parse_args(argv)
    try:
        rev = _compose(options)
    except PackageError as error:
        print(f"{error.evidence}\nerror: {_in_its_words(error)}")
        return 1
    except ConfigurationError as error:
        missing = re.findall(r"(?m)^No match for argument: (.+)$", error.evidence)
        print(f"error: Packages not found: {', '.join(missing)}" if missing else f"error: {error.message}")
        return 1
    except DistgateError as error:
        print(f"{error.evidence}\nerror: {error.message}")
        return 1
    options.write_commitid_to.write_text(rev)
    if options.write_composejson_to:
        options.write_composejson_to.write_text(json.dumps({"ostree-commit": rev, "pkgdiff": []}))
    print(f"Wrote commit: {rev}")
    return 0


def _in_its_words(refused: PackageError) -> str:
    if problem := re.search(r"(?m)^ Problem: (?:.*\n)(?:  - .*\n)*", refused.evidence):
        return f"Could not depsolve transaction; 1 problem detected:\n{problem[0]}"
    if scriptlet := re.search(r"(PRE|POST)(?:IN|TRANS) scriptlet in rpm package (\S+)", refused.message):
        return f"Running %{scriptlet[1].lower()} for {scriptlet[2]}: Child process exited with code 1"
    return refused.message


def _compose(options: argparse.Namespace) -> str:
    treefile = read_treefile(options.treefile)
    metadata = dict(pair.split("=", 1) for pair in options.add_metadata_string)
    version = metadata.get("version", treefile.version_prefix)
    composer = DnfTreeComposer(treefile, repositories_of(treefile))
    with tempfile.TemporaryDirectory(prefix="workdir-", dir=options.cachedir) as scratch:
        request = TreeRequest(options.repo, treefile.ref, version, options.parent)
        return composer.commit(request, Path(scratch), lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
