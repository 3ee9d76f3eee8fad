"""The wheel: its contents, what runs with the dependencies of each extra, and messages about missing packages.

It is built without network access and installed into a separate folder. Its dependencies are those of this environment;
packages that a test must not have are hidden from its processes.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from helpers import TIMEOUT_S, make_photos
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.release.packages import CORE, FILES, PACKAGES
from tests.release.requirements import required

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
OTHER_FOLDERS = ("tests", "benchmarks", "docs", "examples")
NOT_IN_ALL = {"arches", "metrics", "docs", "dev"}
EXTRAS = {"train", "report", "ray", "s3", "lmdb", "hf", "samples", "onnx", "optimizers", "all"} | NOT_IN_ALL

# The sitecustomize module of test processes, which Python imports at startup.
HIDE = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
names = %r
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in names else find_spec(name, *rest)
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of a copy of the checkout, and the wheel built from it."""
    return build(tmp_path_factory.mktemp("packaging"))


def build(folder: Path, *options: str, **environment: str) -> Path:
    """Build a copy of the checkout in `folder`; return the folder of what was built, by default sdist and wheel."""
    for name in (*PACKAGES, *OTHER_FOLDERS):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    environment = {**os.environ, **environment}
    result = subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "dist"


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def wheel_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(file.read(name).decode())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that contains only the installed wheel."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return folder


class Installation:
    """Runs processes in an empty folder, with the wheel and the dependencies of some extras."""

    def __init__(self, installed: Path, folder: Path, hidden: set[str]) -> None:
        self.bin = installed / "bin"
        self.folder = folder / "empty"
        self.folder.mkdir()
        hooks = folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(HIDE % hidden)
        self._environment = {**os.environ, "PYTHONPATH": f"{hooks}:{installed}"}

    def run(self, *args: object, expect: int = 0, stdin: str = "") -> str:
        """Run a command of the wheel or `python` and return its output; expects this exit code and no traceback."""
        program, *rest = map(str, args)
        start = [sys.executable] if program == "python" else [sys.executable, str(self.bin / program)]
        result = subprocess.run(
            [*start, *rest],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=TIMEOUT_S,
        )
        assert result.returncode == expect, result.stdout + result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def installation(
    request: pytest.FixtureRequest, wheel_metadata: Message, installed: Path, tmp_path: Path
) -> Installation:
    """The wheel with the extras of the fixture's parameter, by default none."""
    extras = set(getattr(request, "param", "").split())
    assert extras <= EXTRAS
    available = {*required(wheel_metadata.get_all("Requires-Dist", []), extras), "sr-shards"}
    modules = metadata.packages_distributions().items()
    hidden = {name for name, owners in modules if available.isdisjoint(map(canonicalize_name, owners))}
    return Installation(installed, tmp_path, hidden)


