"""A run as a container: an engine of our own, the worker's image built from Debian, and the shipped Docker pool.

Nothing of the job template is changed for it: volumes, devices, capabilities, limits and the bridge network are those
of deploy/pools/docker.json. What they need of a host is made in a sealed host (lab/sites/sealed_host.py), which has
/etc/distgate, /var/lib/distgate, the account distgate and the bridge for itself. Prefect and the ledger's PostgreSQL
are in there, too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from commit_from_inside import LOOKED

from distgate.files import tail_of
from distgate.process import spawn
from distgate.waiting import wait_for
from lab import teardown
from lab.sites import container_engine
from lab.sites.container_engine import Engine
from lab.sites.containers import DATA, PROGRAM, SETTINGS, USER_ID
from lab.sites.sealed_host import SealedHost, sealed_host

NO_ENGINE = container_engine.why_not()
pytestmark = [
    pytest.mark.rehearsal,
    pytest.mark.guest,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(NO_ENGINE), reason=NO_ENGINE),
]

ROOT = Path(__file__).parents[2]
SITE_SECONDS, RUN_SECONDS, SOON = 1800.0, 900.0, 300.0
STAGES = ("package", "image", "image.test.smoke", "package.test.functional")
ALL = [f"{stage}.{state} SUCCESS" for stage in STAGES for state in ("queued", "running", "complete")]
OF_ENGINES = ("docker", "veth", "br-")


@dataclass(frozen=True)
class Killed:
    """A container that was killed while its guest ran: what there was before and after, and what was said of it."""

    guests: list[str]
    guests_left: list[str]
    containers: list[str]
    volumes: list[str]
    said: list[str]
    leased: list[str]


@dataclass
class Story:
    """What was seen of two commits; paths are those of the host around."""

    said: list[str] = field(default_factory=list)
    container: dict[str, Any] = field(default_factory=dict)
    #: Of the process of the run: fields of its status, and its environment.
    status: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    #: What lies in the run's directory of artifacts, and the texts in it.
    kept: list[Path] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    results: list[Path] = field(default_factory=list)
    overlay: dict[str, Any] = field(default_factory=dict)
    killed: Killed | None = None
    audit: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


@dataclass
class Site:
    """The site of containers while it is up."""

    engine: Engine
    state: Path

    @property
    def host(self) -> SealedHost:
        return self.engine.host

    def docker(self, *words: str) -> str:
        return self.engine.docker(*words).output.strip()

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--quiet", "--no-trunc").split()

    def processes(self, container: str) -> dict[str, str]:
        """The processes of a container as the host numbers them, and their words."""
        listed = self.docker("top", container, "-eo", "pid,args").splitlines()[1:]
        return {pid: words for pid, _, words in (line.strip().partition(" ") for line in listed)}

    def guests(self, container: str) -> list[str]:
        """The guests of a container's runs, without the emulators that are only asked what they can do."""
        return [
            words for words in self.processes(container).values() if "qemu-system" in words and " guest=" in words
        ]

    def read(self, path: str) -> str:
        return self.host.run(["cat", path], timeout=30).output

    def distgate(self, *words: str) -> Any:
        """What a command of ours says in JSON, with the settings of the site."""
        lines = self.host.path(f"{SETTINGS}/distgate.env").read_text().splitlines()
        env = dict(line.partition("=")[::2] for line in lines)
        argv = [sys.executable, "-m", "distgate.cli", *words, "--json"]
        said = self.host.run(argv, timeout=120, env=env, allowed=(0, 1))
        return json.loads(said.output[said.output.index("{") :])

    def follow(self, log: Path, *words: str) -> Followed:
        script = Path(__file__).with_name("commit_from_inside.py")
        argv = [*self.host.prefix(), sys.executable, script, self.state / "lab", *words]
        return Followed(self, log, spawn(argv, log_to=log))


