"""Where qualified base images are, and how a package gets into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blocks.site import SiteBlock
from distgate.drivers.base import BaseImage, ImageComposer
from distgate.drivers.offline_install import OfflineInstaller
from distgate.errors import ConfigurationError


class ImageStore(SiteBlock):
    """Base images by branch, each described by a JSON record beside its qcow2."""

    _block_type_name: ClassVar[str | None] = "Image store"
    _block_type_slug: ClassVar[str | None] = "image-store"
    _description: ClassVar[str | None] = "Base images that commits are composed onto."

    records: dict[str, str] = Field(
        default_factory=dict, description="Path of the base image's JSON record for each branch; * for all others"
    )

    def base(self, branch: str) -> BaseImage:
        """The base image of a branch. ConfigurationError when none is stored."""
        path = self.records.get(branch) or self.records.get("*")
        if path is None:
            raise ConfigurationError(
                f"no base image is stored for branch {branch}", hint="add it to the block's records"
            )
        if not Path(path).is_file():
            raise ConfigurationError(f"the base image's record {path} does not exist", hint="is this the right host?")
        return BaseImage.from_record(json.loads(Path(path).read_text()))

    def composer(self) -> ImageComposer:
        """The way in which packages are installed offline."""
        return OfflineInstaller()
