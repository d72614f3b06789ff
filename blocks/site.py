"""What all our blocks share: they are found by the name of the site that they describe."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Self, cast

from prefect.blocks.core import Block
from pydantic import Field

from distgate.errors import ConfigurationError


class SiteBlock(Block):
    """A block with one document per site, such as fedora or lab."""

    stand_in: str = Field(
        "",
        description="Class that takes this block's place at the site, a subclass of it: module:Class; empty: none",
    )

    @classmethod
    def of(cls, site: str) -> Self:
        """The block document of ``site`` as it was when this process first asked, or what stands in for it there.

        Raises ValueError, in Prefect's words, when none is saved, ConfigurationError for a stand-in that is none.
        """
        # Each stage of a run asks, and each answer costs several requests to a busy server.
        return cast(Self, _document(cls, site))

    @property
    def _site(self) -> str:
        """The site of this document, for what else is needed of it. ConfigurationError when it is not saved."""
        if self._block_document_name is None:
            raise ConfigurationError(
                f"this {self._block_type_name} is no saved block, so its site is not known", hint="save it first"
            )
        return self._block_document_name


@cache
def _document(kind: type[SiteBlock], site: str) -> SiteBlock:
    found = cast(SiteBlock, kind.load(site))
    return _stand_in(kind, found) if found.stand_in else found


def _stand_in(kind: type[SiteBlock], document: SiteBlock) -> SiteBlock:
    module, _, name = document.stand_in.partition(":")
    try:
        wanted = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as absent:
        raise _no_stand_in(kind, document, str(absent)) from absent
    if not (isinstance(wanted, type) and issubclass(wanted, kind)):
        raise _no_stand_in(kind, document, f"it is no subclass of {kind.__name__}")
    made = wanted.model_validate({field: getattr(document, field) for field in kind.model_fields})
    made._block_document_name = document._block_document_name
    return made


def _no_stand_in(kind: type[SiteBlock], document: SiteBlock, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{document.stand_in!r} cannot stand in for the {kind._block_type_name}: {why}",
        hint="the field stand_in of the block document is module:Class, or empty",
    )
