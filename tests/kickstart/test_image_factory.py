"""imagefactory is called as it wants to be, watched, ended with all that it started, and blamed fairly."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.kickstart.imagefactory import ImageFactory, failure
from distgate.kickstart.imagefactory_monitor import take_down_installers
from distgate.kickstart.imagefactory_workspace import Resources
from distgate.process import run
from distgate.waiting import wait_for

KICKSTART = "# Ünïcode, 'quotes' and \"quotes\"\ntext\n%packages\n@core\n%end\n"
#: imagefactory's end of the protocol: find the storage in the configuration, make a body there, tell.
PRELUDE = r"""#!/bin/sh
set -eu
printf '%s\n' "$@" > "$SEEN/argv"
env > "$SEEN/environment"
while [ "$1" != base_image ]; do
    case $1 in --config) config=$2;; --timeout) echo "$2" > "$SEEN/timeout";; esac
    shift
done
for template; do :; done
cp "$config" "$SEEN/config"
cp "$template" "$SEEN/template"
place() { sed -n 's/.*"'"$1"'": "\(.*\)".*/\1/p' "$config"; }
storage=$(place storage_path)
screens=$(place oz_screenshot_dir)
body=$storage/6516ea03-5acb-4c1b-80ca-e294793db5ad.body
say() { echo "2026-11-22 00:00:00,000 DEBUG oz.ozutil thread(x) Message: $*"; }
fail() { echo; echo "Image build FAILED with error: $*"; exit 1; }
"""
SUCCESS = r"""
say "Generating JEOS disk image"
printf 'a disk' > "$body"; truncate -s 1M "$body"
complete() { echo '{"type": "BaseImage", "status": "COMPLETE"}' > "${1%.body}.meta"; }
complete "$body"
echo "Image build completed SUCCESSFULLY!"
"""
OZ_HANG = r"""
printf 'P6 1 1 255\n   ' > "$screens/factory-build-1.ppm"
fail "No disk activity in 300 seconds, failing.  Check screenshot at $screens/factory-build-1.ppm for more detail"
"""
TRACEBACK = r"""
echo "Traceback (most recent call last):"
echo "oz.OzException.OzException: This host does not support virtualization type kvm"
echo "AttributeError: 'OzException' object has no attribute 'message'"
fail "'OzException' object has no attribute 'message'"
"""
CHATTER = """
left=1200
while :; do say "Waiting for factory-build to finish installing, $left/1200"; left=$((left - 1)); sleep 0.05; done
"""
GROWTH = """
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do printf grown >> "$storage/../oz/installer.iso"; sleep 0.4; done
"""
#: A child in a session of its own, and a parent that regards no request to end.
STUBBORN = """
setsid sleep 987 &
trap '' TERM
while :; do sleep 1; done
"""


@pytest.fixture
def factory(tmp_path: Path) -> Callable[..., ImageFactory]:
    """Makes an ImageFactory whose command is a shell script that goes on as told."""

    def make(script: str, **options: object) -> ImageFactory:
        seen, command = tmp_path / "seen", tmp_path / "bin/imagefactory"
        seen.mkdir()
        command.parent.mkdir()
        command.write_text(PRELUDE + script)
        command.chmod(0o755)
        facts: dict[str, object] = {
            "no_progress_timeout": 60.0,
            "grace": 1.0,
            "resources": Resources(libvirt=""),
        } | options
        return ImageFactory(command=(str(command),), variables={"SEEN": str(seen)}, **facts)  # type: ignore[arg-type]

    return make


def build(factory: ImageFactory, directory: Path, timeout: float = 60) -> tuple[Path, list[str]]:
    lines: list[str] = []
    built = factory.build(
        KICKSTART, "cloud <rawhide>", "rawhide", directory / "out/image.qcow2", timeout, lines.append
    )
    assert built.path == directory / "out/image.qcow2"
    return built.path, lines


def left_behind(directory: Path) -> list[str]:
    """Whatever runs and mentions ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in environment:
                found.append(entry.name)
    return found


def files_of(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "out").iterdir())


