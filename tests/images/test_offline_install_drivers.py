"""Every way to mount an image gives the same image: one table over those that this machine has."""

from __future__ import annotations

import json
import os
import pickle
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.images.base import BaseImage, ComposedImage
from distgate.images.contents import installed_in
from distgate.images.layered import OfflineInstaller
from distgate.mounts.choice import choose_driver, supported_drivers
from distgate.process import run
from distgate.rpm.nevra import Nevra, read_rpms
from distgate.waiting import wait_for

OFFLINE = "test $(tail -n +3 /proc/net/dev | wc -l) = 1 && grep -q lo: /proc/net/dev"
POWERLESS = "! mknod /root/disk b 8 0 && ! mount -t tmpfs none /mnt && ! hostname other && chown 1 /root"
TIDY = 'ls -ld /proc/self/ && : > /dev/null && test -z "$(ls -A /tmp)"'
#: The classic way out of a chroot for root, and then a look for what is the host's own.
BREAK_OUT = """%post -p /usr/bin/python3
import os
os.makedirs("/outside")
door = os.open("/", os.O_RDONLY)
os.chroot("/outside")
os.fchdir(door)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
assert not os.path.exists("/etc/shadow"), "the host's passwords are there"
assert not os.path.exists("/var/lib") and not os.path.exists("/etc/hostname"), "the host's files are there"
assert not any(name.startswith(("sd", "vd", "loop")) for name in os.listdir("/dev")), "the host's disks are there"
for place in ("/usr/bin", "/etc/passwd", "/proc/sys/kernel/core_pattern"):
    assert not os.access(place, os.W_OK), place + " can be written"
try:
    os.stat("/proc/1/root/etc")
except PermissionError:
    pass
else:
    raise SystemExit("process 1 leads out")
"""
POLICY = r"""mkdir -p %{buildroot}/etc/selinux/lab/contexts/files
printf 'SELINUX=enforcing\nSELINUXTYPE=lab\n' > %{buildroot}/etc/selinux/config
printf '/.*\tsystem_u:object_r:default_t:s0\n/usr/share/.*\t--\tsystem_u:object_r:usr_t:s0\n' \
    > %{buildroot}/etc/selinux/lab/contexts/files/file_contexts
"""
PACKAGES = (
    SmallRpm(
        "witness",
        extra="Requires: companion",
        install="cd %{buildroot}/usr/share/witness\ntouch owned setuid able; ln -s owned link; mkdir -m 1777 sticky",
        files="%attr(0640, daemon, mail) /usr/share/witness/owned\n"
        "%attr(4755, root, games) /usr/share/witness/setuid\n"
        "%caps(cap_net_raw=ep) /usr/share/witness/able",
        scriptlets=f"%post\n{OFFLINE} && {POWERLESS} && {TIDY} && touch /usr/share/witness/made\n"
        "chown 12345:54321 /usr/share/witness/made",
    ),
    SmallRpm("companion", extra="Epoch: 2"),
    SmallRpm("policy", install=POLICY, files="/etc/selinux"),
    SmallRpm("houdini", extra="Requires: python3", scriptlets=BREAK_OUT),
    SmallRpm("daemon", scriptlets="%post\nsleep 3600 & :"),
    SmallRpm("badpost", scriptlets="%post\necho the disk is purple >&2; exit 3"),
    SmallRpm("lonely", extra="Requires: nosuch-thing >= 3"),
    SmallRpm("hanging", scriptlets="%post\nsleep 3600"),
    SmallRpm("bulky", install="head -c 24M /dev/urandom > %{buildroot}/usr/share/bulky/noise"),
    SmallRpm(
        "ballast",
        scriptlets="%post\nleft=$(df --output=avail -k / | tail -1); fallocate -l $((left - 9000))K /ballast",
    ),
)


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory that every user of this machine can reach; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="distgate-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def repository(room: Path) -> Path:
    (room / "rpms").mkdir()
    return make_repository(room / "rpms", PACKAGES)


@pytest.fixture(scope="module")
def built(repository: Path) -> dict[str, Nevra]:
    return {rpm.nevra.name: rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))}


