"""One RPM into one base image: distgate's layered compose beside virt-customize and the bare dnf transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cost import Cost, measured
from benchmarks.virt_customize import Appliance
from distgate.errors import InfrastructureError
from distgate.images.base import BaseImage
from distgate.images.layered import OfflineInstaller
from distgate.mounts.choice import supported_drivers
from distgate.process import run
from distgate.rpm.nevra import RpmFile, read_rpms
from distgate.rpm.repository import make_repository
from distgate.settings import settings
from distgate.steps import share_lines
from lab.images.base_image import TIMEOUT, ensure_base, lab_builder, lab_definition

#: Alternating rounds; what takes the better part of a minute takes part in the first few only.
ROUNDS, SLOW_ROUNDS = 7, 3
#: Drivers that boot an appliance, like virt-customize.
SLOW = ("guestfs",)
BARE = Path(__file__).with_name("bare_transaction.sh")

_SPEC = """\
Name: distgate-bench
Version: 1.0
Release: 1
Summary: A package to be installed
License: MIT
BuildArch: noarch
%description
One file and one scriptlet.
%install
mkdir -p %{buildroot}/usr/share/distgate-bench
echo installed > %{buildroot}/usr/share/distgate-bench/file
%files
/usr/share/distgate-bench
%post
test -s /usr/share/distgate-bench/file
"""


@dataclass(frozen=True)
class Bench:
    """What every way gets: the same base, the same package, and a directory for overlays."""

    base: BaseImage
    package: RpmFile
    scratch: Path

    @property
    def repository(self) -> Path:
        return self.package.path.parent

    def overlay(self, way: str, number: int) -> Path:
        return self.scratch / f"{way.replace(' ', '-')}-{number}.qcow2"


def measure(progress: Callable[[str], None]) -> dict[str, Any]:
    """Each way in turn, ROUNDS times, on overlays that are thrown away; then one base image from nothing."""
    cache = settings().cache
    base = ensure_base(cache, progress)
    with tempfile.TemporaryDirectory(prefix="distgate-bench-") as name:
        scratch = Path(name)
        bench = Bench(base, _package(scratch / "repository"), scratch)
        ways = _ways(bench, progress)
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        for number in range(ROUNDS):
            for way, compose in ways.items():
                if number < SLOW_ROUNDS or not _is_slow(way):
                    costs[way].append(_one(bench, way, number, compose))
            progress(", ".join(f"{way}: {rounds[-1].wall:.2f} s" for way, rounds in costs.items()))
        steps = _steps_of_one(bench, progress)
        cold = _cold_base(cache.resolve(), scratch / "cache", progress)
    return _summary(costs, cold, steps)


def _ways(bench: Bench, progress: Callable[[str], None]) -> dict[str, Callable[[Path], None]]:
    ways: dict[str, Callable[[Path], None]] = {"bare": lambda overlay: _bare(bench, overlay)}
    appliance = Appliance.prepare(bench.base, bench.scratch / "appliance", progress)
    for name, installer in _installers(appliance.kernel, bench.scratch / "cache-of-appliances", progress).items():
        ways[f"layered {name}"] = _by(bench, installer)
    ways["virt-customize"] = lambda overlay: appliance.install(bench.base, bench.package, overlay)
    return ways


def _installers(kernel: Path | None, cache: Path, progress: Callable[[str], None]) -> dict[str, OfflineInstaller]:
    """The composers that this host supports, by the name of their driver."""
    installers = {}
    for name, usable, reason in supported_drivers(kernel):
        if usable:
            installers[name] = OfflineInstaller(driver=name, appliance_kernel=kernel, appliance_cache=cache)
        else:
            progress(f"layered {name} is left out: {reason}")
    return {str(name): installer for name, installer in installers.items()}


def _by(bench: Bench, installer: OfflineInstaller) -> Callable[[Path], None]:
    def compose(overlay: Path) -> None:
        installer.compose(bench.base, bench.repository, [bench.package.nevra], overlay)

    return compose


def _bare(bench: Bench, overlay: Path) -> None:
    base, package = bench.base, bench.package
    # In a mount namespace of its own: one that somebody else makes meanwhile would hold a copy of its mount.
    argv: list[str | Path] = [
        *("unshare", "--mount", "sh"),
        BARE,
        base.path,
        overlay,
        str(base.root_offset),
        bench.repository,
        package.nevra.name,
    ]
    run([*argv, *base.repositories], timeout=120, error=InfrastructureError)


def _one(bench: Bench, way: str, number: int, compose: Callable[[Path], None]) -> Cost:
    overlay = bench.overlay(way, number)
    with measured() as cost:
        compose(overlay)
    if not overlay.exists():
        raise InfrastructureError(f"{way} left no image")
    overlay.unlink()
    return cost


def _is_slow(way: str) -> bool:
    return way == "virt-customize" or way.removeprefix("layered ") in SLOW


def _steps_of_one(bench: Bench, progress: Callable[[str], None]) -> dict[str, float]:
    composed = OfflineInstaller().compose(
        bench.base, bench.repository, [bench.package.nevra], bench.overlay("steps", 0)
    )
    for line in share_lines(composed.steps):
        progress(line)
    return {step.name: round(step.seconds, 3) for step in composed.steps}


def _cold_base(cache: Path, fresh: Path, progress: Callable[[str], None]) -> Cost:
    """A base image made anew, and not qualified; the repository that it is made from is there, as Fedora's is."""
    fresh.mkdir()
    definition = lab_definition(cache, progress)
    with measured() as cost:
        lab_builder().build(
            definition.kickstart, definition.name, definition.release, fresh / "base.qcow2", TIMEOUT, progress
        )
    return cost


def _package(directory: Path) -> RpmFile:
    directory.mkdir()
    spec = directory / "bench.spec"
    spec.write_text(_SPEC)
    argv = ["rpmbuild", "-bb", "--define", f"_topdir {directory}/build", "--define", f"_rpmdir {directory}"]
    run([*argv, spec], timeout=60, error=InfrastructureError)
    built = next(directory.glob("noarch/*.rpm"))
    rpm = built.rename(directory / built.name)
    make_repository(directory)
    return read_rpms([rpm])[0]


def _summary(costs: dict[str, list[Cost]], cold: Cost, steps: dict[str, float]) -> dict[str, Any]:
    wall = {way: round(median(cost.wall for cost in rounds), 3) for way, rounds in costs.items()}
    cpu = {way: round(median(cost.cpu for cost in rounds), 3) for way, rounds in costs.items()}
    layered = min((way for way in wall if way.startswith("layered ")), key=lambda way: wall[way])
    default = next((way for way in ("layered loop", "layered rootless") if way in wall), layered)

    def ratios(other: str) -> dict[str, float]:
        stem = f"layered_over_{other.replace('-', '_')}"
        drivers = [way for way in wall if way.startswith("layered ")]
        by_name = {stem: round(wall[default] / wall[other], 4), f"{stem}_cpu": round(cpu[default] / cpu[other], 4)}
        for way in drivers:
            by_name[f"{way.replace(' ', '_')}_over_{other.replace('-', '_')}"] = round(wall[way] / wall[other], 4)
        return by_name

    return {
        "benchmark": "compose",
        "driver": default.removeprefix("layered "),
        **ratios("bare"),
        **ratios("virt-customize"),
        "layered_over_cold_base": round(wall[default] / cold.wall, 4),
        "seconds": wall | {"cold base": cold.wall},
        "cpu_seconds": cpu | {"cold base": cold.cpu},
        "steps_of_one": steps,
        "rounds": {way: [asdict(cost) for cost in rounds] for way, rounds in costs.items()},
    }
