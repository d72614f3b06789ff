"""The report of a run of Atomic Host: the tree, the host that upgraded to it, the image, the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distgate.ostree.base import ComposedTree
from distgate.rpm.diff import diff_text
from distgate.testing.verdict import worst_first
from distgate.text import fenced, inline
from tasks.integration import IntegrationReport
from tasks.page.markdown import table
from tasks.page.report import Report
from tasks.page.tests import MOST_ROWS
from tasks.run.stage import StageResult

if TYPE_CHECKING:
    from distgate.atomic.images import TreeImage
    from distgate.atomic.smoke_test import TreeSmokeReport
    from distgate.conformance.verdict import ConformanceReport

#: Changed packages that the page shows; compose/package-diff.txt has them all.
MOST_LINES = 100


@dataclass
class HostReport(Report):
    """What the stages of Atomic Host have returned so far. ``no_image`` says why there is no new image, ``no_e2e``
    why no conformance was tested."""

    tree: ComposedTree | None = None
    integration: IntegrationReport | None = None
    image: TreeImage | None = None
    smoke: TreeSmokeReport | None = None
    conformance: ConformanceReport | None = None
    no_image: str = ""
    no_e2e: str = ""

    def judged(self) -> list[StageResult]:
        results = (self.verdict, self.integration, self.conformance, *self.results.values())
        return [result for result in results if result is not None]

    def passed(self) -> str:
        tests = self.verdict.sentence if self.verdict else f"built; functional tests skipped, {self.skipped}"
        parts = [tests, self.integration.sentence if self.integration else ""]
        parts += [self.smoke.sentence if self.smoke else self.no_image]
        parts += [self.conformance.sentence if self.conformance else ""]
        return "; ".join(part for part in parts if part)

    def rows(self) -> Iterator[tuple[str, str]]:
        if self.tree:
            yield "OSTree commit", f"`{self.tree.rev}` (version {inline(self.tree.version)}) of `{self.tree.ref}`"
            yield "packages under test", inline(", ".join(map(str, self.tree.requested)))
        if self.integration:
            yield "integration tests", inline(self.integration.sentence)
        if self.image:
            yield "image", f"[{self.image.name}]({self.image.url})"
        if self.smoke:
            yield "image smoke test", inline(self.smoke.sentence)
        elif self.no_image:
            yield "image", inline(self.no_image)
        if self.conformance:
            yield "e2e conformance", inline(self.conformance.sentence)
        elif self.no_e2e:
            yield "e2e conformance", inline(self.no_e2e)

    def sections(self) -> Iterator[str]:
        if self.integration:
            yield from self._suites(self.integration)
        if self.conformance:
            yield from self._cluster(self.conformance)
        if self.tree:
            yield self._changes(self.tree)

    def _suites(self, report: IntegrationReport) -> Iterator[str]:
        lines = [
            f"- **{inline(suite.verdict.suite)}**: {suite.verdict.verdict}{_blame(suite.verdict.blame)}."
            f" {inline(suite.verdict.evidence)},"
            f" {self.job.run_dir.link(suite.artifacts / 'ansible.txt', 'ansible.txt')}"
            for suite in report.judged
        ]
        if lines:
            yield "## Integration tests\n\n" + "\n".join(lines)

    def _cluster(self, report: ConformanceReport) -> Iterator[str]:
        tests = worst_first(report.suite.tests, MOST_ROWS)
        notes = "\n".join(f"- {inline(test.name)}: {inline(test.note)}" for test in tests if test.note)
        rows = [(inline(test.name), test.result) for test in tests]
        nodes = ", ".join(
            self.job.run_dir.link(log, f"{node.name}: {log.name}") for node in report.nodes for log in node.logs
        )
        parts = ["## e2e conformance", notes, table(("test", "result"), rows) if rows else "", f"Nodes: {nodes}"]
        yield "\n\n".join(part for part in parts if part)

    def _changes(self, tree: ComposedTree) -> str:
        lines = diff_text(tree.changes).splitlines()
        more = [f"... and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        beside = f"`{tree.parent[:12]}`" if tree.parent else "nothing: it is the branch's first"
        return f"## Packages beside {beside}\n\n" + fenced("\n".join([*lines[:MOST_LINES], *more]) or "none changed")


def _blame(blame: str | None) -> str:
    return f" (blame: {blame})" if blame else ""
