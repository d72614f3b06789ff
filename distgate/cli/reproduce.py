"""The command ``distgate reproduce``: a run once more, on this machine, with neither server nor broker."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgate.cli.output import AsJson, print_json
from distgate.text import printable

if TYPE_CHECKING:
    from distgate.guests.registry import HeldGuest
    from distgate.runs.record import RunRecord, SuiteRecord
    from distgate.runs.reproduction import Comparison, Workbench
    from distgate.runs.search import RecordedRun
    from distgate.settings import Settings

#: Lines of a failed build's log that are shown.
LOG_LINES = 15
Progress = Callable[[str], None]


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command()(reproduce)


def reproduce(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MESSAGE|PATH",
            help="A run's ID or its beginning, a file with a message about it, or its directory, also a copy",
        ),
    ],
    suite: Annotated[list[str] | None, typer.Option(help="Only this suite; may be given more than once")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the guest of the first failing suite up, or else the last guest")
    ] = False,
    minutes: Annotated[int, typer.Option(min=1, help="For how long a kept guest stays up")] = 60,
    into: Annotated[
        Path | None, typer.Option(help="Directory to work in, new or empty; by default one beside you")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Record of a base image (base.json) to use instead of the recorded one")
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="Memory of a guest in MiB")] = 768,
    cpus: Annotated[int, typer.Option(min=1, help="Virtual processors of a guest")] = 1,
    as_json: AsJson = False,
) -> None:
    """Do a run's stages again from its recorded inputs and compare the verdicts.

    Exit 0 for SUCCESS here, 1 for UNSTABLE or FAILURE, 2 for a wrong call or when this machine is to blame.
    """
    from distgate.runs.reproduction import Reproduction
    from distgate.runs.search import find_run
    from distgate.settings import settings

    config = settings()
    recorded = find_run(what, _artifacts(config))

    def progress(line: str) -> None:
        print(printable(line), file=sys.stderr if as_json else sys.stdout, flush=True)

    progress(_title(recorded))
    if recorded.record.build is None or not recorded.record.build.rpms:
        _print_build(recorded, progress, as_json)
        raise typer.Exit(1)
    guests: list[HeldGuest] = []
    bench = _bench(config, (memory, cpus), base, 60.0 * minutes if keep else 0.0, guests)
    directory = _fresh(into, recorded.record)
    progress(f"working in {directory}")
    seen = Reproduction(recorded, directory, bench, progress, suite or ()).run()
    if as_json:
        print_json(_as_json(seen, guests))
    else:
        print("\n".join(map(printable, _comparison(seen))))
    _print_guests(guests, progress)
    raise typer.Exit(_exit_status(seen))


def _bench(
    config: Settings, shape: tuple[int, int], base: Path | None, seconds: float, guests: list[HeldGuest]
) -> Workbench:
    """How runs are done again here; a guest that is kept (for ``seconds``, if any) is appended to ``guests``."""
    from distgate.base_images.site import read_site
    from distgate.guests.base import Guest
    from distgate.guests.host import open_guests
    from distgate.guests.monitor import HeldGuests
    from distgate.images.layered import OfflineInstaller
    from distgate.runners.session import RunnerFor, runner_for, source_rpm
    from distgate.runs.reproduction import Workbench

    memory, cpus = shape
    site = read_site(config)
    machine = site.guests.model_copy(update={"memory": memory, "cpus": cpus})
    holders = HeldGuests(machine.directory, seconds, memory=memory, cpus=cpus)

    def keep(guest: Guest, why: str) -> None:
        guests.append(holders.keep(guest, why))

    def runners(branch: str, rpms: Path) -> RunnerFor:
        return runner_for(branch, roles_path=config.roles_path, ansible=config.ansible, srpm=source_rpm(rpms))

    return Workbench(
        host=holders if seconds else open_guests(machine),
        composer=OfflineInstaller.configured(),
        runners=runners,
        boot_timeout=config.boot_timeout,
        suite_timeout=config.suite_timeout,
        tests_timeout=config.tests_timeout,
        stores=(site.images.directory,),
        base=base,
        keep=keep if seconds else None,
    )


def _artifacts(config: Settings) -> list[Path]:
    """Where runs are: in the directory of the setting, and those of a lab beside us, which may be down."""
    lab = config.lab_state / "artifacts"
    directories = [config.artifacts_dir]
    return [
        path.resolve()
        for path in (directories if "artifacts_dir" in config.model_fields_set else [*directories, lab])
    ]


def _fresh(into: Path | None, record: RunRecord) -> Path:
    from distgate.errors import ConfigurationError

    if into is None:
        name = f"reproduce-{record.change.repo}-{record.run_id[:8]}"
        numbered = (Path(name if number == 1 else f"{name}.{number}") for number in range(1, 1000))
        into = next(path for path in numbered if not path.exists())
    try:
        into.mkdir(parents=True, exist_ok=True)
        empty = not any(into.iterdir())
    except OSError as error:
        raise ConfigurationError(f"cannot work in {into}: {error.strerror}", hint="--into names another") from error
    if not empty:
        raise ConfigurationError(f"{into} is not empty", hint="name a new directory")
    return into.resolve()


# -- what is printed -------------------------------------------------------------------------------------------------


def _title(recorded: RecordedRun) -> str:
    record = recorded.record
    verdict = f"{record.verdict.status}: {record.verdict.sentence}" if record.verdict else "it did not end"
    change = record.change
    commit = f"{change.namespace}/{change.repo} {change.branch} {change.rev[:12]}"
    return f"run {record.run_id} of {commit}\nrecorded {verdict}"


def _print_build(recorded: RecordedRun, progress: Progress, as_json: bool) -> None:
    """A run that failed in its build: there is nothing to boot; where to read why, and how to build by hand."""
    from distgate.files import tail_of

    record, build = recorded.record, recorded.record.build
    build_log = _build_log(recorded.directory / "build", build.arch if build else "")
    progress("nothing can be booted: its build made no packages")
    commands = []
    if build is not None:
        progress(f"Koji task {build.task_id} at {build.server}")
        commands = [
            shlex.join(["git", "clone", build.repository_url]),
            shlex.join(["git", "-C", record.change.repo, "checkout", record.change.rev]),
            shlex.join(["koji", "build", "--scratch", build.target, _built_from(recorded)]),
        ]
    if build_log:
        progress(f"{build_log}:\n" + "\n".join(f"  {line}" for line in tail_of(build_log).splitlines()[-LOG_LINES:]))
    if commands:
        progress("by hand (in the checkout, `fedpkg local` or `fedpkg mockbuild` build on this machine):")
        progress("\n".join(f"  {command}" for command in commands))
    if as_json:
        task_fields = {"koji_task": build.task_id, "server": build.server} if build else {}
        answer = {
            "run": record.run_id,
            "built": False,
            "log": str(build_log) if build_log else None,
            "commands": commands,
        }
        print_json({**answer, **task_fields})


def _built_from(recorded: RecordedRun) -> str:
    """What Koji was given: the commit, or the source package that was made of it."""
    build = recorded.record.build
    assert build  # noqa: S101 - the caller checked
    return str(recorded.directory / build.srpm) if build.srpm else build.source


def _build_log(directory: Path, arch: str) -> Path | None:
    """The log that is likely to show why: of the build itself, else of the source package's, else of its root."""
    names = (f"build.{arch}.log", "build.*.log", f"root.{arch}.log", "*.log")
    return next((log for name in names for log in sorted(directory.glob(name))), None)


