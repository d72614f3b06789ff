"""The block of the image store: which base a branch gets, and what the store is opened with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_bases import TinyBuilder, ToldGuests

from blocks import ImageStore
from distgate.errors import ConfigurationError
from distgate.images.base import BaseImage

KICKSTART = "repo --name=own --baseurl=file:///srv/repo\n%packages\n@core\n%end\n"


def test_a_branch_with_a_record_gets_the_base_that_was_made_elsewhere(tmp_path: Path) -> None:
    made = BaseImage(tmp_path / "base.qcow2", "lab-cloud-1", 1 << 20, tmp_path / "key", ("/srv/repo",))
    record = tmp_path / "base.json"
    record.write_text(json.dumps(asdict(made), default=str))
    block = ImageStore(records={"f41": str(record)}, root=str(tmp_path / "images"))
    assert block.base("f41") == made
    with block.leased_base("f41", "run-1") as leased:
        assert leased == made
    assert not (tmp_path / "images").exists()
    with pytest.raises(ConfigurationError, match="its site is not known"):
        block.base("f44")
    with pytest.raises(ConfigurationError, match="does not exist"):
        ImageStore(records={"*": "/no/such.json"}).base("f41")


def test_the_store_is_opened_with_the_block_s_fields(tmp_path: Path) -> None:
    block = ImageStore(root=str(tmp_path / "images"), limit="1.5G", max_age=60)
    builder, guests = TinyBuilder(tmp_path / "notes"), ToldGuests()
    store = block.store(builder, guests)
    assert (store.root, store.limit, store.max_age) == (tmp_path / "images", 3 << 29, 60)
    assert store.tools is not None
    assert (store.tools.builder, store.tools.guests) == (builder, guests)
    assert store.tools.ssh_key.is_file()


def test_a_branch_is_defined_by_its_own_kickstart_else_by_ours_and_lets_the_store_s_key_in(tmp_path: Path) -> None:
    own = tmp_path / "own.ks"
    own.write_text(KICKSTART)
    block = ImageStore(root=str(tmp_path / "images"), kickstarts={"f41": str(own)})
    definition = block.definition("f41")
    public = (tmp_path / "images/ssh/id_ed25519.pub").read_text().strip()
    assert (
        definition.kickstart.replace(f'sshkey --username=root "{public}"\n', "") == KICKSTART != definition.kickstart
    )
    assert (definition.branch, definition.release, definition.name) == ("f41", "41", "cloud")
    assert block.definition("main").release == "rawhide"
    assert block.definition("main").kickstart != block.definition("f44").kickstart


def test_a_limit_that_is_no_size_is_refused_when_the_block_is_written() -> None:
    with pytest.raises(ValidationError, match="is no size"):
        ImageStore(limit="much")
