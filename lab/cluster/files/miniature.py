"""A cluster that fits into a guest of 256 MiB: an API process with a registry of nodes and keys, agents, and a suite.

Each node has this file: ``install`` copies it and starts its role as a unit of systemd, ``conformance`` tests the
cluster as its user would and writes JUnit.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

PROGRAM = Path("/var/lib/miniature.py")
#: Seconds without a word of an agent after which it is no longer ready, and between two of them.
SILENCE, BEAT = 60.0, 1.0
#: Seconds for anything to become true in a guest that may be emulated.
PATIENCE = 120.0


class Registry:
    """What the API process knows: nodes, by when they last spoke, and keys with their values."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.nodes: dict[str, float] = {}
        self.keys: dict[str, str] = {}

    def ready(self) -> dict[str, bool]:
        with self.lock:
            return {name: time.monotonic() - spoke < SILENCE for name, spoke in self.nodes.items()}


class Api(http.server.BaseHTTPRequestHandler):
    """PUT /nodes/NAME is a node's sign of life; /keys/NAME stores, returns and forgets a value."""

    registry = Registry()

    def do_GET(self) -> None:
        if self.path == "/nodes":
            self._answer(200, json.dumps(self.registry.ready()))
        elif self.path == "/keys":
            self._answer(200, json.dumps(sorted(self.registry.keys)))
        elif self.path in self.registry.keys:
            self._answer(200, self.registry.keys[self.path])
        else:
            self._answer(404, "")

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        kind, _, name = self.path[1:].partition("/")
        with self.registry.lock:
            if kind == "nodes" and name:
                self.registry.nodes[name] = time.monotonic()
            elif kind == "keys" and name:
                self.registry.keys[self.path] = text
            else:
                self._answer(404, "")
                return
        self._answer(204, "")

    def do_DELETE(self) -> None:
        with self.registry.lock:
            value = self.registry.keys.pop(self.path, None)
        self._answer(404 if value is None else 204, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_words: object) -> None:
        """Not a line for every sign of life."""


def serve(api: str) -> None:
    """The API process."""
    address = urllib.parse.urlsplit(api)
    http.server.ThreadingHTTPServer((address.hostname or "", address.port or 80), Api).serve_forever()


def agent(api: str, node: str) -> None:
    """Says that this node lives, and does each task that is left for it: upper-cases the text."""
    while True:
        try:
            ask(api, "PUT", f"/nodes/{node}")
            status, task = ask(api, "GET", f"/keys/task.{node}")
            if status == 200:
                ask(api, "DELETE", f"/keys/task.{node}")
                ask(api, "PUT", f"/keys/done.{node}", task.upper())
        except OSError:
            pass  # the API process is not there yet, or no longer
        time.sleep(BEAT)