@pytest.fixture(scope="module")
def base(base_image: BaseImage, room: Path) -> BaseImage:
    """The base image where an ordinary user can read it; of its repositories nothing is needed."""
    path = room / "base.qcow2"
    try:
        path.hardlink_to(base_image.path)
    except OSError:
        shutil.copy(base_image.path, path)
    return replace(base_image, path=path, repositories=())


@pytest.fixture
def place(room: Path) -> Iterator[Path]:
    """A directory of one test, that nobody in particular owns."""
    path = Path(tempfile.mkdtemp(prefix="compose-", dir=room))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


#: Somebody without any right; an /etc/subuid that only the driver sees gives them a range of other users.
ORDINARY = pwd.getpwnam("nobody")
AS_ORDINARY = """set -e
printf '%s:300000:65536\\n' {name} > {ranges}
for file in /etc/subuid /etc/subgid; do test -e $file || touch $file; mount --bind {ranges} $file; done
mount -t tmpfs tmpfs /root
if test ! -w /dev/fuse || test $(stat -c %a /dev/fuse) != 666; then
    mknod -m 666 {ranges}.fuse c 10 229; mount --bind {ranges}.fuse /dev/fuse
fi
exec setpriv --reuid {user} --regid {group} --clear-groups "$@"
"""
COMPOSE = """
import pickle, sys
from distgate.images.layered import OfflineInstaller
from distgate.errors import DistgateError
task, answer = sys.argv[1:3]
installer, arguments = pickle.load(open(task, "rb"))
try:
    result = installer.compose(*arguments)
except DistgateError as error:
    result = error
pickle.dump(result, open(answer, "wb"))
"""


@dataclass(frozen=True)
class Way:
    """A driver, and the words before a command that make it run as the driver's own kind of user."""

    driver: str
    installer: OfflineInstaller
    words: Callable[[Path], list[str]]

    def command(
        self, place: Path, base: BaseImage, repository: Path, packages: Sequence[Nevra], into: Path
    ) -> list[str]:
        """Composes in a process of its own, which leaves its result in place/answer."""
        (place / "task").write_bytes(pickle.dumps((self.installer, (base, repository, list(packages), into))))
        return [*self.words(place), sys.executable, "-c", COMPOSE, str(place / "task"), str(place / "answer")]

    def compose(
        self, place: Path, base: BaseImage, repository: Path, packages: Sequence[Nevra], into: Path
    ) -> ComposedImage:
        run(self.command(place, base, repository, packages, into), timeout=400)
        result = pickle.loads((place / "answer").read_bytes())
        for name in ("task", "answer", "ranges", "ranges.fuse"):
            (place / name).unlink(missing_ok=True)
        if isinstance(result, DistgateError):
            raise result
        assert isinstance(result, ComposedImage)
        return result


