"""The lab's imagefactory: the command line, storage, log and exit statuses of the real one, and no guest.

``python -m lab.images.imagefactory --config FILE base_image --file-parameter install_script KICKSTART TEMPLATE``; the
kickstart is followed by lab.images.kickstart_install, one with ostreesetup by lab.images.ostree_install.
``--parameter lab_fault WORD`` makes it fail: see FAULTS.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any, NoReturn
from xml.etree import ElementTree

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.kickstart.definition import read_kickstart
from distgate.kickstart.imagefactory_workspace import Resources
from distgate.steps import Progress
from lab.images.kickstart_install import install
from lab.images.ostree_install import install_tree

#: How to start it, and what it needs of libvirt.
COMMAND = (sys.executable, "-m", "lab.images.imagefactory")
RESOURCES = Resources(libvirt="")
#: No installer is fetched here, but a template has to name a place.
INSTALL_URL = "http://lab.invalid/{release}/{arch}/os/"
VERSION = "1.1.16"
FORMAT = "%(asctime)s %(levelname)s %(name)s thread(%(threadName)s) Message: %(message)s"
log = logging.getLogger("imgfac.Builder.Builder")


@dataclass
class Image:
    """What the real one keeps of an image, beside its body, as ``UUID.meta``."""

    storage: Path
    template: str
    parameters: dict[str, str]
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "NEW"
    error: str | None = None

    @property
    def body(self) -> Path:
        return self.storage / f"{self.identifier}.body"

    def facts(self) -> dict[str, Any]:
        """The content of ``UUID.meta``."""
        return {
            "type": "BaseImage",
            "identifier": self.identifier,
            "data": str(self.body),
            "template": self.template,
            "icicle": "<icicle></icicle>",
            "status_detail": {"activity": f"Base Image build {self.status.lower()}", "error": self.error},
            "status": self.status,
            "percent_complete": 100 if self.status == "COMPLETE" else 0,
            "parameters": self.parameters,
            "properties": {},
        }

    def save(self, status: str, error: str | None = None) -> None:
        """Write down that the image is in ``status``."""
        self.status, self.error = status, error
        self.storage.mkdir(parents=True, exist_ok=True)
        self.body.touch()
        self.body.with_suffix(".meta").write_text(json.dumps(self.facts()))
        log.debug("Saved metadata for image (%s): %s", self.identifier, self.facts())


def parser() -> argparse.ArgumentParser:
    """The real one's options, as far as they concern ``base_image``."""
    top = argparse.ArgumentParser(prog="imagefactory", description="Build system images (the lab's stand-in).")
    top.add_argument("--version", action="version", version=VERSION)
    top.add_argument("--verbose", action="store_true")
    top.add_argument("--config", default="/etc/imagefactory/imagefactory.conf")
    top.add_argument("--imgdir", default=tempfile.gettempdir())
    top.add_argument("--timeout", type=int, default=3600)
    top.add_argument("--tmpdir", default=tempfile.gettempdir())
    top.add_argument("--plugins", default="/etc/imagefactory/plugins.d")
    loudness = top.add_mutually_exclusive_group()
    loudness.add_argument("--debug", action="store_true", default=True)
    loudness.add_argument("--nodebug", dest="debug", action="store_false")
    top.add_argument("--output", choices=("log", "json"), default="log")
    top.add_argument("--raw", action="store_true")
    commands = top.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base_image", help="Build a generic image.")
    base.add_argument("template", type=Path)
    base.add_argument("--parameters", type=Path)
    base.add_argument("--parameter", nargs=2, action="append", default=[])
    base.add_argument("--file-parameter", nargs=2, action="append", default=[])
    return top


def options_of(argv: Sequence[str]) -> argparse.Namespace:
    """Command line over configuration file over defaults, as the real one has it."""
    options = parser().parse_args(argv)
    if os.path.isfile(options.config):
        configured = parser()
        configured.set_defaults(**json.loads(Path(options.config).read_text()))
        options = configured.parse_args(argv)
    return options


