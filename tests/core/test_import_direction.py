"""The rooms import in one direction only (flows -> tasks -> blocks -> drivers -> core -> messages)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "flows",
    "tasks",
    "blocks",
    "services",
    "kickstarts",
    "lab",
    "benchmarks",
    "distgate.drivers",
    "distgate",
    "distgate_messages",
)
CORE = {"distgate", "distgate_messages"}
MAY_IMPORT = {
    "flows": {"flows", "tasks", "blocks", *CORE},
    "tasks": {"tasks", "blocks", "distgate.drivers", *CORE},
    "blocks": {"blocks", "distgate.drivers", *CORE},
    "services": {"services", "distgate.drivers", *CORE},
    "distgate.drivers": {"distgate.drivers", "kickstarts", *CORE},
    "distgate": {"kickstarts", *CORE},
    "distgate_messages": {"distgate_messages"},
    "kickstarts": {"kickstarts"},
    "lab": set(ROOMS) - {"benchmarks"},
    "benchmarks": set(ROOMS),
}
#: The command line is the door: its modules open other rooms inside functions.
DOORS = set((ROOT / "distgate").glob("cli*.py"))


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if module == room or module.startswith(f"{room}.")), None)


def imports_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def sources() -> list[Path]:
    folders = (
        *(room for room in ROOMS if "." not in room and room not in CORE),
        "distgate",
        "messages/distgate_messages",
    )
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path not in DOORS]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("messages.")


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(module_of(path))
    assert room is not None
    wrong = [name for name in imports_of(path) if (other := room_of(name)) and other not in MAY_IMPORT[room]]
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in sources() if room_of(module_of(p)) == "distgate"], ids=module_of)
def test_the_core_never_imports_prefect(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] == "prefect"]
