"""The settings for people at a terminal: their own, or those of the lab that is up beside them.

After the demo people ask for its ledger, with no variable set. The lab records the addresses of all its parts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distgate.settings import Settings, settings

#: Our setting, and the lab's name for it in world.json (lab.world.World).
FIELDS = {
    "site": "site",
    "ledger_url": "ledger_url",
    "amqp_url": "amqp_url",
    "exchange": "exchange",
    "queue": "queue",
    "prefect_api_url": "prefect_api_url",
    "ui_url": "prefect_ui_url",
    "image_store_limit": "images_limit",
}
#: The same for paths.
PATHS = {
    "artifacts_dir": "artifacts_dir",
    "guests_dir": "guests_dir",
    "image_store": "images_dir",
}


def settings_here() -> tuple[Settings, Path | None]:
    """The settings to work with, and the lab that they were taken from.

    A lab is only looked for (in ``lab_state``) when no ledger was named.
    """
    config = settings()
    if "ledger_url" in config.model_fields_set:
        return config, None
    try:
        world = json.loads((config.lab_state / "world.json").read_text(encoding="utf-8"))
        fields: dict[str, Any] = {name: world[key] for name, key in FIELDS.items()}
        fields |= {name: Path(world[key]) for name, key in PATHS.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return config, None
    return config.model_copy(update=fields), config.lab_state
