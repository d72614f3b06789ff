"""What the parameters of the roles mean: tests, their time, and which of them an fmf filter selects.

No Ansible in here, and nothing that a Python of some years ago lacks.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+)\s*([smhd]?)\Z")
_FILES = 2000
_DEFAULT = "./runtest.sh"


class Wrong(Exception):
    """A parameter that does not mean anything; the text names it."""


@dataclass(frozen=True)
class Test:
    """One test: ``command`` is for a shell in ``directory`` below the tests' directory, which must be there if
    ``needed``; 0 ``seconds`` are no limit; ``save`` names files and directories to keep."""

    __test__ = False  # not a pytest class

    name: str
    directory: str
    command: str = _DEFAULT
    seconds: int = 0
    save: tuple[str, ...] = ()
    needed: bool = True


def tests_of(listed: object) -> list[Test]:
    """The tests that the parameter ``tests`` lists: names, or mappings of one name to its settings."""
    if listed in (None, "", []):
        return []
    if not isinstance(listed, (list, tuple)):
        raise Wrong(f"tests must be a list, not {listed!r}")
    return [test for entry in listed for test in _tests_of_entry(entry)]


def words_of(listed: object) -> list[str]:
    """A parameter that is a list of words, or one string of them."""
    if isinstance(listed, str):
        return listed.split()
    return [str(entry) for entry in listed] if isinstance(listed, (list, tuple)) else []


def seconds_of(text: object) -> int:
    """``15m``, ``1h``, ``90`` as seconds; nothing is 0."""
    match = _TIME.match(str(text or 0).strip())
    if not match:
        raise Wrong(f"a timeout must be a number and s, m, h or d, not {text!r}")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _tests_of_entry(entry: object) -> list[Test]:
    if isinstance(entry, str):
        return [Test(_line(entry), entry)]
    if not isinstance(entry, dict):
        raise Wrong(f"a test is a name or a mapping, not {entry!r}")
    return [_test(str(name), settings or {}) for name, settings in entry.items()]


def _test(name: str, settings: object) -> Test:
    if not isinstance(settings, dict):
        raise Wrong(f"the settings of the test {name} must be a mapping")
    # A test with a command of its own needs no directory of its name: it then runs beside the playbook.
    return Test(
        name=_line(name),
        directory=str(settings.get("dir") or name),
        command=str(settings.get("run") or _DEFAULT),
        seconds=seconds_of(settings.get("timeout")),
        save=tuple(words_of(settings.get("save-files"))),
        needed="dir" in settings or "run" not in settings,
    )


def _line(name: str) -> str:
    return "".join(character if character.isprintable() else "_" for character in name).strip() or "unnamed"


def fmf_files(tree: Path) -> dict[str, str]:
    """The texts of the fmf files below ``tree``, by their relative paths."""
    documents: dict[str, str] = {}
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".fmf") and not path.is_symlink() and len(documents) < _FILES:
                documents[path.relative_to(tree).as_posix()] = path.read_text(errors="replace")
    return documents


def filtered(files: dict[str, str], expression: str, where: str = "") -> list[Test]:
    """The tests among fmf metadata whose attributes ``expression`` fits; their directories are below ``where``."""
    tests = []
    for name, (folder, data) in sorted(_nodes(files).items()):
        if data.get("test") and data.get("enabled", True) and fits(expression, data):
            path = str(data["path"]).strip("/") if "path" in data else folder
            directory = os.path.normpath(os.path.join(where or ".", path or "."))
            tests.append(Test(name or "tests", directory, str(data["test"]), seconds_of(data.get("duration"))))
    return tests


def fits(expression: str, data: dict[str, object]) -> bool:
    """Whether ``data`` has what a filter such as ``tier: 1 & tag: a, b | tag: -slow`` asks for."""
    return any(all(_holds(literal, data) for literal in clause.split("&")) for clause in expression.split("|"))


def _holds(literal: str, data: dict[str, object]) -> bool:
    key, colon, expected = literal.partition(":")
    if not colon:
        raise Wrong(f"fmf_filter: {literal.strip()!r} is not of the form key: value")
    value = data.get(key.strip())
    values = {str(entry) for entry in value} if isinstance(value, (list, tuple)) else {str(value)} - {"None"}
    choices = [choice.strip() for choice in expected.split(",")]
    return any(choice[1:] not in values if choice.startswith("-") else choice in values for choice in choices)


def _nodes(files: dict[str, str]) -> dict[str, tuple[str, dict[str, object]]]:
    """The leaves of the metadata tree: name, and the directory it lies in with all that it inherits."""
    nodes: dict[str, tuple[str, dict[str, object]]] = {}
    folders = sorted({folder for path in files for folder in (Path(path).parent, *Path(path).parents)})
    inherited: dict[Path, dict[str, object]] = {}
    for folder in folders:
        above = inherited.get(folder.parent, {}) if folder != Path() else {}
        document = _document(files, (folder / "main.fmf").as_posix())
        inherited[folder] = _merged(above, document)
        name = "" if folder == Path() else folder.as_posix()
        others = [path for path in files if Path(path).parent == folder and not path.endswith("main.fmf")]
        for path in others:
            _grow(nodes, f"{name}/{Path(path).stem}", folder, inherited[folder], _document(files, path))
        below = any(other.parent == folder and other != folder for other in folders)
        if any(str(key).startswith("/") for key in document) or not (others or below):
            _grow(nodes, name, folder, above, document)
    return {name.strip("/"): node for name, node in nodes.items()}


def _grow(
    nodes: dict[str, tuple[str, dict[str, object]]],
    name: str,
    folder: Path,
    above: dict[str, object],
    document: dict[str, object],
) -> None:
    data = _merged(above, document)
    children = {key: value for key, value in document.items() if str(key).startswith("/")}
    if not children:
        nodes[name] = ("" if folder == Path() else folder.as_posix(), data)
    for key, value in children.items():
        _grow(nodes, f"{name}{key}", folder, data, value if isinstance(value, dict) else {})


def _merged(above: dict[str, object], document: dict[str, object]) -> dict[str, object]:
    data = dict(above)
    for key, value in document.items():
        key = str(key)
        if key.startswith("/"):
            continue
        if key.endswith("+"):
            data[key[:-1]] = _added(data.get(key[:-1]), value)
        else:
            data[key] = value
    return data


def _added(inherited: object, more: object) -> object:
    if isinstance(inherited, dict) and isinstance(more, dict):
        return {**inherited, **more}
    if isinstance(inherited, list):
        return inherited + (more if isinstance(more, list) else [more])
    if isinstance(inherited, str):
        return inherited + str(more)
    return more


def _document(files: dict[str, str], path: str) -> dict[str, object]:
    try:
        data = yaml.safe_load(files.get(path, ""))
    except yaml.YAMLError as error:
        raise Wrong(f"{path} is no YAML: {error}") from error
    return data if isinstance(data, dict) else {}
