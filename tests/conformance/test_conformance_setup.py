"""What a site configures becomes a run that can be started, or a sentence about the field that is wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from distgate.conformance.run import ConformanceSetup
from distgate.errors import ConfigurationError

TOPOLOGY = "nodes: [{name: one}]\nplaybooks: {install: i.yml, conformance: i.yml}\nrequires: [checksum]\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The URL and the one commit of a repository with a profile in the directory ``small``."""
    tree = tmp_path_factory.mktemp("profiles")
    (tree / "small").mkdir()
    (tree / "small" / "topology.yaml").write_text(TOPOLOGY)
    (tree / "small" / "i.yml").write_text("[]")
    (tree / "outside").symlink_to("/etc")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "A profile"]):
        subprocess.run(["git", "-C", tree, *words], check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"})
    said = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return f"file://{tree}", said.stdout.strip()


def test_a_profile_of_a_repository_is_read_at_its_revision(repository: tuple[str, str], tmp_path: Path) -> None:
    url, revision = repository
    setup = ConformanceSetup("small", url, revision, variables={"checksum": "abc"})
    assert setup.open(tmp_path / "guests", tmp_path / "room")
    assert (tmp_path / "room" / "small" / "topology.yaml").read_text() == TOPOLOGY


@pytest.mark.parametrize(
    ("profile", "revision", "variables", "words"),
    [
        ("small", "", {}, "needs variables .*: checksum"),
        ("large", "", {"checksum": "abc"}, "no conformance profile"),
        ("../profiles", "", {"checksum": "abc"}, "outside of its repository"),
        ("outside", "", {"checksum": "abc"}, "outside of its repository"),
        ("small", "main", {"checksum": "abc"}, "not a commit"),
        ("small", "0" * 40, {"checksum": "abc"}, "0000"),
    ],
)
def test_what_is_wrong_is_the_configurations(
    profile: str,
    revision: str,
    variables: dict[str, str],
    words: str,
    repository: tuple[str, str],
    tmp_path: Path,
) -> None:
    setup = ConformanceSetup(profile, repository[0], revision or repository[1], variables=variables)
    with pytest.raises(ConfigurationError, match=words):
        setup.open(tmp_path / "guests", tmp_path / "room")


def test_a_shipped_profile_needs_no_repository_but_its_variables(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="k3s_sha256"):
        ConformanceSetup("k3s").open(tmp_path / "guests", tmp_path / "room")
