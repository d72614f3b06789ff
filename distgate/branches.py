"""dist-git branches: which release they stand for and which Koji target builds them."""

from __future__ import annotations

import re

from distgate.errors import ConfigurationError

#: Names of the development branch over the years.
RAWHIDE = frozenset({"rawhide", "main", "master"})


def koji_target(branch: str) -> str:
    """The Koji build target of a branch: ``rawhide`` or ``fNN``. Raises ConfigurationError for any other."""
    if branch in RAWHIDE:
        return "rawhide"
    if re.fullmatch(r"f[2-9][0-9]", branch):
        return branch
    raise ConfigurationError(f"no Koji target is known for branch {branch}", hint="rawhide and fNN are built")