def as_ordinary(place: Path) -> list[str]:
    script = AS_ORDINARY.format(
        name=ORDINARY.pw_name, user=ORDINARY.pw_uid, group=ORDINARY.pw_gid, ranges=place / "ranges"
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture(scope="session")
def appliance_kernel(base_image: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A kernel for libguestfs: this machine's own, or else the guests'."""
    Path("/lib/modules").resolve().mkdir(exist_ok=True)  # as every machine with a kernel package has
    if any(Path("/boot").glob("vmlinuz-*")):
        return None
    top = tmp_path_factory.mktemp("kernel")
    package = next(Path(base_image.repositories[0]).glob("kernel-core-*.rpm"))
    archive = subprocess.Popen(["rpm2cpio", package], stdout=subprocess.PIPE)
    subprocess.run(["cpio", "-idm", "--quiet"], cwd=top, stdin=archive.stdout, check=True)
    assert archive.wait() == 0
    return next((top / "usr/lib/modules").iterdir())


@pytest.fixture
def way(request: pytest.FixtureRequest, cache: Path) -> Way:
    driver = request.param
    kernel = request.getfixturevalue("appliance_kernel") if driver == "guestfs" else None
    installer = OfflineInstaller(
        driver=driver, appliance_kernel=kernel, appliance_cache=cache / "appliance" if driver == "guestfs" else None
    )
    if driver == "rootless":
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch).chmod(0o755)
            tried = subprocess.run(
                [*as_ordinary(Path(scratch)), sys.executable, "-c", "import distgate"], capture_output=True, text=True
            )
        if tried.returncode:
            pytest.skip(f"an ordinary user cannot run this checkout: {tried.stderr.strip()[-200:]}")
        return Way(driver, installer, as_ordinary)
    reasons = {name: reason for name, _, reason in supported_drivers(kernel)}
    if reasons[driver]:
        pytest.skip(reasons[driver])
    return Way(driver, installer, lambda _place: [])


ALL = pytest.mark.parametrize("way", ["loop", "rootless", "guestfs"], indirect=True)
FAST = pytest.mark.parametrize("way", ["loop", "rootless"], indirect=True)


class Disk:
    """What is in a composed image, read by e2fsprogs alone."""

    def __init__(self, image: Path, offset: int, scratch: Path) -> None:
        raw = scratch / "disk.raw"
        run(["qemu-img", "convert", "-O", "raw", image, raw], timeout=120)
        self.where = f"{raw}?offset={offset}"

    def about(self, path: str) -> str:
        """Type, mode, owner and extended attributes of ``path``."""
        stat = run(["debugfs", "-R", f"stat {path}", self.where], timeout=60, split_errors=True).output
        return re.sub(r"\s+", " ", stat)

    def attribute(self, path: str, name: str) -> bytes:
        said = run(["debugfs", "-R", f"ea_get -x {path} {name}", self.where], timeout=60, split_errors=True).output
        return bytes.fromhex("".join(re.findall(r"\b[0-9a-f]{2}\b", said.partition("=")[2])))

    def check(self) -> None:
        run(["e2fsck", "-f", "-n", self.where], timeout=120)


#: Path, and what debugfs says of it.
EXPECTED = (
    ("/usr/share/witness/owned", r"Type: regular Mode: 0640 .*User: 1 Group: 8 "),
    ("/usr/share/witness/setuid", r"Type: regular Mode: 04755 .*User: 0 Group: 60 "),
    ("/usr/share/witness/sticky", r"Type: directory Mode: 01777 .*User: 0 Group: 0 "),
    ("/usr/share/witness/link", r"Type: symlink Mode: 0777 .*User: 0 Group: 0 "),
    ("/usr/share/witness/made", r"Type: regular Mode: 0644 .*User: 12345 Group: 54321 "),
)
LABELS = (
    ("/usr/share/witness/owned", b"system_u:object_r:usr_t:s0\0"),
    ("/usr/share/witness/made", b"system_u:object_r:usr_t:s0\0"),
    ("/usr/share/witness/link", b"system_u:object_r:default_t:s0\0"),
    ("/etc/selinux/config", b"system_u:object_r:default_t:s0\0"),
)
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


@ALL
def test_the_image_is_what_the_packages_say(
    way: Way, base: BaseImage, repository: Path, built: dict[str, Nevra], place: Path
) -> None:
    wanted = [built[name] for name in ("witness", "policy", "houdini", "daemon")]
    image = way.compose(place, base, repository, wanted, place / "image.qcow2")
    assert {*wanted, built["companion"]} <= set(image.installed)
    assert set(image.requested) == set(wanted)
    assert (image.driver, image.omitted, image.forced) == (way.driver, (), ())
    assert [path.name for path in place.iterdir()] == ["image.qcow2"]
    assert not left_behind(place)
    assert [step.name for step in image.steps] == [
        *("prepare", "open image", "mount", "read database", "solve", "transaction", "label", "read back"),
        *("unmount", "close image"),
    ]
    disk = Disk(image.path, base.root_offset, place)
    disk.check()
    for path, words in EXPECTED:
        assert re.search(words, disk.about(path)), path
    for path, label in LABELS:
        assert disk.attribute(path, "security.selinux") == label, path
    assert disk.attribute("/usr/share/witness/able", "security.capability") == CAP_NET_RAW
    assert "File not found" in run(["debugfs", "-R", "stat /.distgate-attributes", disk.where], timeout=60).output
    if way.driver != "guestfs":  # a second appliance would tell nothing new
        assert installed_in(image.path, base.root_offset) == image.installed


REFUSED = (
    ("badpost", "the disk is purple"),
    ("lonely", "nothing provides nosuch-thing >= 3 needed by lonely-1.0-3.noarch"),
)


@FAST
@pytest.mark.parametrize(("name", "words"), REFUSED)
def test_a_package_that_cannot_be_installed_leaves_nothing(
    way: Way, base: BaseImage, repository: Path, built: dict[str, Nevra], place: Path, name: str, words: str
) -> None:
    with pytest.raises(PackageError) as refused:
        way.compose(place, base, repository, [built[name]], place / "image.qcow2")
    assert words in f"{refused.value} {refused.value.evidence}"
    assert list(place.iterdir()) == []
    assert not left_behind(place)


@FAST
def test_a_package_that_does_not_fit_into_the_image_is_told_how_much_is_missing(
    way: Way, base: BaseImage, repository: Path, built: dict[str, Nevra], place: Path
) -> None:
    full = OfflineInstaller().compose(base, repository, [built["ballast"]], place / "full.qcow2")
    full.path.chmod(0o644)
    with pytest.raises(PackageError, match=r"do not fit into the image: .*\d+MB.* has \d+ MB free"):
        way.compose(place, replace(base, path=full.path), repository, [built["bulky"]], place / "image.qcow2")


@FAST
def test_a_full_disk_of_the_host_is_not_the_packages_fault(
    way: Way, base: BaseImage, repository: Path, built: dict[str, Nevra], place: Path
) -> None:
    small = place / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=777", "tmpfs", small], timeout=10)
    try:
        with pytest.raises(InfrastructureError, match="host's disk"):
            way.compose(place, base, repository, [built["bulky"]], small / "image.qcow2")
        assert list(small.iterdir()) == []
    finally:
        run(["umount", small], timeout=10)


@ALL
def test_a_killed_worker_leaves_no_mount_no_loop_device_no_process_and_no_image(
    way: Way, base: BaseImage, repository: Path, built: dict[str, Nevra], place: Path
) -> None:
    image = place / "image.qcow2"
    worker = subprocess.Popen(way.command(place, base, repository, [built["hanging"]], image))
    try:
        wait_for("the scriptlet", lambda: "Running scriptlet: hanging" in said_in(place), 200)
        assert processes_of(place)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for("everything to go", lambda: not left_behind(place) and not processes_of(place), 20)
    assert not list(place.rglob("*.qcow2*"))
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 4 << 20


def test_a_driver_that_cannot_be_used_is_refused_with_the_reason() -> None:
    asking = (sys.executable, "-c", ASK)
    said = run(
        ["setpriv", "--reuid", ORDINARY.pw_name, "--regid", str(ORDINARY.pw_gid), "--clear-groups", *asking],
        timeout=60,
    ).output
    answers = json.loads(said.splitlines()[-1])
    assert answers["loop"] == [False, "loop devices take root"]
    assert not answers["rootless"][0]
    assert "DISTGATE_COMPOSE_DRIVER=loop cannot be used here: loop devices take root" in answers["chosen"]


ASK = """
import json
from distgate.mounts.choice import choose_driver, supported_drivers
from distgate.errors import ConfigurationError
answers = {name: [ok, reason] for name, ok, reason in supported_drivers()}
try:
    answers["chosen"] = choose_driver("loop")
except ConfigurationError as refused:
    answers["chosen"] = str(refused)
print(json.dumps(answers))
"""


def test_auto_takes_the_fastest_that_can_be_used() -> None:
    usable = [name for name, ok, _ in supported_drivers() if ok]
    if not usable:
        with pytest.raises(ConfigurationError):
            choose_driver()
    else:
        assert choose_driver() == usable[0]


def left_behind(directory: Path) -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    loops = run(["losetup", "-a"], timeout=10).output.splitlines()
    return [*mounts, *(line for line in loops if str(directory) in line)]


def said_in(directory: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in directory.glob("transaction-*/transcript.log"))


def processes_of(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(directory) in words:
                found.append(int(entry.name))
    return found
