"""The house: which room may know of which. An import counts wherever in a file it stands."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "shardgen"

# Low rooms first. A room may import from earlier lines, and from rooms of its own line that stand before it.
FLOORS = [
    ["__init__", "errors", "format"],
    ["config", "geometry", "files", "pixels"],
    ["sources", "photo", "resample", "codec", "cpus"],
    ["degrade", "plan", "statistics", "triplet", "shard_writer"],
    ["marker", "shard_job"],
    [
        "engines.__init__",
        "engines.fork_server",
        "engines.base",
        "engines.local",
        "inventory",
        "manifest",
        "progress",
        "shard_reader",
    ],
    ["generate", "inspect", "preview", "sample_photos", "unpack", "verify"],
    ["cli_types", "cli", "__main__"],
]
ORDER = [room for floor in FLOORS for room in floor]


def rooms() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "trainer":
                found.add("trainer")
            if parts[0] == "shardgen":
                found.add(_room(parts[1:]))
    return found


def _room(parts: list[str]) -> str:
    """The longest beginning of the dotted name that is a file; `from shardgen import x` may name the package's own."""
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in rooms():
            return ".".join(parts[:length])
    return "__init__"


def test_every_room_has_its_place() -> None:
    assert set(rooms()) == set(ORDER)


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_go_one_way(room: str) -> None:
    lower = set(ORDER[: ORDER.index(room)])
    wrong = imported_rooms(rooms()[room]) - lower
    assert not wrong, f"{room} imports {wrong}, which stand above it"


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_file_is_one_room(room: str) -> None:
    assert len(rooms()[room].read_text().splitlines()) <= 310
