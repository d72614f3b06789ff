"""A package with a name that no rpmbuild would take is the package's fault, and said in a sentence."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.rpm.nevra import Nevra, NoPackage, read_rpms

#: Names of as many letters as "forged" has, and what is wrong with them.
FORGED = {
    "a separator": b"for|ed",
    "a path": b"../../",
    "a hidden file": b".orged",
    "an option": b"-rgedx",
    "a word of two": b"for ed",
    "lines": b"for\ned",
    "a terminal's orders": b"\x1b[2Jx\x07",
    "no text": b"for\xffed",
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_repository(tmp_path_factory.mktemp("forged"), [SmallRpm("forged")])
    (found,) = place.rglob("*.rpm")
    return found


@pytest.mark.parametrize("name", FORGED.values(), ids=FORGED)
def test_a_forged_name_is_blamed_on_the_package(honest: Path, tmp_path: Path, name: bytes) -> None:
    forged = tmp_path / honest.name
    forged.write_bytes(honest.read_bytes().replace(b"forged", name))
    assert str(read_rpms([honest])[0].nevra) == "forged-1.0-3.noarch"
    with pytest.raises(NoPackage) as refused:
        read_rpms([forged])
    assert (refused.value.blame, refused.value.hint.endswith("not made by rpmbuild")) == ("package", True)
    assert "\x1b" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "bash|0|5.2|1.fc41|x86_64|bash.src.rpm",
        "libstdc++|0|14.2.1~rc1^git|3%{dist}|i686|(none)",
        "_x|7|1|1|noarch|s",
    ],
)
def test_what_rpmbuild_lets_pass_is_read(line: str) -> None:
    name, epoch, *_ = line.split("|")
    read = Nevra.parse(f"{line}\n")
    assert (read.name, read.epoch) == (name, int(epoch))


@pytest.mark.parametrize(
    "line", ["", "bash", "bash|x|5|1|x86_64|s", "bash|0|5|1|x86_64|s|more", "bash|0||1|x86_64|s"]
)
def test_a_line_that_describes_no_package_is_a_sentence(line: str) -> None:
    with pytest.raises(NoPackage, match="which no package may be called"):
        Nevra.parse(line)
