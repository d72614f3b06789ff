"""A package's own tests/inventory, whose groups and variables our one guest gets.

The Standard Test Interface lets a package bring an inventory that says where to run, such as on the runner. Our guest
stays the only host. It gets the groups and the variables, but none of Ansible's own, which say how to connect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_CONNECTION = re.compile(r"ansible_\w*\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BUILT_IN = ("_meta", "all", "ungrouped")


def merged(inventory_of_guest: Mapping[str, Any], listing: object, failed: str) -> tuple[dict[str, Any], list[str]]:
    """The guest's inventory with the ``listing`` (``ansible-inventory --list``) of a package's, and notes on it.

    ``failed`` is the error when the package's could not be read.
    """
    inventory = {name: dict(group) for name, group in inventory_of_guest.items()}
    ((guest, _),) = next(iter(inventory_of_guest.values()))["hosts"].items()
    hostvars = _hostvars(listing)
    if not hostvars:
        why = " ".join(failed.split())[-400:] or "it names no host"
        return inventory, [f"tests/inventory is not used: {why}"]
    host = min(hostvars)
    variables = {
        name: value for name, value in hostvars[host].items() if _NAME.match(name) and not _CONNECTION.match(name)
    }
    groups = sorted(_groups(listing) - set(inventory))
    for group in inventory.values():
        group["hosts"] = {guest: variables | group["hosts"][guest]}
    for name in groups:
        inventory[name] = {"hosts": {guest: {}}}
    skipped = sorted(set(hostvars[host]) - set(variables))
    notes = [f"tests/inventory is used for the guest {guest} in place of its {len(hostvars)} host(s)"]
    notes += [f"group taken: {name}" for name in groups]
    notes += [f"variable taken: {name}" for name in sorted(variables)]
    notes += [f"variable not taken, it says how to connect: {name}" for name in skipped]
    notes += [f"host not there: {name}" for name in sorted(hostvars) if name != host]
    return inventory, notes


def _hostvars(listing: object) -> dict[str, dict[str, Any]]:
    """The variables of each host that any group names."""
    if not isinstance(listing, dict):
        return {}
    named: dict[str, dict[str, Any]] = {
        host: {} for group in listing.values() if isinstance(group, dict) for host in group.get("hosts") or () if host
    }
    meta = listing.get("_meta")
    hostvars = meta.get("hostvars", {}) if isinstance(meta, dict) else {}
    return named | {host: values for host, values in hostvars.items() if isinstance(values, dict)}


def _groups(listing: object) -> set[str]:
    if not isinstance(listing, dict):
        return set()
    children = {
        child
        for group in listing.values()
        if isinstance(group, dict)
        for child in group.get("children") or ()
        if child
    }
    return {name for name in {*listing, *children} if name not in _BUILT_IN and _NAME.match(str(name))}
