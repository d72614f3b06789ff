"""What tells one store of base images from another: an image is of use only where the base below it lies."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4


def store_identity(root: Path) -> str:
    """The name that the store in ``root`` was given when somebody first asked; hosts that share it share the name."""
    path = root / "identity"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".identity-") as scratch, suppress(FileExistsError):
            made = Path(scratch) / "identity"
            made.write_text(uuid4().hex)
            os.link(made, path)  # whole or not at all, and only by the first
    return path.read_text()
