"""imagefactory as an image builder: a kickstart in, a bootable qcow2 out, or who is to blame for none."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from distgate.errors import DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.files import draft_of, remove_tree, tail_of
from distgate.kickstart.base import BuiltImage, ImageFactoryFields
from distgate.kickstart.imagefactory_workspace import BuildProgress, Resources, Workspace
from distgate.kickstart.tdl import install_tree, template
from distgate.process import kill_group, run, spawn
from distgate.rpm.dnf_output import at_fault, failed_scriptlets
from distgate.steps import Progress, Steps
from distgate.waiting import Deadline, wait_for

#: How much of the log's end is judged, in bytes, and how much becomes evidence.
JUDGED, EVIDENCE = 200_000, 6000
CONVERT_SECONDS = 1800.0
_MONITOR = "distgate.kickstart.imagefactory_monitor"


@dataclass(frozen=True)
class ImageFactory:
    """Builds images by calling ``command``, which has imagefactory's command line.

    ``no_progress_timeout`` ends a build whose log has nothing new and whose files do not grow for that many
    seconds; ``grace`` are the seconds from the request to end to the kill. ``workdir`` takes the private directory of
    each build (default: beside the image) and needs room for the whole disk. ``install_url`` is where the installer
    is, with ``{release}`` and ``{arch}`` filled in (default: Fedora's own tree). ``parameters`` are passed on as
    ``--parameter``; ``variables`` are added to the few environment variables that imagefactory sees.
    """

    command: tuple[str, ...] = ("imagefactory",)
    no_progress_timeout: float = 900.0
    workdir: Path | None = None
    resources: Resources = field(default_factory=Resources)
    install_url: str = ""
    arch: str = "x86_64"
    compressed: bool = False
    grace: float = 30.0
    parameters: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def configured(cls, fields: ImageFactoryFields) -> ImageFactory:
        """The one that a site describes."""
        return cls(
            command=fields.argv,
            no_progress_timeout=fields.no_progress_timeout,
            workdir=Path(fields.workdir) if fields.workdir else None,
            resources=Resources(fields.libvirt, fields.memory, fields.cpus, fields.disk),
            install_url=fields.install_url,
            arch=fields.arch,
            compressed=fields.compressed,
            parameters=fields.parameters,
            variables=fields.variables,
        )

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        """Build as distgate.kickstart.base.ImageBuilder documents.

        The log is ``INTO.imagefactory.log``, whose lines go to ``progress`` once each; a picture of the installer's
        screen, where one was taken, is ``INTO.imagefactory.screen.png`` (or .ppm). No process and no private file is
        left, whatever happens.
        """
        into = into.absolute()
        log = into.with_name(into.name + ".imagefactory.log")
        steps, deadline = Steps(progress), Deadline(timeout)
        try:
            into.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")
            into.unlink(missing_ok=True)
            with _private_directory(self.workdir or into.parent) as top:
                workspace = Workspace(top)
                workspace.prepare(kickstart, self._template(name, release))
                with _keeping_the_screen(workspace, log):
                    self._make(workspace, into, log, steps, deadline, progress)
        except OSError as error:
            raise InfrastructureError(f"cannot write what a build of {into.name} needs: {error}") from error
        return BuiltImage(into, log, steps.taken, "imagefactory")

    def _make(
        self, workspace: Workspace, into: Path, log: Path, steps: Steps, deadline: Deadline, progress: Progress
    ) -> None:
        with steps.step("build the image"):
            self._call(workspace, log, deadline, progress)
        with steps.step("convert it to qcow2"):
            self._convert(workspace.body(), into)

    def _template(self, name: str, release: str) -> str:
        if self.install_url:
            tree = self.install_url.format(release=release, arch=self.arch)
        else:
            tree = install_tree(release if release == "rawhide" else f"f{release}", self.arch)
        return template(name, release, self.arch, tree, disk_gib=self.resources.disk)

    def _call(self, workspace: Workspace, log: Path, deadline: Deadline, progress: Progress) -> None:
        argv = workspace.argv(self.command, deadline.seconds, self.resources, self.parameters)
        variables = {"LC_ALL": "C.UTF-8"} | dict(self.variables) | {"TMPDIR": str(workspace.temporary)}
        monitor_arguments = [str(log), str(workspace.storage), self.resources.libvirt]
        monitored = [sys.executable, "-m", _MONITOR, str(os.getpid()), str(self.grace), *monitor_arguments, *argv]
        monitor = spawn(["setpriv", "--pdeathsig", "TERM", "--", *monitored], log_to=log, env=variables)
        try:
            status = self._wait(
                monitor,
                BuildProgress(log, (workspace.top,), min(10.0, self.no_progress_timeout / 5)),
                deadline,
                progress,
            )
        finally:
            self._end(monitor)
        if status != 0:
            raise failure(tail_of(log, JUDGED), status)

    def _wait(self, monitor: Popen[bytes], build: BuildProgress, deadline: Deadline, progress: Progress) -> int:
        silence = Deadline(self.no_progress_timeout)

        def status() -> tuple[int] | None:
            ended = monitor.poll()
            moved, lines = build.poll()
            for line in filter(None, map(_worth_showing, lines)):
                progress(line)
            if moved:
                silence.reset(self.no_progress_timeout)
            if ended is None and silence.passed:
                raise TimedOut(
                    f"imagefactory showed no progress for {silence.seconds:g} s: no news in its log, no file grew",
                    evidence=tail_of(build.log, EVIDENCE),
                )
            return None if ended is None else (ended,)

        evidence = partial(tail_of, build.log, EVIDENCE)
        return wait_for("imagefactory to end", status, deadline, evidence=evidence, interval=0.25)[0]

    def _end(self, monitor: Popen[bytes]) -> None:
        """Ask first: the monitor has to take down the installer that runs in libvirt's daemon."""
        if monitor.poll() is None:
            monitor.send_signal(signal.SIGTERM)
        with suppress(TimeoutExpired):
            monitor.wait(self.grace + 15)
        kill_group(monitor.pid)
        monitor.wait()

    def _convert(self, body: Path, into: Path) -> None:
        convert = ["setpriv", "--pdeathsig", "KILL", "--", "qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
        with draft_of(into) as draft:
            run([*convert, *(["-c"] if self.compressed else []), body, draft], timeout=CONVERT_SECONDS)


_FAILED = re.compile(r"Image build FAILED with error: (.*)")
#: The installer's form of what dnf calls a problem.
_MARKED = re.compile(r"software marked for installation has errors")
_UNINSTALLABLE = re.compile(rf"{_MARKED.pattern}|nothing provides|conflicting requests")
#: Oz has its own deadlines for the installer.
_HUNG = re.compile(r"Timed out waiting for install to finish|No disk activity in \d+ seconds")
_SCREENSHOT = re.compile(r"Check screenshot at (\S+) for more detail")
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception): ")
#: imagefactory logs its parameters, with the whole kickstart, as Python literals: those are ours, not its output.
_ECHO = re.compile(r"^[\s{]*['\"]|Saved metadata for image|Message: \{")


def failure(output: str, status: int) -> DistgateError:
    """The error that imagefactory's ``output`` and exit ``status`` deserve.

    PackageError when the packages of the image do not install, TimedOut when the installer hung,
    InfrastructureError for everything else.
    """
    messages = "\n".join(line for line in output.splitlines() if not _ECHO.search(line))
    sentence = _sentence(messages, status)
    text, evidence = f"imagefactory built no image: {sentence}", messages[-EVIDENCE:]
    if at_fault(_MARKED.sub("\nProblem:", messages)) == "package":
        problem = (
            failed_scriptlets(messages) or [line for line in messages.splitlines() if _UNINSTALLABLE.search(line)]
        )[-1:]
        reason = problem[0].strip(" -") if problem else sentence
        return PackageError(f"the packages cannot be installed into a new image: {reason}", evidence=evidence)
    return (TimedOut if _HUNG.search(messages) else InfrastructureError)(text, evidence=evidence)


def _sentence(messages: str, status: int) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    failed = _FAILED.findall(messages)
    if not failed:
        return _how_it_ended(status) + (f", having said: {_message(lines[-1])}" if lines else "")
    # imagefactory's own handling of an exception of Oz may raise another: the first one is the reason.
    first = next((line for line in lines if _EXCEPTION.match(line)), "")
    sentence = str(failed[-1])
    return f"{sentence}; the first exception was {first[:300]}" if first and sentence not in first else sentence


def _how_it_ended(status: int) -> str:
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(status - 128).name}"
    return f"it ended with status {status}"


