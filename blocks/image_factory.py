"""Where whole images are made, and what for."""

from __future__ import annotations

from typing import ClassVar

from blocks.site import SiteBlock
from distgate.kickstart.base import ImageBuilder, ImageFactoryFields, open_builder


class ImageFactory(ImageFactoryFields, SiteBlock):
    """What builds images on the worker's host: base images, and images of commits that shape the install."""

    _block_type_name: ClassVar[str | None] = "Image factory"
    _block_type_slug: ClassVar[str | None] = "image-factory"
    _description: ClassVar[str | None] = "How images are built from nothing but a kickstart."

    def builder(self) -> ImageBuilder:
        """What builds images here."""
        return open_builder(self)
