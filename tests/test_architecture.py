"""The house: which room may know of which. An import counts wherever in a file it stands."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# Low rooms first. A room may import from earlier lines, and from rooms of its own line that stand before it.
FLOORS = {
    "shardgen": """
        __init__ errors format process utf8 streams terminal
        geometry files pixels bicubic plain_yaml ahead attempts store file_to_write
        degradation.__init__ degradation.dice degradation.settings degradation.step degradation.kernels
        degradation.blurs degradation.noises degradation.compression degradation.sizes degradation.sharpen
        degradation.steps degradation.recipe degradation.recipe_file degradation.words
        config scratch output_lock sources exclusion png_file tiff_file jpeg_file rgb8 photo photo_reader resample codec
        cpus picture measures duplicates
        degrade description plan tiles statistics triplet shard_writer shard_upload
        marker shard_job
        engines.__init__ engines.fork_server engines.base engines.local engines.ray_node engines.ray
        inventory manifest progress shard_reader survey
        page.__init__ page.pictures page.plots page.render
        generate inspect preview rebuild recipe_preview sample_photos unpack verify
        report.__init__ report.words report.contents report.figures report.extremes report.gallery
        report.last_run report.page
        commands.__init__ commands.types commands.generate commands.check commands.look commands.recipe commands.report
        cli __main__
    """,
    "trainer": """
        __init__ errors pixels loading
        config device files losses memory metrics picture stopping
        place meeting world
        models.blocks models.compact models.rrdb models.__init__ weights_layout tensor_file weights
        stream.__init__ stream.draws stream.schedule stream.patches stream.mapped_shard stream.shard_list
        stream.batches
        stream.fork_server stream.queues stream.ring stream.transfer stream.chunks stream.source
        stream.loader stream.resident
        cache.__init__ cache.folder cache.contents cache.shards cache.fetcher
        shards photos tiles inference optim learner meter
        checkpoint journal run_folder display evaluate validation record
        loop plan run export upscale
        report.__init__ report.thinning report.journals report.runs report.curves report.tables report.cells
        report.previews report.page
        commands.__init__ commands.types commands.tables commands.settings commands.options
        commands.train commands.evaluate commands.upscale commands.export commands.report cli __main__
    """,
}
ORDER = {package: floors.split() for package, floors in FLOORS.items()}
# All that one package may know of the other.
CONTRACT = {
    "trainer": {
        *("shardgen.format", "shardgen.bicubic", "shardgen.store", "shardgen.photo", "shardgen.errors"),
        *("shardgen.__init__", "shardgen.plain_yaml", "shardgen.terminal", "shardgen.file_to_write"),
        *("shardgen.output_lock", "shardgen.process", "shardgen.streams", "shardgen.utf8"),
        *("shardgen.page.pictures", "shardgen.page.plots", "shardgen.page.render"),
    },
    "shardgen": set(),
}


def rooms(package: str) -> dict[str, Path]:
    root = REPOSITORY / package
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}


ROOMS = [(package, room) for package in FLOORS for room in rooms(package)]


def imported_rooms(path: Path) -> set[tuple[str, str]]:
    """(package, room) of every import in a file, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {(parts[0], _room(*parts)) for name in names if (parts := name.split("."))[0] in FLOORS}
    return found


def _room(package: str, *parts: str) -> str:
    """The longest beginning of the dotted name that is a file, or the `__init__` of the folder that it names."""
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for room in (name, f"{name}.__init__"):
            if room in rooms(package):
                return room
    return "__init__"


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_its_place(package: str) -> None:
    assert set(rooms(package)) == set(ORDER[package])


@pytest.mark.parametrize(("package", "room"), ROOMS)
def test_imports_go_one_way(package: str, room: str) -> None:
    order = ORDER[package]
    lower = {(package, name) for name in order[: order.index(room)]}
    contract = {(name.partition(".")[0], name.partition(".")[2]) for name in CONTRACT[package]}
    wrong = imported_rooms(rooms(package)[room]) - lower - contract
    assert not wrong, f"{package}.{room} imports {wrong}, which stand above it"


@pytest.mark.parametrize(("package", "room"), ROOMS)
def test_a_file_is_one_room(package: str, room: str) -> None:
    assert len(rooms(package)[room].read_text().splitlines()) <= 310
