"""What all our blocks share: they are found by the name of the site that they describe."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import import_module
from typing import Self, cast

from prefect.blocks.core import Block
from pydantic import Field

from distgate.errors import ConfigurationError
from distgate.settings import settings


class SiteBlock(Block):
    """A block with one document per site, such as fedora or lab."""

    stand_in: str = Field(
        "",
        description="Class that takes this block's place at the site, a subclass of it: module:Class, of a module "
        "that the worker's DISTGATE_STAND_INS names; empty: none",
    )

    @classmethod
    def of(cls, site: str) -> Self:
        """The block document of ``site`` as it was when this process first asked, or what stands in for it there.

        Raises ValueError, with Prefect's text, when none is saved, ConfigurationError for a stand-in that is none, or
        whose module this worker does not let in (DISTGATE_STAND_INS).
        """
        # Each stage of a run asks, and each answer costs several requests to a busy server.
        return cast(Self, _document(cls, site))

    @classmethod
    def saved(cls, site: str) -> Self | None:
        """``of``, and None for a site that has no such document, where it may do without."""
        try:
            return cls.of(site)
        except ValueError:  # Prefect's error for a block that is not saved
            return None

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
    document = cast(SiteBlock, kind.load(site))
    return stand_in_for(kind, document, settings().stand_ins) if document.stand_in else document


def stand_in_for(kind: type[SiteBlock], document: SiteBlock, allowed: Collection[str]) -> SiteBlock:
    """The block that ``document`` names in its place, with its fields; its module must be one of ``allowed``.

    Nothing of any other module is imported. Raises ConfigurationError.
    """
    module, _, name = document.stand_in.partition(":")
    if module not in allowed:
        # Those who may write blocks must not choose the code that runs on workers.
        raise _no_stand_in(
            kind, document, f"this worker allows no stand-in of the module {module!r} (DISTGATE_STAND_INS)"
        )
    try:
        stand_in = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_stand_in(kind, document, str(error)) from error
    if not (isinstance(stand_in, type) and issubclass(stand_in, kind)):
        raise _no_stand_in(kind, document, f"it is no subclass of {kind.__name__}")
    block = stand_in.model_validate({field: getattr(document, field) for field in kind.model_fields})
    block._block_document_name = document._block_document_name
    return block


def _no_stand_in(kind: type[SiteBlock], document: SiteBlock, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{document.stand_in!r} cannot stand in for the {kind._block_type_name}: {why}",
        hint="the field stand_in of the block document is module:Class, or empty",
    )
