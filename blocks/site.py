"""What all our blocks share: they are found by the name of the site that they describe."""

from __future__ import annotations

from typing import Self, cast

from prefect.blocks.core import Block

from distgate.errors import ConfigurationError


class SiteBlock(Block):
    """A block with one document per site, such as fedora or lab."""

    @classmethod
    def of(cls, site: str) -> Self:
        """The block document of ``site``. Raises ValueError, in Prefect's words, when none is saved."""
        return cast(Self, cls.load(site))

    @property
    def _site(self) -> str:
        """The site of this document, for what else is needed of it. ConfigurationError when it is not saved."""
        if self._block_document_name is None:
            raise ConfigurationError(
                f"this {self._block_type_name} is no saved block, so its site is not known", hint="save it first"
            )
        return self._block_document_name
