"""What changed from one tree to the next, as a diff of packages."""

from __future__ import annotations

import pytest

from distgate.rpm.diff import diff_text, package_diff
from distgate.rpm.nevra import Nevra


def of(*texts: str) -> tuple[Nevra, ...]:
    """Packages from words such as ``bash-5.2-1`` or ``libc:2.36-1:i686``."""
    found = []
    for text in texts:
        name, _, rest = text.partition(" ")
        version, release, arch = (*rest.split("-"), "x86_64")[:3]
        epoch, _, plain = version.rpartition(":")
        found.append(Nevra(name, int(epoch or 0), plain, release, arch, f"{name}-{plain}-{release}.src.rpm"))
    return tuple(found)


CASES = (
    ("nothing changed", of("bash 5.2-1"), of("bash 5.2-1"), "no package changed\n"),
    ("the first tree", (), of("bash 5.2-1"), "+ bash-5.2-1.x86_64\n"),
    ("an upgrade", of("bash 5.2-1"), of("bash 5.3-1"), "! bash-5.2-1.x86_64 -> bash-5.3-1.x86_64\n"),
    ("a downgrade", of("bash 5.3-1"), of("bash 5.2-1"), "! bash-5.3-1.x86_64 -> bash-5.2-1.x86_64\n"),
    ("another release", of("bash 5.2-1"), of("bash 5.2-2"), "! bash-5.2-1.x86_64 -> bash-5.2-2.x86_64\n"),
    ("an epoch", of("bash 5.2-1"), of("bash 1:5.2-1"), "! bash-5.2-1.x86_64 -> bash-1:5.2-1.x86_64\n"),
    ("a removal", of("bash 5.2-1", "zsh 5-1"), of("bash 5.2-1"), "- zsh-5-1.x86_64\n"),
    (
        "everything, what was replaced first",
        of("a 1-1", "b 1-1", "c 1-1"),
        of("b 2-1", "c 1-1", "d 1-1"),
        "! b-1-1.x86_64 -> b-2-1.x86_64\n+ d-1-1.x86_64\n- a-1-1.x86_64\n",
    ),
    (
        "one of two architectures",
        of("libc 2-1", "libc 2-1-i686"),
        of("libc 3-1", "libc 2-1-i686"),
        "! libc-2-1.x86_64 -> libc-3-1.x86_64\n",
    ),
    (
        "another architecture is another package",
        of("data 1-1-noarch"),
        of("data 1-1"),
        "+ data-1-1.x86_64\n- data-1-1.noarch\n",
    ),
    (
        "of several kernels the one that was replaced",
        of("kernel 6.1-1", "kernel 6.2-1"),
        of("kernel 6.2-1", "kernel 6.3-1"),
        "! kernel-6.1-1.x86_64 -> kernel-6.3-1.x86_64\n",
    ),
)


@pytest.mark.parametrize(("before", "after", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_diff_names_what_was_added_removed_and_replaced(
    before: tuple[Nevra, ...], after: tuple[Nevra, ...], text: str
) -> None:
    assert diff_text(package_diff(before, after)) == text


def test_who_built_a_package_makes_no_difference() -> None:
    one = Nevra("bash", 0, "5.2", "1", "x86_64", "bash-5.2-1.src.rpm")
    assert package_diff([one], [Nevra("bash", 0, "5.2", "1", "x86_64")]) == ()