def with_extras(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("installation", [" ".join(names)], indirect=True)


# ---- contents


def sources() -> set[str]:
    """Return the files of the three packages that are installed as they are."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if "__pycache__" not in path.parts and path.suffix not in (".c", ".h", ".so")
    }


def test_wheel_contains_exactly_the_three_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    assert found == {*sources(), CORE}
    files = {"srshards/py.typed", "shardgen/degradation/recipes/realesrgan.yaml", "trainer/presets/realesrgan.yaml"}
    assert files <= found


def test_one_wheel_is_for_all_versions_of_python(wheel: Path) -> None:
    assert "-cp310-abi3-" in wheel.name


def test_builds_without_a_compiler(tmp_path: Path) -> None:
    """The core is then missing, and `srshards.native` says so."""
    (path,) = build(tmp_path, "--wheel", CC="/no/compiler").iterdir()
    with zipfile.ZipFile(path) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == sources()
        file.extractall(tmp_path / "installed")
    program = "import srshards.native as native; print(native.is_available(), native.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "installed", capture_output=True, text=True, env={}
    )
    assert result.stdout.split() == ["False", str(tmp_path / "installed/srshards/native/__init__.py")], result.stderr


def test_metadata(wheel_metadata: Message, wheel: Path) -> None:
    assert wheel_metadata["Name"] == "sr-shards" and wheel_metadata["Requires-Python"] == ">=3.10"
    assert wheel_metadata["License-Expression"] == "Apache-2.0" and wheel_metadata["License-File"] == "LICENSE"
    assert wheel_metadata["Description-Content-Type"] == "text/markdown"
    readme = wheel_metadata.get_payload()
    assert isinstance(readme, str) and readme.startswith("# sr-shards")
    assert set(wheel_metadata.get_all("Provides-Extra", [])) == EXTRAS
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        lines = file.read(name).decode().split("\n")
    assert {"shardgen = shardgen.__main__:run", "trainer = trainer.__main__:run"} <= set(lines)


def test_extra_all_is_every_extra_except_heavy_ones(wheel_metadata: Message) -> None:
    requirements = map(Requirement, wheel_metadata.get_all("Requires-Dist", []))
    (everything,) = (item for item in requirements if item.name == "sr-shards")
    assert everything.extras == EXTRAS - {"all"} - NOT_IN_ALL


def test_constraints_list_every_requirement(wheel_metadata: Message) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
    needed = {canonicalize_name(Requirement(text).name) for text in wheel_metadata.get_all("Requires-Dist", [])}
    assert needed - {"sr-shards"} <= pinned


# ---- commands with and without extras

# Runs several trainer commands, one per line of stdin, in one process.
RUN_EACH_LINE = """
import runpy, sys
for line in sys.stdin:
    sys.argv = ["trainer", *line.split()]
    try:
        runpy.run_module("trainer", run_name="__main__")
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def test_generating_and_reading_shards_needs_no_extra(installation: Installation) -> None:
    make_photos(installation.folder / "photos", 6)
    for name in ("shardgen", "trainer"):
        assert installation.run(name, "--version").startswith(f"{name}, version ")
        assert f"Usage: python -m {name}" in installation.run(name, "--help")
    assert "sharpen-hr: true" in installation.run("trainer", "preset", "show", "realesrgan")
    where = installation.run("python", "-c", "import srshards, shardgen, trainer; print(srshards, shardgen, trainer)")
    assert where.count(str(installation.bin.parent)) == len(PACKAGES)
    recipe = ("--degradation", "realesrgan", "--size", 64, "-s", 4, "--workers", 0, "--auto")
    output = installation.run("shardgen", "generate", "-i", "photos", "-o", "shards", *recipe)
    assert "shards/scale_4x: 6 samples in 2 shards" in output
    assert "2 shards, 6 samples" in installation.run("shardgen", "verify", "shards")
    assert "realesrgan" in installation.run("shardgen", "inspect", "shards/scale_4x")
    assert "6 samples" in installation.run("shardgen", "preview", "shards/scale_4x", "-o", "preview.png")
    assert (installation.folder / "preview.png").stat().st_size > 1000


@with_extras("report")
def test_reports_need_only_their_extra(installation: Installation) -> None:
    shards = ROOT / "tests" / "old_files" / "version_2"
    assert "samples measured" in installation.run("shardgen", "report", shards, "-o", "shards.html", "--samples", 2)
    run = ROOT / "tests" / "old_files" / "run"
    assert "runs.html: " in installation.run("trainer", "report", run, "-o", "runs.html")


@with_extras("train")
def test_training_needs_only_its_extra(installation: Installation, shards: Path) -> None:
    small = ("--model", "ultra_lite", "--patch-size", 16, "--batch-size", 2, "--workers", 0, "--device", "cpu")
    training = ("--shards", shards / "scale_2x", "--steps", 1, *small, "--run", "one")
    export = ("export", "--weights", Path("runs", "one", "model.pth"))
    output = installation.run(
        "python", "-c", RUN_EACH_LINE, stdin="\n".join(" ".join(map(str, w)) for w in (training, export))
    )
    assert "ONNX export requires onnx, which is not installed" in output and "sr-shards[onnx]" in output
    assert [line for line in output.splitlines() if line.isdigit()] == ["0", "2"]


# ---- missing packages


def missing(package: str, extra: str) -> str:
    return (
        f"Error: this requires {package}, which is not installed; run "
        f"`pip install 'sr-shards[{extra}]'` or, in a clone of sr-shards, `pip install -e '.[{extra}]'`\n"
    )


def test_trainer_without_pytorch_shows_what_to_install(installation: Installation) -> None:
    commands = (
        "--shards shards/scale_4x",
        "--run one --resume",
        "evaluate --weights w.pth --shards shards/scale_4x",
        "upscale --weights w.pth photo.jpg -o enlarged",
        "export --weights w.pth",
    )
    assert installation.run("python", "-m", "trainer", *commands[0].split(), expect=2) == missing("torch", "train")
    output = installation.run("python", "-c", RUN_EACH_LINE, stdin="\n".join(commands[1:]))
    assert output == (missing("torch", "train") + "2\n") * 4


def test_reports_without_their_extra_show_what_to_install(installation: Installation) -> None:
    for program, name in (("shardgen", "version_2"), ("trainer", "run")):
        output = installation.run(program, "report", ROOT / "tests" / "old_files" / name, expect=2)
        assert output in [missing(package, "report") for package in ("altair", "jinja2", "markupsafe")]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("shardgen generate -i s3://bucket/photos --auto", "s3"),
        ("shardgen inspect hf://datasets/user/name/scale_4x", "hf"),
        ("shardgen generate -i photos --engine ray --auto", "ray"),
        ("python -m shardgen.sample_photos sample_photos", "samples"),
    ],
)
def test_other_commands_without_their_extra_show_what_to_install(
    command: str, extra: str, installation: Installation
) -> None:
    make_photos(installation.folder / "photos", 1)
    output = installation.run(*command.split(), expect=2)
    assert (
        f"run `pip install 'sr-shards[{extra}]'` or, in a clone of sr-shards, `pip install -e '.[{extra}]'`" in output
    )


def test_other_missing_packages_raise(installation: Installation, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks" / "sitecustomize.py"
    hooks.write_text(HIDE % {"cv2"})
    with pytest.raises(AssertionError, match="ModuleNotFoundError: No module named 'cv2'"):
        installation.run("shardgen", "preview", ROOT / "tests" / "old_files" / "version_2" / "scale_2x")


# ---- other operating systems

ON_WINDOWS = """
import runpy, sys
sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios")))
sys.platform = "win32"
"""


@pytest.mark.parametrize("name", ["shardgen", "trainer"])
@pytest.mark.parametrize("start", ["from {0}.__main__ import run; run()", "runpy.run_module('{0}', None, '__main__')"])
def test_commands_on_windows_recommend_wsl(name: str, start: str, installation: Installation) -> None:
    output = installation.run("python", "-c", ON_WINDOWS + start.format(name), expect=2)
    assert output == f"Error: {name} runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)\n"


def test_library_on_windows_recommends_wsl(installation: Installation) -> None:
    attempt = "\ntry: import srshards\nexcept ImportError as error: print(error)"
    output = installation.run("python", "-c", ON_WINDOWS + attempt)
    assert output == "sr-shards requires Linux; on Windows, install it in WSL 2\n"
