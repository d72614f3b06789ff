"""Commands in README.md and docs/ are ones that the command lines take and that tests run, or are marked with ⚙."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from prefect.cli._app import _app as prefect_cli
from typer.main import get_command

from distgate.cli.main import all_commands
from distgate.cli.pages.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
#: What a page with marked commands says about the mark.
MARK, LEGEND = "⚙", "ommands marked ⚙"
#: Fenced blocks, and blocks that are indented; then code within a line.
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```\n", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
#: What is a command when it stands in a line or block; in a console block, whatever follows a prompt is one.
PROGRAM = re.compile(r"(\./run|distgate|prefect|python -m|deploy/register|systemctl|journalctl|docker|eval) (?!\|)")
#: Which test does what a command does: its words, and a test by its file and name.
RUN_BY: dict[str, str] = yaml.safe_load((ROOT / "tests/data/documented_commands.yml").read_text())


@dataclass(frozen=True)
class Command:
    """A command as a page has it, and whether it is marked as one that CI cannot run."""

    page: str
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands_of(page: str, text: str) -> Iterator[Command]:
    """Every command of a page. The paragraph before a block marks it; in a line, what precedes the command does."""
    for block in FENCED.finditer(text):
        before = text[: block.start()].rstrip().rpartition("\n\n")[2]
        yield from (Command(page, line, MARK in before) for line in _lines(block[3], block[2] == "console"))
    prose = FENCED.sub("", text)
    for block in INDENTED.finditer(prose):
        before = prose[: block.start()].rstrip().rpartition("\n\n")[2]
        yield from (Command(page, line, MARK in before) for line in _lines(block[0], False))
    for line in INDENTED.sub("", prose).splitlines():
        for code in INLINE.finditer(line):
            if PROGRAM.match(code[1]):
                yield Command(page, code[1], MARK in line[: code.start()])


def _lines(block: str, is_console: bool) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        words = line.strip()
        if is_console and words.startswith("$ "):
            yield words[2:]
        elif not is_console and PROGRAM.match(words.removeprefix("$ ")):
            yield words.removeprefix("$ ")


FOUND = sorted({one for path in PAGES for one in commands_of(path.name, path.read_text())}, key=str)
RUNNABLE = [one for one in FOUND if not one.marked]


def variants(text: str) -> list[list[str]]:
    """The words of a command, twice where it offers alternatives; comments, brackets and dots are gone."""
    if "'{" not in text and "'[" not in text and '"' not in text:
        text = re.sub(r"[\[\]]|\.\.\.", "", text)
    words = shlex.split(text, comments=True)
    first = (
        [word.partition("|")[0] for word in " ".join(words).replace(" | ", "|").split(" ")] if "|" in text else words
    )
    last = (
        [word.rpartition("|")[2] for word in " ".join(words).replace(" | ", "|").split(" ")] if "|" in text else words
    )
    return [first] if first == last else [first, last]


@cache
def known() -> dict[tuple[str, ...], object]:
    return dict(commands(get_command(all_commands())))


def as_distgate(words: list[str]) -> list[str]:
    """What ./run makes of its words."""
    if words[0] != "./run":
        return words
    return ["distgate", "lab", "demo", *words[2:]] if words[1] == "demo" else ["distgate", *words[1:]]


def refuse_distgate(words: list[str]) -> str | None:
    """Why the command line would not take these words, if it would not; placeholders stand for what they name."""
    path = next((tuple(words[:n]) for n in (4, 3, 2) if tuple(words[:n]) in known()), None)
    if path is None:
        is_group = any(one[: len(words)] == tuple(words) for one in known())
        return None if is_group else "there is no such command"
    rest = ["1" if word == "N" else word for word in words[len(path) :]]
    if not rest:
        return None  # named, not called
    if "--" in rest:
        rest = rest[: rest.index("--")]
    try:
        known()[path].make_context(path[-1], rest)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - typer's own exceptions are in a private module
        return str(error) or type(error).__name__
    return None


def refuse_prefect(words: list[str]) -> str | None:
    """Why Prefect's command line would not take these words, if it would not."""
    try:
        prefect_cli.parse_args(
            [one for one in words[1:] if one != "--no-prompt"], exit_on_error=False, print_error=False
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the reader would see
        return str(error)
    return refuse_parameters(words) if words[1:3] == ["deployment", "run"] else None


def refuse_parameters(words: list[str]) -> str | None:
    """Why a deployment would not start with these parameters, if it would not."""
    described = {}
    for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, _, name = one["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        described[f"{flow.name}/{one['name']}"] = set(inspect.signature(flow.fn).parameters)
    if words[3] not in described:
        return f"there is no deployment {words[3]}"
    given = {words[at + 1].partition("=")[0] for at, word in enumerate(words) if word == "--param"}
    return f"no parameters of it: {given - described[words[3]]}" if given - described[words[3]] else None


def refuse(words: list[str]) -> str | None:
    if words[0] in ("distgate", "./run"):
        if words[0] == "./run" and words[1] in ("test", "install", "packages"):
            return None  # the script's own; CI calls it
        return refuse_distgate(as_distgate(words))
    if words[0] == "prefect":
        return refuse_prefect(words)
    if words[:2] == ["python", "-m"]:
        return None if find_spec(words[2]) else "there is no such module"
    if words[0] in ("deploy/register", "python"):
        return None if (ROOT / words[0]).exists() or (ROOT / words[1]).exists() else "there is no such file"
    if words[0] == "eval":
        return refuse(shlex.split(words[1].removeprefix("$(").removesuffix(")")))
    return f"nobody runs it: mark it with {MARK}"


@pytest.mark.parametrize("command", RUNNABLE, ids=str)
def test_a_documented_command_is_one_that_exists(command: Command) -> None:
    for words in variants(command.text):
        assert refuse(words) is None, f"{command}: {refuse(words)}"


@pytest.mark.parametrize("command", [one for one in RUNNABLE if one.page != "reference-cli.md"], ids=str)
def test_a_documented_command_is_run_by_a_test(command: Command) -> None:
    words = variants(command.text)[0]
    if words[0] == "eval":
        words = shlex.split(words[1].removeprefix("$(").removesuffix(")"))
    if words[0] == "./run" and words[1] in ("test", "install", "packages"):
        return  # this very run of the tests began with it
    called = " ".join(as_distgate(words))
    assert any(called == one or called.startswith(f"{one} ") for one in RUN_BY), (
        f"no test in tests/data/documented_commands.yml runs {command}"
    )


@pytest.mark.parametrize("named", sorted(set(RUN_BY.values())))
def test_a_test_that_runs_a_command_exists(named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", [one for one in PAGES if MARK in one.read_text()], ids=lambda path: path.name)
def test_a_page_with_marked_commands_says_what_the_mark_means(path: Path) -> None:
    assert LEGEND in path.read_text()


#: What a page could have, and whether that would be noticed.
MISTAKES = [
    ("distgate nonsense", "no such command"),
    ("distgate why dos2unix", "rev"),
    ("distgate images list --jsn", "jsn"),
    ("./run lab push --breaks x", "breaks"),
    ("prefect deployment rum all-packages/manual", "rum"),
    ("prefect deployment run all-packages/nobody", "no deployment"),
    ("prefect deployment run all-packages/manual --param agian=true", "agian"),
    ("systemctl start distgate-intake", "mark it"),
    ("useradd distgate", "mark it"),
    ("python -m services.nobody", "no such module"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_command_that_does_not_exist_is_found_out(text: str, said: str) -> None:
    found = [refuse(words) for words in variants(text)]
    assert any(said in (one or "") for one in found), found