def main(argv: Sequence[str]) -> int:
    """Build what the command line asks for; 0 when there is an image, 1 when there is none."""
    options = options_of(argv)
    level = logging.DEBUG if options.debug else logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format=FORMAT)
    logging.getLogger("distgate").setLevel(logging.INFO)
    image = Image(_storage(options), options.template.read_text(), _parameters(options))
    log.debug("Parameters are:\n%s", image.parameters)
    image.save("BUILDING")
    if options.output == "json":
        print(json.dumps(image.facts(), indent=2), flush=True)
    try:
        _build(image, options)
        image.save("COMPLETE")
    except DistgateError as error:
        image.save("FAILED", error.message)
        log.error("Exception encountered in _build_image_from_template thread")
        log.error("%s\n%s", error.message, error.evidence)
    # Like the real one: with --output json, the exit status says nothing.
    return _print_outcome(image) if options.output == "log" else 0


def _print_outcome(image: Image) -> int:
    if image.status == "FAILED":
        print(f"\nImage build FAILED with error: {image.error}")
        return 1
    print("\n============ Final Image Details ============")
    print(f"UUID: {image.identifier}\nType: base_image\nImage filename: {image.body}")
    print("Image build completed SUCCESSFULLY!")
    return 0


def _storage(options: argparse.Namespace) -> Path:
    manager = getattr(options, "image_manager_args", {})
    return Path(manager.get("storage_path", "/var/lib/imagefactory/storage"))


def _parameters(options: argparse.Namespace) -> dict[str, str]:
    parameters = json.loads(options.parameters.read_text()) if options.parameters else {}
    files = {name: Path(path).read_text(encoding="utf-8") for name, path in options.file_parameter}
    return parameters | dict(options.parameter) | files


def _build(image: Image, options: argparse.Namespace) -> None:
    log.info("create_base_image() called for the lab - creating a BaseImage")
    with tempfile.TemporaryDirectory(prefix="install-", dir=options.tmpdir) as name:
        scratch = Path(name)
        kickstart = scratch / "install.ks"
        kickstart.write_text(image.parameters.get("install_script", ""), encoding="utf-8")
        definition = read_kickstart(kickstart)
        _fail_on_purpose(image.parameters.get("lab_fault", ""), options)
        if definition.ostree:
            rev = install_tree(definition, definition.ostree, image.body, scratch, _progress())
            log.info("Deployed commit: %s", rev)
            return
        outcome = install(definition, _release(image.template), image.body, scratch, options.timeout, _progress())
    log.debug("The installer said:\n%s", indent(outcome.transcript, "  "))
    log.debug("Installed packages:\n%s", indent("\n".join(map(str, outcome.installed)), "  "))


def _progress() -> Progress:
    return lambda line: log.info("%s", line)


def _release(template: str) -> str:
    try:
        # The template is our caller's own, who could start any program here.
        version = ElementTree.fromstring(template).findtext("os/version")  # noqa: S314
    except ElementTree.ParseError as error:
        raise ConfigurationError(f"the template is no TDL: {error}") from None
    if not version:
        raise ConfigurationError("the template has no os/version")
    return version


def _fail_on_purpose(fault: str, options: argparse.Namespace) -> None:
    if fault and fault not in FAULTS:
        raise ConfigurationError(f"no fault is called {fault}", hint=f"one of {', '.join(FAULTS)}")
    if fault:
        FAULTS[fault](options)


def _hang(_options: argparse.Namespace) -> NoReturn:
    """Oz logs a countdown while it waits for an installer, whether that one hangs or not."""
    oz, countdown = logging.getLogger("oz.ozutil"), 1200
    while True:
        oz.debug("Waiting for factory-build to finish installing, %d/%d", countdown, 1200)
        countdown -= 1
        time.sleep(0.1)


def _silent(_options: argparse.Namespace) -> NoReturn:
    while True:
        time.sleep(60)


def _die(_options: argparse.Namespace) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _inactive(options: argparse.Namespace) -> NoReturn:
    screen = Path(getattr(options, "oz_screenshot_dir", options.tmpdir)) / f"factory-build-{time.time()}.ppm"
    screen.write_bytes(b"P6 1 1 255\n\x20\x40\x60")
    raise InfrastructureError(
        f"No disk activity in 300 seconds, failing.  Check screenshot at {screen} for more detail"
    )


def _unresolvable(_options: argparse.Namespace) -> NoReturn:
    raise InfrastructureError(
        "The following software marked for installation has errors.",
        evidence="Problem: conflicting requests\n  - nothing provides libnosuch.so.7 needed by demo-1.0-1.x86_64",
    )


#: What ``--parameter lab_fault WORD`` can ask for, before anything is installed.
FAULTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "hang": _hang,
    "silent": _silent,
    "die": _die,
    "inactive": _inactive,
    "unresolvable": _unresolvable,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
