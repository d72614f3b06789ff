"""The accelerator is proved by a guest that ends, not by a device file."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.guests.accelerator import accelerator, find_qemu, known_choice, probe, remembered_choice


def test_emulation_runs_a_boot_sector() -> None:
    seen = probe("tcg", limit=60)
    assert seen.usable, seen.detail


def test_a_probe_that_does_not_end_is_a_refusal_with_its_limit_in_words() -> None:
    seen = probe("tcg", limit=0.001)
    assert not seen.usable
    assert "did not end within 0.001 s" in seen.detail


def test_the_choice_says_why_and_how_far_timeouts_stretch_and_is_remembered() -> None:
    chosen = accelerator()
    assert chosen is accelerator()
    assert chosen.reason
    assert (chosen.name, chosen.domain_type, chosen.scale) in {("kvm", "kvm", 1.0), ("tcg", "qemu", 5.0)}


def test_a_host_without_an_emulator_is_a_configuration_error_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="qemu-system-x86"):
        find_qemu()


def kept(memory: Path, name: str, age: float, **changes: object) -> dict[str, object]:
    """Make the answer that ``memory`` holds another one, ``age`` seconds old; the whole file as it is then."""
    answer = json.loads(memory.read_text())
    answer |= {"at": time.time() - age, **changes}
    answer["accelerator"] |= {"name": name, "reason": "as it is kept", "scale": 1.5}
    memory.write_text(json.dumps(answer))
    return dict(answer)


#: What is kept and since when; whether it is believed.
MEMORIES: tuple[tuple[str, float, dict[str, object], bool], ...] = (
    ("kvm", 10, {}, True),
    ("kvm", 10 * 86400, {}, True),
    ("tcg", 10, {}, True),
    ("tcg", 2 * 3600, {}, False),
    ("tcg", -3600, {}, False),
    ("kvm", 10, {"circumstances": ["another boot of the host"]}, False),
    ("xen", 10, {}, False),
)


def test_an_answer_is_remembered_across_processes_until_it_may_no_longer_hold(tmp_path: Path) -> None:
    memory = tmp_path / "deep" / "accelerator.json"
    found = remembered_choice(memory, limit=1.0)
    assert remembered_choice(memory, limit=1.0) == found
    assert [left.name for left in memory.parent.iterdir()] == [memory.name]
    for name, age, changes, believed in MEMORIES:
        kept(memory, name, age, **changes)
        if believed:
            assert remembered_choice(memory, limit=1.0).reason == "as it is kept", (name, age)
        else:
            assert known_choice(memory, limit=1.0) is None, (name, age)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"accelerator": {"name": "kvm"}}'])
def test_a_memory_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "accelerator.json"
    memory.write_text(content)
    assert known_choice(memory, limit=1.0) is None