@contextmanager
def _keeping_the_screen(workspace: Workspace, log: Path) -> Iterator[None]:
    """An error's hint names the log, and the picture of the installer's screen if one was taken."""
    try:
        yield
    except DistgateError as error:
        named = _SCREENSHOT.search(tail_of(log, JUDGED))
        screenshot = workspace.keep_screenshot(Path(named[1]) if named else None, log.with_suffix(".screen"))
        hint = f"its log is {log}" + (f", the installer's screen is {screenshot}" if screenshot else "")
        raise type(error)(error.message, hint=error.hint or hint, evidence=error.evidence) from error


_LOGGED = re.compile(r"^\d{4}-\d\d-\d\d \S+ [A-Z]+ .*? Message: (.*)$")


def _worth_showing(line: str) -> str:
    """What to show of a line of the log: nothing for our own input and for indented details."""
    return "" if _ECHO.search(line) or line.startswith((" ", "\t")) else _message(line)


def _message(line: str) -> str:
    """A line of the log without its time and logger."""
    logged = _LOGGED.match(line)
    return (logged[1] if logged else line).strip()[:300]


@contextmanager
def _private_directory(parent: Path) -> Iterator[Path]:
    """A new directory, removed afterwards; those of killed builds, whose locks are free, are removed now."""
    parent.mkdir(parents=True, exist_ok=True)
    for lock_file in parent.glob("imagefactory-*/lock"):
        with suppress(OSError):
            _remove_if_abandoned(lock_file)
    top = Path(tempfile.mkdtemp(prefix="imagefactory-", dir=parent))
    try:
        with (top / "lock.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # before it has the name that others look for
            os.rename(lock.name, top / "lock")
            yield top
    finally:
        remove_tree(top, ignore_errors=True)


def _remove_if_abandoned(lock: Path) -> None:
    # Read-only and ours: the directory above may be one where everybody leaves things.
    handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid == lock.parent.lstat().st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(lock.parent, ignore_errors=True)
    finally:
        os.close(handle)
