"""The wheel: what is in it, what runs with the packages of each extra alone, and what is said where one is missing.

It is built without a network and unpacked into a folder of its own. The packages that it depends on are those of this
environment; what a test is not meant to have is hidden from its processes.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from helpers import PATIENCE_S, make_photos
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGES = ("shardgen", "srshards", "trainer")
BESIDE = ("README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg")
OTHERS = ("tests", "benchmarks", "docs")
EXTRAS = {"train", "report", "ray", "s3", "samples", "onnx", "all", "dev"}

# Imported by every process at its start: its PYTHONPATH leads here.
HIDE = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
names = %r
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in names else find_spec(name, *rest)
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it, both from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in (*PACKAGES, *OTHERS):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copyfile(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def about(wheel: Path) -> Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(file.read(name).decode())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pip makes of the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    return folder


class Installation:
    """The wheel with some of its extras, as processes that start in an empty folder see it."""

    def __init__(self, installed: Path, folder: Path, hidden: set[str]) -> None:
        self.bin = installed / "bin"
        self.folder = folder / "empty"
        self.folder.mkdir()
        hooks = folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(HIDE % hidden)
        self._environment = {**os.environ, "PYTHONPATH": f"{hooks}:{installed}"}

    def run(self, *words: object, expect: int = 0, stdin: str = "") -> str:
        """A command of the wheel's, or `python`; what it wrote. It must end with `expect`, without a traceback."""
        program, *rest = map(str, words)
        start = [sys.executable] if program == "python" else [sys.executable, str(self.bin / program)]
        done = subprocess.run(
            [*start, *rest],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE_S,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr


def required(requirements: list[str], extras: set[str]) -> Iterator[str]:
    """Names of the distributions that these requirements and extras need, directly or not; some are not installed."""
    seen = set()
    open_ends = [(Requirement(text), extras) for text in requirements]
    while open_ends:
        requirement, wanted = open_ends.pop()
        if not any(_holds(requirement.marker, extra) for extra in wanted | {""}):
            continue
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            yield key[0]
            try:
                more = metadata.requires(requirement.name) or []
            except metadata.PackageNotFoundError:
                continue
            open_ends += [(Requirement(text), set(requirement.extras)) for text in more]


def _holds(marker: Marker | None, extra: str) -> bool:
    return marker is None or marker.evaluate({"extra": extra})


@pytest.fixture
def installation(request: pytest.FixtureRequest, about: Message, installed: Path, tmp_path: Path) -> Installation:
    """With the extras that are the fixture's parameter; without one, with none."""
    extras = set(getattr(request, "param", "").split())
    assert extras <= EXTRAS
    there = {*required(about.get_all("Requires-Dist", []), extras), "sr-shards"}
    modules = metadata.packages_distributions().items()
    hidden = {name for name, owners in modules if there.isdisjoint(map(canonicalize_name, owners))}
    return Installation(installed, tmp_path, hidden)


def with_extras(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("installation", [" ".join(names)], indirect=True)


# ---- what is in it


def test_the_wheel_holds_the_three_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    assert found == {
        path.relative_to(ROOT).as_posix() for path in paths if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"srshards/py.typed", "shardgen/degradation/recipes/realesrgan.yaml"} <= found


def test_the_metadata_say_what_it_is(about: Message, wheel: Path) -> None:
    assert about["Name"] == "sr-shards" and about["Requires-Python"] == ">=3.10"
    assert about["License-Expression"] == "Apache-2.0" and about["License-File"] == "LICENSE"
    assert about["Description-Content-Type"] == "text/markdown"
    readme = about.get_payload()
    assert isinstance(readme, str) and readme.startswith("# sr-shards")
    assert set(about.get_all("Provides-Extra", [])) == EXTRAS
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        lines = file.read(name).decode().split("\n")
    assert {"shardgen = shardgen.__main__:run", "trainer = trainer.__main__:run"} <= set(lines)


def test_all_is_every_extra_but_that_of_developers(about: Message) -> None:
    requirements = map(Requirement, about.get_all("Requires-Dist", []))
    (everything,) = (one for one in requirements if one.name == "sr-shards")
    assert everything.extras == EXTRAS - {"all", "dev"}


def test_the_constraints_name_every_requirement(about: Message) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
    needed = {canonicalize_name(Requirement(text).name) for text in about.get_all("Requires-Dist", [])}
    assert needed - {"sr-shards"} <= pinned


# ---- what runs

# Several commands of the trainer, one a line of stdin, in one process.
IN_TURN = """
import runpy, sys
for line in sys.stdin:
    sys.argv = ["trainer", *line.split()]
    try:
        runpy.run_module("trainer", run_name="__main__")
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def test_without_extras_shards_are_made_and_looked_at(installation: Installation) -> None:
    make_photos(installation.folder / "photos", 6)
    for name in ("shardgen", "trainer"):
        assert installation.run(name, "--version").startswith(f"{name}, version ")
        assert f"Usage: python -m {name}" in installation.run(name, "--help")
    where = installation.run("python", "-c", "import srshards, shardgen, trainer; print(srshards, shardgen, trainer)")
    assert where.count(str(installation.bin.parent)) == len(PACKAGES)
    recipe = ("--degradation", "realesrgan", "--size", 64, "-s", 4, "--workers", 0, "--auto")
    made = installation.run("shardgen", "generate", "-i", "photos", "-o", "shards", *recipe)
    assert "shards/scale_4x: 6 samples in 2 shards" in made
    assert "2 shards, 6 samples" in installation.run("shardgen", "verify", "shards")
    assert "realesrgan" in installation.run("shardgen", "inspect", "shards/scale_4x")
    assert "6 samples" in installation.run("shardgen", "preview", "shards/scale_4x", "-o", "preview.png")
    assert (installation.folder / "preview.png").stat().st_size > 1000


@with_extras("report")
def test_reports_need_their_extra_only(installation: Installation) -> None:
    shards = ROOT / "tests" / "old_files" / "version_2"
    assert "samples measured" in installation.run("shardgen", "report", shards, "-o", "shards.html", "--samples", 2)
    run = ROOT / "tests" / "old_files" / "run"
    assert "runs.html: " in installation.run("trainer", "report", run, "-o", "runs.html")


@with_extras("train")
def test_training_needs_its_extra_only(installation: Installation, shards: Path) -> None:
    small = ("--model", "ultra_lite", "--patch-size", 16, "--batch-size", 2, "--workers", 0, "--device", "cpu")
    training = ("--shards", shards / "scale_2x", "--steps", 1, *small, "--run", "one")
    export = ("export", "--weights", Path("runs", "one", "model.pth"))
    said = installation.run("python", "-c", IN_TURN, stdin="\n".join(" ".join(map(str, w)) for w in (training, export)))
    assert "ONNX export requires onnx, which is not installed" in said and "sr-shards[onnx]" in said
    assert [line for line in said.splitlines() if line.isdigit()] == ["0", "2"]


# ---- what is said where a package is missing


def advice(package: str, extra: str) -> str:
    return (
        f"Error: this requires {package}, which is not installed. In a clone of sr-shards: "
        f"pip install -e '.[{extra}]'; elsewhere: pip install 'sr-shards[{extra}]'\n"
    )


def test_the_trainer_without_pytorch_says_what_to_install(installation: Installation) -> None:
    commands = (
        "--shards shards/scale_4x",
        "--run one --resume",
        "evaluate --weights w.pth --shards shards/scale_4x",
        "upscale --weights w.pth photo.jpg -o enlarged",
        "export --weights w.pth",
    )
    assert installation.run("python", "-m", "trainer", *commands[0].split(), expect=2) == advice("torch", "train")
    said = installation.run("python", "-c", IN_TURN, stdin="\n".join(commands[1:]))
    assert said == (advice("torch", "train") + "2\n") * 4


def test_reports_without_their_packages_say_what_to_install(installation: Installation) -> None:
    said = installation.run("shardgen", "report", ROOT / "tests" / "old_files" / "version_2", expect=2)
    assert said in (advice("altair", "report"), advice("jinja2", "report"))
    said = installation.run("trainer", "report", ROOT / "tests" / "old_files" / "run", expect=2)
    assert said in (advice("altair", "report"), advice("jinja2", "report"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("-i", "s3://bucket/photos"),
            "In a clone of sr-shards: pip install -e '.[s3]'",
        ),
        (("-i", "photos", "--engine", "ray"), "In a clone of sr-shards: pip install -e '.[ray]'"),
    ],
    ids=["s3", "ray"],
)
def test_stores_and_ray_say_what_to_install(words: tuple[str, ...], message: str, installation: Installation) -> None:
    make_photos(installation.folder / "photos", 1)
    assert message in installation.run("shardgen", "generate", *words, "--auto", expect=2)


def test_sample_photos_say_what_to_install(installation: Installation) -> None:
    said = installation.run("python", "-m", "shardgen.sample_photos", "photos", expect=2)
    assert "In a clone of sr-shards: pip install -e '.[samples]'" in said


def test_another_package_that_is_missing_is_a_fault(installation: Installation, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks" / "sitecustomize.py"
    hooks.write_text(HIDE % {"cv2"})
    with pytest.raises(AssertionError, match="ModuleNotFoundError: No module named 'cv2'"):
        installation.run("shardgen", "preview", ROOT / "tests" / "old_files" / "version_2" / "scale_2x")


# ---- elsewhere than on Linux

ON_WINDOWS = """
import runpy, sys
sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios")))
sys.platform = "win32"
"""


@pytest.mark.parametrize("name", ["shardgen", "trainer"])
@pytest.mark.parametrize("start", ["from {0}.__main__ import run; run()", "runpy.run_module('{0}', None, '__main__')"])
def test_on_windows_the_commands_ask_for_wsl(name: str, start: str, installation: Installation) -> None:
    said = installation.run("python", "-c", ON_WINDOWS + start.format(name), expect=2)
    assert said == f"Error: {name} runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)\n"


def test_on_windows_the_library_asks_for_wsl(installation: Installation) -> None:
    attempt = "\ntry: import srshards\nexcept ImportError as error: print(error)"
    said = installation.run("python", "-c", ON_WINDOWS + attempt)
    assert said == "sr-shards requires Linux; on Windows, install it in WSL 2\n"