def _comparison(seen: Comparison) -> list[str]:
    from distgate.runs.reproduction import failing

    recorded, here = seen.recorded.verdict, seen.here.verdict
    lines = ["", f"recorded  {recorded.status if recorded else 'no verdict'}", f"here      {seen.status}"]
    if here and here.blame:
        lines[-1] += f" (blame: {here.blame})"
    for old, new in seen.suites:
        suite = new or old
        if suite:
            lines += [f"  {suite.suite}: recorded {_word(old)}, here {_word(new)}"]
            lines += [f"    failing here: {', '.join(failing(new))}"] if new and failing(new) else []
    lines += [f"not as recorded: {sentence}" for sentence in seen.differences]
    lines += ["the same verdict" if seen.same else _difference(seen), f"everything is in {seen.directory}"]
    return lines


def _word(suite: SuiteRecord | None) -> str:
    if suite is None:
        return "not run"
    return f"{suite.verdict}{f' (blame: {suite.blame})' if suite.blame else ''}"


def _difference(seen: Comparison) -> str:
    recorded = seen.recorded.verdict.status if seen.recorded.verdict else "without a verdict"
    other = [new.suite for old, new in seen.suites if new and (old is None or old.verdict != new.verdict)]
    where = f" ({', '.join(other)})" if other else ", with other failing tests" if recorded == seen.status else ""
    return f"another verdict: the run was {recorded}, here it is {seen.status}{where}"


def _print_guests(guests: Sequence[HeldGuest], progress: Progress) -> None:
    for guest in guests:
        until = time.strftime("%H:%M:%S", time.localtime(guest.until))
        progress(f"guest {guest.name} is up until {until}, {guest.why}")
        progress(f"  {guest.ssh}")
        progress("\n".join(f"  distgate guests {verb} {guest.name}" for verb in ("ssh", "console", "down")))


def _as_json(seen: Comparison, guests: Sequence[HeldGuest]) -> dict[str, Any]:
    def suite_as_json(suite: SuiteRecord | None) -> dict[str, Any] | None:
        return suite.model_dump(mode="json", include={"verdict", "blame", "evidence", "tests"}) if suite else None

    suites = [(old, new, new or old) for old, new in seen.suites]
    return {
        "run": seen.recorded.run_id,
        "change": seen.recorded.change.key,
        "recorded": seen.recorded.verdict.model_dump(mode="json") if seen.recorded.verdict else None,
        "here": seen.here.verdict.model_dump(mode="json") if seen.here.verdict else None,
        "same": seen.same,
        "suites": [
            {"suite": suite.suite, "recorded": suite_as_json(old), "here": suite_as_json(new)}
            for old, new, suite in suites
            if suite
        ],
        "differences": list(seen.differences),
        "directory": str(seen.directory),
        "guest": asdict(guests[0]) if guests else None,
    }


def _exit_status(seen: Comparison) -> int:
    blame = seen.here.verdict.blame if seen.here.verdict else ""
    if seen.status != "SUCCESS" and blame == "infrastructure":
        return 2
    return 0 if seen.status == "SUCCESS" else 1
