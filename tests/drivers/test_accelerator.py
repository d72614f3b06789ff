"""The accelerator is proved by a guest that ends, not by a device file."""

from __future__ import annotations

import pytest

from distgate.drivers.accelerator import accelerator, find_qemu, probe
from distgate.errors import ConfigurationError


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
