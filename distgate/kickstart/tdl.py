"""The template that imagefactory and oz read: which system is installed, from which tree, in which architecture."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from distgate.errors import ConfigurationError
from distgate.pipelines import RAWHIDE

#: What oz's schema (tdl.rng, oz 0.17 and 0.18) allows in <arch>.
ARCHITECTURES = ("i386", "x86_64", "ppc64", "ppc64le", "aarch64", "armv7l", "s390x")
#: XML 1.0 has no way to write these, escaped or not.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TREES = "https://dl.fedoraproject.org/pub/fedora/linux"


def template(
    name: str, release: str, arch: str, url: str, root_password: str | None = None, disk_gib: int | None = None
) -> str:
    """The TDL document for a Fedora installed from the tree at ``url``.

    ``release`` is "rawhide" or a number ("44"); ``disk_gib`` is the disk's size in GiB (default: oz's, 10). Without
    ``root_password`` the kickstart alone decides how root logs in. Raises ConfigurationError for an architecture
    that oz does not know, and for what XML cannot hold.
    """
    if arch not in ARCHITECTURES:
        raise ConfigurationError(f"oz installs nothing for {arch}", hint=f"it knows {', '.join(ARCHITECTURES)}")
    if not re.fullmatch(r"rawhide|[0-9]{1,3}", release, re.ASCII):
        raise ConfigurationError(f"{release!r} is no release that oz can compare", hint="rawhide, or a number: 44")
    login = "" if root_password is None else f"\n    {_element('rootpw', root_password)}"
    disk = "" if disk_gib is None else f"\n  <disk>{_element('size', f'{disk_gib}G')}</disk>"
    return f"""<template version="1.0">
  {_element("name", name)}
  <os>
    {_element("name", "Fedora")}
    {_element("version", release)}
    {_element("arch", arch)}
    <install type="url">
      {_element("url", url)}
    </install>{login}
  </os>
  {_element("description", f"{name}, made by distgate")}{disk}
</template>
"""


def install_tree(branch: str, arch: str = "x86_64") -> str:
    """The address of the tree that a branch is installed from: rawhide's, or that of a release ("f44")."""
    if branch in RAWHIDE:
        return f"{_TREES}/development/rawhide/Everything/{arch}/os/"
    if re.fullmatch(r"f[2-9][0-9]", branch, re.ASCII):
        return f"{_TREES}/releases/{branch[1:]}/Everything/{arch}/os/"
    raise ConfigurationError(f"no installation tree is known for branch {branch}", hint="rawhide and fNN have one")


def _element(name: str, text: str) -> str:
    if not text.strip() or _UNWRITABLE.search(text):
        # Without the text: it may be the password.
        raise ConfigurationError(
            f"the text of <{name}> is empty, or holds what XML cannot", hint="nothing was written"
        )
    return f"<{name}>{escape(text, {chr(13): '&#13;'})}</{name}>"
