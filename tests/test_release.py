"""`python -m tests.release` and what it checks: the messages about each fault, and that this repository has none.

Building and installing are tested in test_packaging.py; here they are replaced, and packages are written by hand.
"""

import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.release import __main__ as command
from tests.release.licences import is_allowed, licence_faults, licence_of, licences
from tests.release.packages import (
    CORE,
    FILES,
    build,
    installed_faults,
    sdist_faults,
    tracked_files,
    wheel_faults,
)
from tests.release.versions import package_version, release_faults, version_faults

ROOT = Path(__file__).parent.parent
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 2.3.4 - 2030-01-31\n\n- One.\n"
CITATION = 'version: 2.3.4\ndate-released: "2030-01-31"\n'


def git(root: Path, *args: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of three files, which agree, in one commit."""
    folder = tmp_path / "root"
    (folder / "srshards").mkdir(parents=True)
    (folder / "srshards/__init__.py").write_text('__version__ = "2.3.4"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / "CITATION.cff").write_text(CITATION)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- versions


def test_versions_of_this_repository_agree() -> None:
    assert list(version_faults(ROOT)) == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", package_version(ROOT))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("CHANGELOG.md", "## Unreleased\n", "", "expected `## Unreleased` as the first section, found `## 2.3.4 - 2"),
        (
            "CHANGELOG.md",
            "2.3.4 -",
            "2.3.3 -",
            "CHANGELOG.md: expected `## 2.3.4 - YYYY-MM-DD` as the second section, f",
        ),
        ("CHANGELOG.md", "-01-31", "-02-31", "as the second section, found `## 2.3.4 - 2030-02-31`"),
        ("CHANGELOG.md", " - 2030-01-31", "", "as the second section, found `## 2.3.4`"),
        ("CITATION.cff", "2.3.4", "2.3.3", "expected version 2.3.4, as in srshards/__init__.py, found 2.3.3"),
        ("CITATION.cff", "-31", "-30", "expected date-released 2030-01-31, as in CHANGELOG.md, found 2030-01-30"),
        ("srshards/__init__.py", "2.3.4", "2.4.0", "expected version 2.4.0, as in srshards/__init__.py, found 2.3.4"),
    ],
)
def test_versions_that_disagree_are_reported(file: str, old: str, new: str, message: str, root: Path) -> None:
    assert list(version_faults(root)) == []
    edit(root / file, old, new)
    assert message in "\n".join(version_faults(root))


# ---- the commit


def test_a_clean_commit_can_be_released(root: Path) -> None:
    (root / "CHANGELOG.md").write_text(CHANGELOG.replace("Unreleased\n", "Unreleased\n\n### Added\n"))
    git(root, "commit", "-qam", "only a heading")
    assert list(release_faults(root)) == []
    git(root, "tag", "v2.3.4")
    assert list(release_faults(root)) == []


@pytest.mark.parametrize("notes", ["- Two.", "### Added\n\n- Two."])
def test_what_keeps_a_commit_from_being_released(notes: str, root: Path) -> None:
    git(root, "tag", "v2.3.4")
    edit(root / "CHANGELOG.md", "## Unreleased\n", f"## Unreleased\n\n{notes}\n")
    git(root, "commit", "-qam", "two")
    (root / "new").touch()
    assert list(release_faults(root)) == [
        "uncommitted changes: new; commit or remove them",
        "CHANGELOG.md: `## Unreleased` is not empty; move its notes to a section of the new version, and set the "
        "version in srshards/__init__.py and CITATION.cff",
        "the tag v2.3.4 belongs to another commit: this version is already released; set a new one",
    ]


# ---- sdist and wheel

SOURCES = [*FILES, "srshards/__init__.py", "srshards/native/tlc.c", "trainer/py.typed", "docs/page.md"]
METADATA = "Metadata-Version: 2.4\nName: a\nVersion: 1\nDescription-Content-Type: text/markdown\n\n# A\n"


def write_sdist(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name in ("PKG-INFO", "a.egg-info/SOURCES.txt", *names):
            file.addfile(tarfile.TarInfo(f"a-1/{name}"), io.BytesIO())
    return path


def write_wheel(path: Path, names: list[str], metadata: str = METADATA) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "")
        file.writestr("a-1.dist-info/METADATA", metadata)
    return path


def test_contents_of_an_sdist(tmp_path: Path) -> None:
    names = [name for name in SOURCES if name != "docs/page.md"]
    assert list(sdist_faults(write_sdist(tmp_path / "a", names), SOURCES)) == []
    names = [*names[1:], "tests/x.py"]
    assert list(sdist_faults(write_sdist(tmp_path / "a", names), SOURCES)) == [
        f"the sdist lacks {FILES[0]}",
        "the sdist should not contain tests/x.py",
    ]


def test_contents_and_metadata_of_a_wheel(tmp_path: Path) -> None:
    names = ["srshards/__init__.py", "trainer/py.typed", CORE]
    assert list(wheel_faults(write_wheel(tmp_path / "a", names), SOURCES)) == []
    wheel = write_wheel(tmp_path / "a", [*names[:2], "srshards/native/tlc.c"], METADATA.replace("# A", "A"))
    assert list(wheel_faults(wheel, SOURCES)) == [
        f"the wheel lacks {CORE}",
        "the wheel should not contain srshards/native/tlc.c",
        "metadata: expected README.md as a description of the type text/markdown",
    ]
    wheel = write_wheel(tmp_path / "a", names, METADATA.replace("Version: 1", "Version: one"))
    assert [fault for fault in wheel_faults(wheel, SOURCES) if "'one' is invalid for 'version'" in fault]


def test_a_failed_build_says_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)-m build .* failed: .*pyproject\.toml"):
        build(root, tmp_path)


@pytest.mark.slow
def test_an_installation_that_does_not_work_is_reported(tmp_path: Path) -> None:
    """A wheel without commands, of another version."""
    wheel = tmp_path / "sr_shards-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("srshards/__init__.py", '__version__ = "1.0"')
        file.writestr("srshards/native/__init__.py", "is_available = lambda: False")
        file.writestr("sr_shards-1.0.dist-info/METADATA", "Metadata-Version: 2.4\nName: sr-shards\nVersion: 1.0\n")
        file.writestr("sr_shards-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("sr_shards-1.0.dist-info/RECORD", "")
    (shardgen, trainer, versions) = installed_faults(wheel, "2.0", tmp_path)
    assert "venv/bin/shardgen --version printed" in shardgen and "not 'shardgen, version 2.0'" in shardgen
    assert "venv/bin/trainer --version printed" in trainer
    assert versions.endswith("printed '1.0 False', not '2.0 True'")


def test_only_tracked_files_are_packed(root: Path) -> None:
    (root / "new").touch()
    (root / "CITATION.cff").unlink()
    assert tracked_files(root) == ["CHANGELOG.md", "srshards/__init__.py"]


# ---- licences


def package(**fields: str | list[str]) -> Message:
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "mit and apache-2.0"}, "MIT AND Apache-2.0"),
        ({"License": "BSD-3-Clause", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD-3-Clause"),
        ({"License": "MIT License"}, "MIT"),
        ({"License": "Copyright\n(c) A", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        (
            {"Classifier": [f"License :: OSI Approved :: {name}" for name in ("BSD License", "ISC License (ISCL)")]},
            "BSD AND ISC",
        ),
        ({"Classifier": "License :: OSI Approved :: A New Licence"}, "A New Licence"),
        ({"License": "Commercial"}, "Commercial"),
        ({"Classifier": "Topic :: Multimedia"}, ""),
    ],
)
def test_licence_of_metadata(fields: dict[str, str | list[str]], licence: str) -> None:
    assert licence_of(package(**fields)) == licence


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND GPL-3.0-only OR MIT", False),
        ("Commercial", False),
        ("", False),
    ],
)
def test_allowed_licences(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) == allowed


def test_unknown_licences_are_reported_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = {"one": package(License="Commercial"), "two": package(), "three": package(License="MIT")}
    monkeypatch.setattr("tests.release.licences.metadata.metadata", stated.__getitem__)
    assert licence_faults(stated) == [
        "one: Commercial; if it is acceptable, add it to tests/release/licences.py",
        "two: no known licence; if it is acceptable, add it to tests/release/licences.py",
    ]


def test_packages_that_are_not_installed_have_no_licence() -> None:
    assert licences(["numpy", "no-such-package"]).keys() == {"numpy"}


# ---- the command


@pytest.fixture
def release(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run the command on `root`, with packages that are written by hand, in the place of built ones."""
    shutil.copyfile(ROOT / "LICENSE", root / "LICENSE")
    monkeypatch.setattr(command, "ROOT", root)
    metadata = METADATA.replace("\n\n", "\nRequires-Dist: click\nRequires-Dist: no-such-package\n\n")
    packages = write_sdist(tmp_path / "a.tar.gz", [*FILES, "srshards/__init__.py"]), tmp_path / "a.whl"
    write_wheel(packages[1], ["srshards/__init__.py", CORE], metadata)
    monkeypatch.setattr(command, "build", lambda root, folder: packages)
    monkeypatch.setattr(command, "installed_faults", lambda wheel, version, folder: [])

    def run(*args: str) -> tuple[int, str]:
        result = CliRunner().invoke(command.main, args)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.output

    return run


def test_the_command_lists_checks_and_faults(release: Callable[..., tuple[int, str]], root: Path) -> None:
    (root / "LICENSE").unlink()
    code, output = release("--licences")
    assert code == 0 and output == (
        "versions: ok\ncommit: ok\na.tar.gz: ok\na.whl: ok\ninstalled wheel: ok\n  click: BSD-3-Clause\n"
        "licences of 1 dependencies: ok\nnot installed, so that their licences are not checked: no-such-package\n"
    )
    (root / "new").touch()
    code, output = release()
    assert code == 1 and "commit: FAILED\n  uncommitted changes: new; commit or remove them\n" in output
    assert release("--unreleased")[0] == 0
    edit(root / "CITATION.cff", "2.3.4", "2.3.5")
    code, output = release("--unreleased")
    assert code == 1 and "versions: FAILED\n  CITATION.cff: expected version 2.3.4" in output
