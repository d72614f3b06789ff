"""A class in the place of a block: only where the worker lets it in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.idle.places import IdleMachine
from blocks import DistGit, GuestMachine
from blocks.site import stand_in_for
from distgate.errors import ConfigurationError
from distgate.settings import Settings

IDLE = "benchmarks.idle.places"


def test_a_stand_in_of_a_module_that_is_let_in_has_the_fields_of_the_document() -> None:
    found = stand_in_for(GuestMachine, GuestMachine(stand_in=f"{IDLE}:IdleMachine", state="/srv/guests"), [IDLE])
    assert isinstance(found, IdleMachine)
    assert found.state == "/srv/guests"


def test_no_stand_in_is_let_in_by_default() -> None:
    document = GuestMachine(stand_in=f"{IDLE}:IdleMachine")
    with pytest.raises(ConfigurationError, match=r"allows no stand-in of the module .*DISTGATE_STAND_INS"):
        stand_in_for(GuestMachine, document, Settings().stand_ins)


@pytest.mark.parametrize("named", ["evil:Machine", "evil", f"{IDLE}.evil:Machine", ":Machine", "os:system"])
def test_a_module_that_is_not_let_in_is_not_even_imported(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="allows no stand-in"):
        stand_in_for(GuestMachine, GuestMachine(stand_in=named), [IDLE])
    assert "evil" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("named", "why"),
    [(f"{IDLE}:IdleMachine", "it is no subclass of DistGit"), (f"{IDLE}:Nobody", "has no attribute"), (IDLE, "")],
)
def test_what_is_no_block_of_the_kind_cannot_stand_in_for_it(named: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot stand in for the dist-git: .*{why}"):
        stand_in_for(DistGit, DistGit(stand_in=named), [IDLE])
