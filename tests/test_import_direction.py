"""The house as docs/architecture.md draws it: who may import whom, no circles, no crowded folder."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Of distgate, by folder: which other folders of it a room may import. The files beside them are the ground, which
#: every room may import and which imports none.
ROOMS = {
    "cli": "base_images bus changes doctor guests images kickstart ledger operations ostree reports runners runs "
    "testing",
    "doctor": "base_images builds bus guests ledger mounts runs sandbox",
    "operations": "bus changes ledger runs",
    "reports": "bus ledger runs",
    "atomic": "guests images kickstart mounts ostree rpm sandbox",
    "conformance": "builds guests runners sandbox testing",
    "runs": "base_images builds changes guests images rpm runners testing",
    "base_images": "guests images kickstart mounts rpm",
    "ostree": "changes images rpm sandbox",
    "runners": "guests images rpm sandbox testing",
    "images": "guests kickstart mounts rpm",
    "builds": "changes rpm sandbox testing",
    "kickstart": "guests rpm",
    "bus": "changes ledger",
    "rpm": "mounts sandbox",
    "ledger": "changes",
    "mounts": "guests",
    "guests": "",
    "sandbox": "",
    "changes": "",
    "testing": "",
}
EVERYWHERE = {f"distgate.{room}" for room in ROOMS} | {"distgate", "distgate_messages", "kickstarts"}
MAY_IMPORT = {
    **{
        f"distgate.{room}": {"distgate", f"distgate.{room}", "distgate_messages", "kickstarts"}
        | {f"distgate.{other}" for other in others.split()}
        for room, others in ROOMS.items()
    },
    "distgate": {"distgate", "distgate_messages"},
    "distgate_messages": {"distgate_messages"},
    "kickstarts": {"kickstarts"},
    "blocks": {"blocks", *EVERYWHERE},
    "tasks.run": {"tasks.run", "blocks", *EVERYWHERE},
    "tasks.operations": {"tasks.operations", "tasks.run", "blocks", *EVERYWHERE},
    "tasks": {"tasks", "tasks.run", "blocks", *EVERYWHERE},
    "tasks.page": {"tasks.page", "tasks", "tasks.run", "blocks", *EVERYWHERE},
    "flows": {"flows", "tasks", "tasks.run", "tasks.page", "tasks.operations", "blocks", *EVERYWHERE},
    "services": {"services", *EVERYWHERE},
    "lab": {"lab", "flows", "tasks", "blocks", "services", *EVERYWHERE},
    "benchmarks": {"benchmarks", "lab", "flows", "tasks", "blocks", "services", *EVERYWHERE},
}
FOLDERS = ("distgate", "flows", "tasks", "blocks", "services", "kickstarts", "lab", "benchmarks")
#: The command line opens the lab, the benchmarks and a worker inside functions: it is the door to all of them.
DOOR = "distgate.cli"
#: Nothing of distgate but these may know of Prefect.
MAY_USE_PREFECT = ("tasks", "flows", "blocks", "services.worker", "lab", "benchmarks", DOOR)
MOST_FILES = 14


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the project by its dotted name."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if is_ours(path)]
    paths += sorted((ROOT / "messages/distgate_messages").rglob("*.py"))
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_ours(path: Path) -> bool:
    """Roles, plug-ins and suites are other programs' files, which happen to be Python."""
    return not {"roles", "tmt_plugins", "files"} & set(path.parts)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("messages.").removesuffix(".__init__")


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return next((room for n in (2, 1) if (room := ".".join(parts[:n])) in MAY_IMPORT), None)


def imports_of(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else str(node.module) for name in targets}
    return names


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module)
    assert room is not None
    others = {other for name in imports_of(module) if (other := room_of(name))}
    doors = {"lab", "benchmarks", "services", "blocks"} if room == DOOR else set()
    assert others - MAY_IMPORT[room] - doors == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: imports_of(module) & set(modules()) - {module} for module in modules()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", [name for name in modules() if not name.startswith(MAY_USE_PREFECT)])
def test_prefect_is_known_to_flows_tasks_blocks_and_the_worker_alone(module: str) -> None:
    assert not [name for name in imports_of(module) if name.split(".")[0] == "prefect"]


@pytest.mark.parametrize("folder", sorted({path.parent for f in FOLDERS for path in (ROOT / f).rglob("*.py")}))
def test_no_folder_is_crowded(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
