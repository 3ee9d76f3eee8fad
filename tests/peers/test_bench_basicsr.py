"""The benchmark of BasicSR's data time, with few photos and iterations."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import bench_basicsr
from tests.drill.folders import make_photos


def test_every_kind_of_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_basicsr, "ITERATIONS", 8)
    photos, output = make_photos(tmp_path / "photos", 12, (520, 520)), tmp_path / "result.json"
    arguments = ["--photos", str(photos), "--rounds", "1", "--workers", "1", "-o", str(output)]
    result = CliRunner().invoke(bench_basicsr.main, arguments)
    assert result.exit_code == 0, result.output
    cases = json.loads(output.read_text())["cases"]
    assert tuple(cases) == bench_basicsr.CASES
    for times in cases.values():
        assert 0 <= times["data_s"]["median"] <= times["iteration_s"]["median"]
