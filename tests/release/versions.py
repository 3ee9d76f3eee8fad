"""Compare version and date of the package, the changelog and the citation file, and the state of the repository."""

import re
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import yaml

_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_RELEASED = re.compile(r"(\S+) - (\d{4}-\d\d-\d\d)")
_UNRELEASED = "Unreleased"


def package_version(root: Path) -> str:
    """Return the version in `srshards/__init__.py`."""
    found = _VERSION.search((root / "srshards/__init__.py").read_text())
    assert found, "srshards/__init__.py has no __version__"
    return found[1]


def version_faults(root: Path) -> Iterator[str]:
    """Yield what does not agree with the version of the package."""
    version = package_version(root)
    first, newest = [*_SECTION.findall((root / "CHANGELOG.md").read_text()), "", ""][:2]
    if first != _UNRELEASED:
        yield f"CHANGELOG.md: expected `## {_UNRELEASED}` as the first section, found `## {first}`"
    released = _RELEASED.fullmatch(newest)
    if not released or released[1] != version or not _is_date(released[2]):
        yield f"CHANGELOG.md: expected `## {version} - YYYY-MM-DD` as the second section, found `## {newest}`"
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    if (cited := citation["version"]) != version:
        yield f"CITATION.cff: expected version {version}, as in srshards/__init__.py, found {cited}"
    if released and (cited := citation["date-released"]) != released[2]:
        yield f"CITATION.cff: expected date-released {released[2]}, as in CHANGELOG.md, found {cited}"


def release_faults(root: Path) -> Iterator[str]:
    """Yield what keeps the current commit from being released: changes without a commit, a note or a new version."""
    if changed := _git(root, "status", "--porcelain"):
        yield f"uncommitted changes: {', '.join(line[3:] for line in changed.splitlines())}; commit or remove them"
    notes = (root / "CHANGELOG.md").read_text().partition(f"## {_UNRELEASED}\n")[2].partition("\n## ")[0]
    if re.search(r"^(?!#|\s*$)", notes, re.MULTILINE):  # more than headings
        yield (
            f"CHANGELOG.md: `## {_UNRELEASED}` is not empty; move its notes to a section of the new version, and set "
            "the version in srshards/__init__.py and CITATION.cff"
        )
    tag = f"v{package_version(root)}"
    if _git(root, "tag", "--list", tag) and _git(root, "rev-list", "-n1", tag) != _git(root, "rev-parse", "HEAD"):
        yield f"the tag {tag} belongs to another commit: this version is already released; set a new one"


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _git(root: Path, *args: str) -> str:
    result = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True)
    return result.stdout.rstrip("\n")