@dataclass
class Followed:
    """A commit on its way."""

    site: Site
    log: Path
    process: Any

    def container(self) -> str:
        """The container of its run, once there is one."""
        return wait_for(
            "a container", lambda: self.site.containers() or None, SOON, evidence=self.evidence, interval=1
        )[0]

    def verdict(self) -> list[str]:
        """Everything that was said, without the IDs, once the last word was."""
        wait_for("a verdict", lambda: self.process.poll() is not None, RUN_SECONDS, evidence=self.evidence)
        return [" ".join(line.split()[:2]) for line in self.lines()]

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()[1:]

    def run_id(self) -> str:
        return self.lines()[0].split()[2].partition(".")[0]

    def evidence(self) -> str:
        worker = tail_of(self.site.state / "lab/logs/worker.log", 3000)
        shown = [self.site.docker("logs", "--tail", "40", one) for one in self.site.containers()]
        return "\n".join([tail_of(self.log), worker, *shown])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Story]:
    """The whole story, when it is over and everything was taken down."""
    state = tmp_path_factory.mktemp("containers").resolve()
    data, before = state / "engine", traces(state)
    archive = container_engine.debian_archive(cache, print)
    story = Story()
    try:
        with (
            sealed_host(state / "builder", "builder", network=False) as host,
            container_engine.running_engine(host, data, bridge=False) as engine,
        ):
            container_engine.build_image(engine, archive, ROOT, "distgate:latest", print)
        with (
            sealed_host(state / "host", "container-host") as host,
            container_engine.running_engine(host, data, bridge=True) as engine,
        ):
            tell(story, start(Site(engine, state), cache))
        story.left = sorted(set(traces(state)) - set(before))
        yield story
    finally:
        container_engine.remove(data)
        shutil.rmtree(state, ignore_errors=True)


def start(site: Site, cache: Path) -> Site:
    words = ["-m", "lab.sites.containers", "--state", str(site.state / "lab"), "--cache", str(cache)]
    site.host.run([sys.executable, *words], timeout=SITE_SECONDS, log_to=site.state / "site.log")
    return site


def tell(story: Story, site: Site) -> None:
    curious = site.follow(site.state / "curious.log", "--curious")
    container = curious.container()
    (story.container,) = json.loads(site.docker("inspect", container))
    look_at_process(story, site, container, curious)
    story.said = curious.verdict()
    look_at_files(story, site, curious.run_id())
    wait_for("the container to be removed", lambda: not site.containers(), SOON, interval=1)
    story.killed = kill_one(site)
    story.audit = site.distgate("audit")


def look_at_files(story: Story, site: Site, run_id: str) -> None:
    inside = DATA / "artifacts" / run_id
    room = site.host.path(str(inside))
    story.kept = list(room.iterdir())
    files = [one for one in room.rglob("*") if one.is_file() and one.suffix not in (".qcow2", ".rpm")]
    story.texts = {one: one.read_text(errors="replace") for one in files}
    story.results = [one for one in site.host.path(f"{DATA}/results").rglob("*") if one.is_file()]
    (image,) = room.glob("image/*.qcow2")
    words = ["qemu-img", "info", "--output=json", inside / "image" / image.name]
    story.overlay = json.loads(site.host.run(words, timeout=60).output)


def look_at_process(story: Story, site: Site, container: str, commit: Followed) -> None:
    """The process of the run: neither the container's init nor its entrypoint is a Python."""

    def found() -> str | None:
        known = site.processes(container)
        return next((pid for pid, words in known.items() if words.split()[0].endswith("/python")), None)

    pid = wait_for("the process of the run", found, SOON, evidence=commit.evidence)
    status = site.read(f"/proc/{pid}/status").splitlines()
    story.status = {name: rest.strip() for name, _, rest in (line.partition(":") for line in status)}
    environment = site.read(f"/proc/{pid}/environ").split("\0")
    story.environment = dict(one.partition("=")[::2] for one in environment if one)


def kill_one(site: Site) -> Killed:
    """Kill a container without a word while a guest runs in it."""
    commit = site.follow(site.state / "killed.log")
    container = commit.container()
    guests = wait_for(
        "a guest", lambda: site.guests(container) or None, RUN_SECONDS, evidence=commit.evidence, interval=1
    )
    site.docker("kill", container)
    wait_for("the container to be removed", lambda: not site.containers(), SOON, interval=1)
    left = site.host.run(["pgrep", "--list-full", "qemu-system"], timeout=30, allowed=(0, 1)).output.splitlines()
    volumes = site.docker("volume", "ls", "--quiet").split()
    said = commit.verdict()
    leased = [lease for base in site.distgate("images", "list")["bases"] for lease in base["leases"]]
    return Killed(guests, left, site.containers(), volumes, said, leased)