def ask(api: str, method: str, path: str, text: str = "") -> tuple[int, str]:
    """The status and the text of an answer."""
    request = urllib.request.Request(api + path, text.encode() if method == "PUT" else None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > end:
            sys.exit(f"gave up waiting for {what}")
        time.sleep(0.3)


def install(role: str, api: str, node: str) -> None:
    """Start a role for good, and wait until it does its work."""
    if role not in ("server", "agent"):
        sys.exit(f"there is no role {role}")
    shutil.copy(__file__, PROGRAM)
    # Without dependencies: the first unit that has them starts what the lab's guest has not needed yet, such as udev.
    unit = ["systemd-run", "--quiet", "--collect", "--unit=miniature", "-p", "DefaultDependencies=no"]
    argv = [*unit, "/usr/bin/python3", str(PROGRAM), role, "--api", api, "--node", node]
    if subprocess.run(argv, check=False).returncode:  # it runs already
        subprocess.run(["systemctl", "stop", "miniature.service"], check=True)
        subprocess.run(argv, check=True)
    if role == "server":
        wait_for(lambda: ask(api, "GET", "/nodes")[0] == 200, "the API process")
    else:
        wait_for(lambda: json.loads(ask(api, "GET", "/nodes")[1]).get(node, False), f"{node} to be ready")


class Skipped(Exception):
    """A test that this cluster is not made for."""


class Suite:
    """The conformance tests: what every cluster of this kind must do."""

    def __init__(self, api: str, nodes: list[str], broken: bool) -> None:
        self.api, self.nodes, self.broken = api, nodes, broken

    def test_every_agent_is_a_ready_node(self) -> None:
        ready = json.loads(ask(self.api, "GET", "/nodes")[1])
        assert sorted(ready) == sorted(self.nodes), f"nodes are {sorted(ready)}"
        assert all(ready.values()), f"not ready: {[name for name, good in ready.items() if not good]}"

    def test_a_value_is_told_as_it_was_stored(self) -> None:
        assert ask(self.api, "PUT", "/keys/colour", "bl\u00e4ulich")[0] == 204
        assert ask(self.api, "GET", "/keys/colour") == (200, "bl\u00e4ulich")

    def test_a_value_is_replaced_by_a_newer_one(self) -> None:
        for value in ("one", "two"):
            ask(self.api, "PUT", "/keys/count", value)
        assert ask(self.api, "GET", "/keys/count") == (200, "two")

    def test_a_forgotten_key_is_not_found(self) -> None:
        ask(self.api, "PUT", "/keys/gone", "x")
        assert ask(self.api, "DELETE", "/keys/gone")[0] == 204
        assert ask(self.api, "GET", "/keys/gone")[0] == 404
        assert ask(self.api, "DELETE", "/keys/gone")[0] == 404

    def test_keys_are_listed_in_order(self) -> None:
        for name in ("b", "a"):
            ask(self.api, "PUT", f"/keys/list.{name}", "x")
        listed = [key for key in json.loads(ask(self.api, "GET", "/keys")[1]) if "/list." in key]
        assert listed == ["/keys/list.a", "/keys/list.b"]

    def test_every_agent_does_the_task_that_is_left_for_it(self) -> None:
        for node in self.nodes:
            ask(self.api, "PUT", f"/keys/task.{node}", f"shout {node}")
        for node in self.nodes:
            done = f"/keys/done.{node}"
            wait_for(functools.partial(self._there, done), f"{node} to do its task")
            assert ask(self.api, "GET", done)[1] == f"SHOUT {node.upper()}"

    def _there(self, path: str) -> bool:
        return ask(self.api, "GET", path)[0] == 200

    def test_an_unknown_kind_of_thing_is_not_found(self) -> None:
        assert ask(self.api, "PUT", "/volumes/one", "x")[0] == (204 if self.broken else 404), "volumes are refused"

    def test_values_outlive_the_api_process(self) -> None:
        raise Skipped("this cluster has no storage")

    def test_a_task_moves_away_from_a_lost_node(self) -> None:
        raise Skipped("this cluster has no scheduler")


def conformance(suite: Suite, junit: Path) -> None:
    """Run every test and write what was found; a failing one is no error of this program."""
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(root, "testsuite", name="miniature conformance")
    for name in sorted(name for name in dir(suite) if name.startswith("test_")):
        case = ElementTree.SubElement(element, "testcase", name=name.removeprefix("test_").replace("_", " "))
        started = time.monotonic()
        try:
            getattr(suite, name)()
        except Skipped as error:
            ElementTree.SubElement(case, "skipped", message=str(error))
        except AssertionError as error:
            ElementTree.SubElement(case, "failure", message=str(error) or "an assertion did not hold")
        except (OSError, http.client.HTTPException, ValueError, SystemExit) as error:
            ElementTree.SubElement(case, "error", message=f"{type(error).__name__}: {error}")
        case.set("time", f"{time.monotonic() - started:.3f}")
    ElementTree.ElementTree(root).write(junit, encoding="unicode", xml_declaration=True)


def main() -> None:
    """The command line: a role, ``install ROLE``, or ``conformance``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("server", "agent", "install", "conformance"))
    parser.add_argument("role", nargs="?", default="")
    parser.add_argument("--api", required=True)
    parser.add_argument("--node", default="")
    parser.add_argument("--nodes", default="")
    parser.add_argument("--junit", type=Path, default=Path("junit.xml"))
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    if options.action == "server":
        serve(options.api)
    elif options.action == "agent":
        agent(options.api, options.node)
    elif options.action == "install":
        install(options.role, options.api, options.node)
    else:
        conformance(Suite(options.api, options.nodes.split(","), options.broken), options.junit)


if __name__ == "__main__":
    main()
