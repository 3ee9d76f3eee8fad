"""`bench_upscale` end to end, with a tiny photo."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import make_photos

from benchmarks import bench_upscale
from benchmarks.bench_upscale import Case, main
from benchmarks.common import REPOSITORY

CASE = Case("ultra_lite", 40, 30, 2)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench_upscale, "CASES", (CASE, Case("lite", 500, 500)))
    make_photos(tmp_path / "photos", 1)
    return tmp_path / "photos"


@pytest.mark.slow
def test_versions_are_compared(photos: Path, tmp_path: Path) -> None:
    options = ["--rounds", "1", "--only", "ultra", "--threads", "1", "-o", tmp_path / "r.json", "--against", REPOSITORY]
    result = CliRunner().invoke(main, ["--photos", str(photos), *map(str, options)])
    assert result.exit_code == 0, result.output
    assert f"{CASE.name}: the other version takes " in result.output
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["command"] == "python -m benchmarks.bench_upscale --photos DIR --rounds 1 --against DIR"
    (of_case,) = written["cases"].values()
    for tree in ("this", "against"):
        assert set(of_case[tree]) == {"wall_s", "user_s", "system_s", "peak_mb", "page_faults"}
        assert of_case[tree]["peak_mb"]["median"] > 100
    this, against = ({**of_case[tree]} for tree in ("this", "against"))
    times = [tree["user_s"]["median"] + tree["system_s"]["median"] for tree in (against, this)]
    assert of_case["cpu_time_ratio"]["median"] == pytest.approx(times[0] / times[1], abs=0.01)


def test_unknown_cases_and_versions_are_refused(photos: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["--photos", str(photos), "--only", "rrdb"])
    assert run.exit_code == 2 and "no case has this text; the cases are ultra_lite, 2 x 40 px; lite, 500" in run.output
    run = CliRunner().invoke(main, ["--photos", str(photos), "--against", str(tmp_path)])
    assert run.exit_code == 2 and "expected a checkout of this project, with the package trainer" in run.output