def traces(state: Path) -> list[str]:
    """What an engine and a site would leave on this host: mounts, control groups, processes, interfaces, files."""
    links = [one for one in os.listdir("/sys/class/net") if one.startswith(OF_ENGINES)]
    places = [SETTINGS, PROGRAM, DATA, Path("/var/lib/docker"), Path("/etc/docker"), container_engine.SOCKET]
    return [
        *(f"mount {one}" for one in teardown.mounts_below(state)),
        *(f"control group {one}" for one in container_engine.groups(container_engine.group_of(state / "engine"))),
        *(f"interface {one}" for one in links),
        *(f"file {one}" for one in places if one.exists()),
        *(f"account {line}" for line in Path("/etc/passwd").read_text().splitlines() if line.startswith("distgate:")),
        *(f"process {pid}" for pid in os.listdir("/proc") if pid.isdigit() and speaks_of(int(pid), state)),
    ]


def speaks_of(pid: int, state: Path) -> bool:
    try:
        return str(state) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False


def test_a_commit_gets_its_verdict_from_a_container(story: Story) -> None:
    assert story.said == [*ALL, "complete SUCCESS"]


def test_the_container_is_what_the_job_template_says(story: Story) -> None:
    template = json.loads((ROOT / "deploy/pools/docker.json").read_text())["variables"]["properties"]
    created, host = template["container_create_kwargs"]["default"], story.container["HostConfig"]
    assert story.container["Config"]["Image"] == template["image"]["default"]
    assert sorted(host["Binds"]) == sorted(template["volumes"]["default"])
    assert [f"{one['PathOnHost']}:{one['PathInContainer']}:rw" for one in host["Devices"]] == created["devices"]
    assert [one.removeprefix("CAP_") for one in host["CapAdd"]] == created["cap_add"]
    assert (host["CapDrop"], host["SecurityOpt"]) == (created["cap_drop"], created["security_opt"])
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (6 << 30, 6 << 30, created["pids_limit"])
    assert (host["AutoRemove"], host["Init"], host["Privileged"]) == (True, True, False)


def test_the_container_is_on_the_engine_s_bridge(story: Story) -> None:
    assert story.container["HostConfig"]["NetworkMode"] in ("default", "bridge")
    assert story.container["NetworkSettings"]["Networks"]["bridge"]["Gateway"] == container_engine.BRIDGE


def test_a_run_is_an_ordinary_user_without_capabilities(story: Story) -> None:
    assert set(story.status["Uid"].split()) == {str(USER_ID)}
    assert {int(story.status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


def test_what_a_run_leaves_is_on_the_host_under_the_same_names(story: Story) -> None:
    assert {one.name for one in story.kept} >= {"build", "image", "smoke", "tests"}
    assert story.results, "a run is resumed from these"
    backing = Path(story.overlay["full-backing-filename"])
    assert backing.is_relative_to(DATA / "images/bases")


def test_the_tests_of_a_package_find_no_credential_in_a_container(story: Story) -> None:
    secrets = [urlsplit(story.environment[f"DISTGATE_{one}_URL"]).password for one in ("LEDGER", "AMQP")]
    assert all(secrets), "the run has them, or nothing would be proven"
    assert [path for path, text in story.texts.items() if any(one in text for one in secrets if one)] == []
    (seen,) = (text for path, text in story.texts.items() if path.name == "ansible.txt" and LOOKED in text)
    assert [word for word in ("DISTGATE_", "PREFECT_", "distgate.env") if word in seen] == []


def test_a_killed_container_takes_its_guest_along(story: Story) -> None:
    assert story.killed
    assert story.killed.guests
    assert (story.killed.guests_left, story.killed.containers, story.killed.volumes) == ([], [], [])
    assert story.killed.leased == []


def test_the_run_of_a_killed_container_ends_as_one_of_a_dead_host(story: Story) -> None:
    assert story.killed
    assert story.killed.said[-1] == "complete ABORTED"


def test_the_books_balance(story: Story) -> None:
    assert story.audit["problems"] == []
    assert story.audit["balanced"]


def test_nothing_of_it_is_left_on_the_host(story: Story) -> None:
    assert story.left == []
