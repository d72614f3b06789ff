"""The report of a run of All Packages: the image that was made, and how it booted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distgate.images.base import ComposedImage
from distgate.images.smoke import SmokeReport
from distgate.text import inline
from tasks.page.report import Report


@dataclass
class ImageReport(Report):
    """What the stages of All Packages have returned so far."""

    image: ComposedImage | None = None
    smoke: SmokeReport | None = None

    def passed(self) -> str:
        if self.verdict is not None:
            return self.verdict.sentence
        return f"built and booted; functional tests skipped, {self.skipped}"

    def rows(self) -> Iterator[tuple[str, str]]:
        if self.image:
            yield "image", self.job.run_dir.link(self.image.path, self.image.path.name)
            yield "packages under test", inline(", ".join(map(str, self.image.requested)))
        if self.smoke:
            yield "smoke test", inline(self.smoke.sentence)
