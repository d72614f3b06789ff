"""The lab's base image is what its kickstart says, and boots into a system that is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.guests.host import LibvirtGuests
from distgate.images.base import BaseImage
from lab.images.base_image import ensure_base, lab_store


@pytest.fixture(scope="module")
def base(cache: Path) -> BaseImage:
    return ensure_base(cache, print)


def test_it_is_in_a_store_and_qualified(base: BaseImage, cache: Path) -> None:
    entry = lab_store(cache.resolve()).find(base.identity)
    assert entry.base == base
    assert entry.qualified


def test_the_key_is_for_its_owner_only(base: BaseImage) -> None:
    assert base.ssh_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%packages\n%end\n", "part / --size"),
        ("part / --size=1000\n%packages\n%end\n%post --nochroot\nreboot\n%end\n", "line 5: the lab runs no"),
        ("part / --size=1000\n%packages\n-@dial-up\n%end\n", "cannot exclude groups (-@dial-up)"),
    ],
)
def test_a_kickstart_that_cannot_be_followed_is_refused(cache: Path, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "odd.ks"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        ensure_base(cache, print, file)
    assert words in str(refused.value)


@pytest.mark.guest
def test_it_boots_into_a_running_system_that_its_rpm_database_describes(base: BaseImage, tmp_path: Path) -> None:
    with LibvirtGuests(tmp_path).boot(base.path, base.ssh_key, tmp_path / "guest", 120) as guest:
        said = guest.run(
            "systemctl is-system-running; hostname; rpm -qf --qf '%{NAME}\\n' /usr/sbin/sshd /bin/sh; "
            "readlink -f /bin/sh; df --output=avail -m / | tail -n 1; python3 -c 'import dnf, json'; "
            "rpm -V bash kernel-core openssh-server && echo verified; "
            "ls -A /root/.cache /tmp /var/cache/dnf /var/log/dnf.log 2>/dev/null",
            120,
        )
    lines = said.stdout.split()
    assert lines[:5] == ["running", "lab-guest", "openssh-server", "bash", "/usr/bin/bash"]
    assert int(lines[5]) > 300
    assert lines[6:] == ["verified", "/tmp:"]  # nothing of the host that composed it