def test_the_body_becomes_a_qcow2_beside_its_log_and_nothing_else_stays(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    image, lines = build(factory(SUCCESS), tmp_path)
    facts = json.loads(run(["qemu-img", "info", "--output", "json", image], timeout=30).output)
    assert (facts["format"], facts["virtual-size"]) == ("qcow2", 1 << 20)
    assert files_of(tmp_path) == ["image.qcow2", "image.qcow2.imagefactory.log"]
    assert "Generating JEOS disk image" in lines
    assert not left_behind(tmp_path)


def test_the_times_of_both_steps_are_in_the_record(factory: Callable[..., ImageFactory], tmp_path: Path) -> None:
    built = factory(SUCCESS).build(KICKSTART, "cloud", "44", tmp_path / "image.qcow2", 60)
    assert [step.name for step in built.steps] == ["build the image", "convert it to qcow2"]
    assert "SUCCESSFULLY" in built.log.read_text()


def test_the_call_names_private_directories_and_asks_for_no_boot(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    resources = Resources(libvirt="qemu:///session", memory=3000, cpus=2)
    build(factory(SUCCESS, parameters={"offline_icicle": "true"}, resources=resources), tmp_path, timeout=59.5)
    words = (tmp_path / "seen/argv").read_text().splitlines()
    private = Path(words[words.index("--imgdir") + 1]).parent
    assert words[:2] == ["--debug", "--config"]
    assert private.parent == tmp_path / "out"
    assert (tmp_path / "seen/timeout").read_text() == "54\n"
    pairs = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "--parameter"}
    assert pairs.keys() == {"generate_icicle", "offline_icicle", "oz_overrides"}
    assert json.loads(pairs["oz_overrides"]) == {
        "libvirt": {"uri": "qemu:///session", "image_type": "raw", "memory": "3000", "cpus": "2"}
    }
    configuration = json.loads((tmp_path / "seen/config").read_text())
    places = (configuration["oz_data_dir"], configuration["image_manager_args"]["storage_path"])
    assert all(Path(place).is_relative_to(private) for place in places)


def test_the_template_names_the_release_and_where_its_installer_is(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    build(factory(SUCCESS, install_url="http://mirror.invalid/{arch}/os/?a&b"), tmp_path)
    template = ElementTree.fromstring((tmp_path / "seen/template").read_text())
    assert template.findtext("os/version") == "rawhide"
    assert template.findtext("os/install/url") == "http://mirror.invalid/x86_64/os/?a&b"


def test_it_sees_a_listed_environment(
    factory: Callable[..., ImageFactory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOJI_PASSWORD", "secret")
    build(factory(SUCCESS), tmp_path)
    seen = (tmp_path / "seen/environment").read_text()
    assert "secret" not in seen
    assert f"TMPDIR={tmp_path}/out/imagefactory-" in seen


#: What imagefactory does, the class of error, and words of the error, its hint or its evidence.
FAILURES: tuple[tuple[str, type[DistgateError], str], ...] = (
    ('fail "No Oz config file found. Can\'t continue."', InfrastructureError, "No Oz config file found"),
    (OZ_HANG, TimedOut, "image.qcow2.imagefactory.screen.ppm"),
    (TRACEBACK, InfrastructureError, "OzException: This host does not support virtualization"),
    ("say 'nothing provides libx needed by demo-1-1.noarch'; fail installer", PackageError, "nothing provides libx"),
    ("kill -9 $$", InfrastructureError, "ended by SIGKILL"),
    ("exit 0", InfrastructureError, "left no complete images"),
    (f"{SUCCESS}: > $body", InfrastructureError, "no complete images"),
    (
        f'{SUCCESS}echo \'{{"status": "BUILDING"}}\' > ${{body%.body}}.meta',
        InfrastructureError,
        "was it asked to end",
    ),
    (
        f"{SUCCESS}cp $body $storage/other.body; complete $storage/other.body",
        InfrastructureError,
        "2 complete images",
    ),
    ("exit 2", InfrastructureError, "status 2"),
)


@pytest.mark.parametrize(("script", "kind", "words"), FAILURES, ids=[words for _, _, words in FAILURES])
def test_a_failure_tells_why_keeps_the_log_and_leaves_no_image(
    factory: Callable[..., ImageFactory], tmp_path: Path, script: str, kind: type[DistgateError], words: str
) -> None:
    with pytest.raises(kind) as failed:
        build(factory(script), tmp_path)
    assert type(failed.value) is kind
    assert words in f"{failed.value} {failed.value.evidence}"
    assert set(files_of(tmp_path)) - {"image.qcow2.imagefactory.screen.ppm"} == {"image.qcow2.imagefactory.log"}
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("script", ["sleep 600", CHATTER, STUBBORN], ids=["silence", "chatter", "stubborn"])
def test_a_build_that_makes_no_progress_is_ended(
    factory: Callable[..., ImageFactory], tmp_path: Path, script: str
) -> None:
    with pytest.raises(TimedOut, match="no progress for 2 s") as late:
        build(factory(f"say starting; {script}", no_progress_timeout=2.0), tmp_path)
    assert "starting" in late.value.evidence
    assert files_of(tmp_path) == ["image.qcow2.imagefactory.log"]
    assert not left_behind(tmp_path)


def test_a_file_that_grows_is_progress_however_silent_the_log(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    build(factory(GROWTH + SUCCESS, no_progress_timeout=2.0), tmp_path)


def test_a_build_ends_with_its_deadline_even_when_it_makes_progress(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    with pytest.raises(TimedOut, match="gave up after 3 s waiting for imagefactory to end"):
        build(factory("while :; do echo x >> $storage/file; sleep 0.1; done"), tmp_path, timeout=3)
    assert not left_behind(tmp_path)


def test_it_is_asked_to_end_so_that_it_can_take_down_its_installer(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    script = "trap 'echo asked > $SEEN/asked; exit 1' TERM; while :; do sleep 0.2; done"
    with pytest.raises(TimedOut):
        build(factory(script, grace=20.0), tmp_path, timeout=2)
    assert (tmp_path / "seen/asked").exists()


WORKER = """
import sys
from pathlib import Path
from distgate.kickstart.imagefactory import ImageFactory
from distgate.kickstart.imagefactory_workspace import Resources
command, seen, into = sys.argv[1:]
factory = ImageFactory(command=(command,), grace=1.0, variables={"SEEN": seen}, resources=Resources(libvirt=""))
factory.build("text\\n", "cloud", "44", Path(into), 600)
"""


def test_a_killed_worker_leaves_no_process_and_no_image(factory: Callable[..., ImageFactory], tmp_path: Path) -> None:
    command = factory(f"touch $SEEN/started; {STUBBORN}").command[0]
    out = tmp_path / "out/image.qcow2"
    out.parent.mkdir()
    out.write_text("an older image")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, command, str(tmp_path / "seen"), str(out)])
    try:
        wait_for("the build to begin", lambda: (tmp_path / "seen/started").exists(), 60)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for("everything to go", lambda: not left_behind(tmp_path), 30)
    assert not out.exists()


def test_what_a_killed_build_left_is_removed_by_the_next_and_a_running_ones_is_not(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    for name in ("imagefactory-dead", "imagefactory-alive"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "lock").touch()
    holder = subprocess.Popen(["flock", str(tmp_path / "out/imagefactory-alive/lock"), "sh", "-c", "echo; exec cat"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdout
    holder.stdout.readline()
    build(factory(SUCCESS), tmp_path)
    assert files_of(tmp_path) == ["image.qcow2", "image.qcow2.imagefactory.log", "imagefactory-alive"]
    holder.communicate()


def test_a_command_that_is_not_there_is_ours_to_put_right(tmp_path: Path) -> None:
    with pytest.raises((ConfigurationError, InfrastructureError)) as refused:
        ImageFactory(command=("no-such-imagefactory",)).build(KICKSTART, "x", "44", tmp_path / "image.qcow2", 30)
    assert "no-such-imagefactory" in f"{refused.value} {refused.value.evidence}"


ECHOED = """2026-11-22 00:17:52,1 DEBUG root thread(MainThread) Message: Parameters are:
2026-11-22 00:17:52,1 DEBUG root thread(MainThread) Message:
{'install_script': '# if nothing provides what we need\\n'
                   'echo scriptlet failed, exit status 1\\n'}
2026-11-22 00:17:52,9 DEBUG x thread(y) Message: Saved metadata for image (z): {'parameters': 'nothing provides'}
"""
#: imagefactory's log, who is to blame, and what the sentence says.
SAID = (
    (f"{ECHOED}\nImage build FAILED with error: Expecting value", InfrastructureError, "Expecting value"),
    (f"{ECHOED} Problem: conflicting requests\n  - nothing provides x", PackageError, "nothing provides x"),
    ("The following software marked for installation has errors.", PackageError, "marked for installation"),
    ("Error in POSTIN scriptlet in rpm package demo", PackageError, "POSTIN scriptlet in rpm package demo"),
    ("Failed to download metadata for repo\n Problem: nothing provides x", InfrastructureError, "nothing provides"),
    ("Timed out waiting for install to finish.  Failed to take screenshot", TimedOut, "Timed out waiting"),
    ("", InfrastructureError, "it ended with status 1"),
)


@pytest.mark.parametrize(("said", "kind", "words"), SAID)
def test_the_words_of_the_log_tell_who_is_to_blame(said: str, kind: type[DistgateError], words: str) -> None:
    error = failure(said, 1)
    assert type(error) is kind
    assert words in error.message


def test_the_kickstart_reaches_imagefactory_byte_for_byte(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    keep = f"for word; do case $word in *.ks) cp $word {shlex.quote(str(tmp_path))}/seen/kickstart;; esac; done"
    build(factory(keep + SUCCESS), tmp_path)
    assert (tmp_path / "seen/kickstart").read_text(encoding="utf-8") == KICKSTART


DOMAIN = "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"


def test_the_installers_virtual_machine_is_taken_down_in_libvirt_and_no_other(tmp_path: Path) -> None:
    ours, theirs = "6516ea03-5acb-4c1b-80ca-e294793db5ad", "7a6a65ea-f6ac-422e-9b11-5d7d03d2fdd0"
    (tmp_path / f"{ours}.body").touch()
    connection = libvirt.open("test:///default")  # all connections of one process see the same machines
    for uuid in (ours, theirs):
        connection.createXML(DOMAIN.format(name=f"factory-build-{uuid}"))
    assert take_down_installers(tmp_path, "test:///default") == [f"factory-build-{ours}"]
    names = {domain.name() for domain in connection.listAllDomains()}
    assert f"factory-build-{theirs}" in names
    assert f"factory-build-{ours}" not in names
    connection.close()


def test_a_failed_build_says_when_libvirt_cannot_be_asked(
    factory: Callable[..., ImageFactory], tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError):
        build(factory("fail broken", resources=Resources(libvirt="nosuch:///system")), tmp_path)
    log = (tmp_path / "out/image.qcow2.imagefactory.log").read_text()
    assert "cannot look for the installer's virtual machine" in log
