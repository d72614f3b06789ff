"""A package's own tests/inventory, taken for what it can mean here: groups and variables of our one guest.

The Standard Test Interface lets a package bring an inventory that says where to run, and with it: on the runner. Ours
is the only host there ever is. Of theirs it gets the groups it is in and the variables, but none of Ansible's own,
which say how to connect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OWN = re.compile(r"ansible_\w*\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_GIVEN = ("_meta", "all", "ungrouped")


def merged(ours: Mapping[str, Any], theirs: object, failed: str) -> tuple[dict[str, Any], list[str]]:
    """Our inventory with what ``ansible-inventory --list`` said of theirs, and a line for each thing taken or not.

    ``failed`` is what it said when it could not be read. The guest stays the only host in every case.
    """
    inventory = {name: dict(group) for name, group in ours.items()}
    ((guest, _),) = next(iter(ours.values()))["hosts"].items()
    hostvars = _hostvars(theirs)
    if not hostvars:
        why = " ".join(failed.split())[-400:] or "it names no host"
        return inventory, [f"tests/inventory is not used: {why}"]
    host = min(hostvars)
    taken = {name: value for name, value in hostvars[host].items() if _NAME.match(name) and not _OWN.match(name)}
    groups = sorted(_groups(theirs) - set(inventory))
    for group in inventory.values():
        group["hosts"] = {guest: taken | group["hosts"][guest]}
    for name in groups:
        inventory[name] = {"hosts": {guest: {}}}
    left = sorted(set(hostvars[host]) - set(taken))
    notes = [f"tests/inventory is used for the guest {guest} in place of its {len(hostvars)} host(s)"]
    notes += [f"group taken: {name}" for name in groups]
    notes += [f"variable taken: {name}" for name in sorted(taken)]
    notes += [f"variable not taken, it says how to connect: {name}" for name in left]
    notes += [f"host not there: {name}" for name in sorted(hostvars) if name != host]
    return inventory, notes


def _hostvars(theirs: object) -> dict[str, dict[str, Any]]:
    """The variables of each host that any group names."""
    if not isinstance(theirs, dict):
        return {}
    named: dict[str, dict[str, Any]] = {
        host: {} for group in theirs.values() if isinstance(group, dict) for host in group.get("hosts") or () if host
    }
    meta = theirs.get("_meta")
    told = meta.get("hostvars", {}) if isinstance(meta, dict) else {}
    return named | {host: values for host, values in told.items() if isinstance(values, dict)}


def _groups(theirs: object) -> set[str]:
    if not isinstance(theirs, dict):
        return set()
    children = {
        child
        for group in theirs.values()
        if isinstance(group, dict)
        for child in group.get("children") or ()
        if child
    }
    return {name for name in {*theirs, *children} if name not in _GIVEN and _NAME.match(str(name))}
