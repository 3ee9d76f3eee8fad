"""Build sdist and wheel from the files under version control, without a network, and check both."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.metadata import ExceptionGroup, Metadata

PACKAGES = ("shardgen", "srshards", "trainer")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg", "setup.py")
CORE = "srshards/native/_core.abi3.so"
_NOT_IN_WHEEL = (".c", ".h")
_VERSIONS = "import srshards, srshards.native as native; print(srshards.__version__, native.is_available())"


def tracked_files(root: Path) -> list[str]:
    """Return the paths of the files under version control that exist, as they are in the working tree."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.split("\0") if name and (root / name).is_file()]


def build(root: Path, folder: Path) -> tuple[Path, Path]:
    """Build an sdist from the tracked files, and a wheel from the sdist; return both. RuntimeError if that fails."""
    for name in tracked_files(root):
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, path)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), "source"], folder)
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


def sdist_faults(sdist: Path, tracked: list[str]) -> Iterator[str]:
    """Yield the files that the sdist lacks, or contains without need."""
    with tarfile.open(sdist) as file:
        found = {member.name.partition("/")[2] for member in file if member.isfile()}
    found = {name for name in found if name != "PKG-INFO" and ".egg-info/" not in name}
    yield from _differences("the sdist", found, _of_packages(tracked) | set(FILES))


def wheel_faults(wheel: Path, tracked: list[str]) -> Iterator[str]:
    """Yield the files that the wheel lacks, or contains without need, and what is invalid in its metadata."""
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        text = read_metadata(wheel)
    yield from _differences(
        "the wheel", names, {name for name in _of_packages(tracked) if not name.endswith(_NOT_IN_WHEEL)} | {CORE}
    )
    try:
        checked = Metadata.from_email(text)
    except ExceptionGroup as group:
        yield from (f"metadata: {error}" for error in group.exceptions)
        return
    if checked.description_content_type != "text/markdown" or not (checked.description or "").startswith("# "):
        yield "metadata: expected README.md as a description of the type text/markdown"


def read_metadata(wheel: Path) -> str:
    """Return the text of METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return file.read(name).decode()


def installed_faults(wheel: Path, version: str, folder: Path) -> Iterator[str]:
    """Install the wheel in a new environment, with the dependencies of this one, and yield what does not work there."""
    environment = folder / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], folder)
    python = str(environment / "bin/python")
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", str(wheel)], folder)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    expected = {
        (str(environment / "bin/shardgen"), "--version"): f"shardgen, version {version}",
        (str(environment / "bin/trainer"), "--version"): f"trainer, version {version}",
        (python, "-c", _VERSIONS): f"{version} True",
        (python, "-c", "import srshards; print(srshards.__file__)"): str(packages / "srshards/__init__.py"),
    }
    for command, output in expected.items():
        try:
            found = _run(list(command), folder).strip()
        except (RuntimeError, OSError) as error:
            found = str(error)
        if found != output:
            yield f"installed wheel: {' '.join(command)} printed {found!r}, not {output!r}"


def _of_packages(tracked: list[str]) -> set[str]:
    return {name for name in tracked if name.startswith(tuple(f"{package}/" for package in PACKAGES))}


def _differences(what: str, found: set[str], expected: set[str]) -> Iterator[str]:
    if missing := sorted(expected - found):
        yield f"{what} lacks {', '.join(missing)}"
    if added := sorted(found - expected):
        yield f"{what} should not contain {', '.join(added)}"


def _run(command: list[str], folder: Path) -> str:
    """Run a command without this checkout on its path and return its standard output; RuntimeError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(result.stdout + result.stderr).strip()[-2000:]}")
    return result.stdout
