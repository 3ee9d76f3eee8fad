"""Files for hosts and contributors: workflows, templates, hooks, and what they repeat of other files."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_makefile import make

from srshards import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def jobs(name: str) -> dict[str, Any]:
    found = load(ROOT / ".github/workflows" / name)["jobs"]
    assert isinstance(found, dict)
    return found


def classifiers() -> list[str]:
    return re.findall(r"^    \"(\w.* :: .*)\",$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


# ---- CITATION.cff


def test_citation() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["version"] == __version__
    assert citation["title"] == "sr-shards" and citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The sr-shards contributors"}]


# ---- workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_only_and_end(path: Path) -> None:
    """Except for the job that drafts a release."""
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}) == ({"contents": "write"} if name == "draft" else {})
        assert "timeout-minutes" in job or (ROOT / job["uses"]).is_file()


def test_workflows_run_targets_that_exist() -> None:
    targets = {run for path in WORKFLOWS for run in re.findall(r"run: make ([a-z-]+)", path.read_text())}
    assert {"install", "lint", "test"} <= targets
    for target in targets:
        make("-n", target)


def test_ci_tests_the_versions_of_python_that_the_package_names() -> None:
    versions = jobs("ci.yml")["test"]["strategy"]["matrix"]["python"]
    named = [text.rpartition(" ")[2] for text in classifiers() if re.search(r"Python :: 3\.\d+$", text)]
    assert set(named) <= set(versions) and versions[0] == named[0] == "3.10"
    assert f'requires-python = ">={versions[0]}"' in (ROOT / "pyproject.toml").read_text()


def test_only_jobs_on_linux_can_fail_ci() -> None:
    """Linux is the system that the package names."""
    assert [text for text in classifiers() if text.startswith("Operating System")] == [
        "Operating System :: POSIX :: Linux"
    ]
    for name, job in jobs("ci.yml").items():
        is_linux = str(job.get("runs-on", "ubuntu")).startswith("ubuntu")
        assert job.get("continue-on-error", False) is not is_linux, name


# ---- templates and hooks


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms(path: Path) -> None:
    form = load(path)
    assert form["name"] and form["description"]
    ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    labels = [item["attributes"]["label"] for item in form["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids)) and len(labels) == len(set(labels))
    required = [item for item in form["body"] if item.get("validations", {}).get("required")]
    assert required


def test_hooks_are_those_of_make_lint() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    lint = make("-n", "lint")
    for hook in repository["hooks"]:
        command = re.sub(r" --force-exclude$", "", hook["entry"])
        assert command in lint and hook["language"] == "system"
