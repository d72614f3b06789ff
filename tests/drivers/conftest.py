"""The base image that driver tests share; the first run on a machine takes two minutes to make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.drivers.base import BaseImage
from lab.base_image import ensure_base


@pytest.fixture(scope="session")
def base_image(cache: Path) -> BaseImage:
    """A bootable image, composed from the lab's own repository."""
    return ensure_base(cache, print)
