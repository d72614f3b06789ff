"""What all our blocks share: they are found by the name of the site that they describe."""

from __future__ import annotations

from typing import Self, cast

from prefect.blocks.core import Block


class SiteBlock(Block):
    """A block with one document per site, such as fedora or lab."""

    @classmethod
    def of(cls, site: str) -> Self:
        """The block document of ``site``. Raises ValueError, in Prefect's words, when none is saved."""
        return cast(Self, cls.load(site))
