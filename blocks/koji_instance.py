"""A Koji instance and how we log in to it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from blocks.site import SiteBlock
from distgate.drivers.base import BuildHub
from distgate.drivers.koji import KojiClient, KojiProfile


class KojiInstance(SiteBlock):
    """A Koji hub, its downloads, and the account that may start scratch builds."""

    _block_type_name: ClassVar[str | None] = "Koji instance"
    _block_type_slug: ClassVar[str | None] = "koji-instance"
    _description: ClassVar[str | None] = "The hub that scratch-builds commits, and our account there."
