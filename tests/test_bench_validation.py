"""The benchmark of validations."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks import bench_validation


def test_command_measures_metrics_and_validations(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "validation.json"
    sizes = ["--models", "ultra_lite", "--images", "1", "--rounds", "1", "--device", "cpu"]
    result = CliRunner().invoke(
        bench_validation.main, ["--shards", str(shards / "scale_2x"), *sizes, "-o", str(output)]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert found["settings"] == {"images": 1, "hr_px": 64, "scale": 2}
    cases = ["metrics, 512 px", "ultra_lite, first validation", "ultra_lite, later validation"]
    assert sorted(found["ms_per_image"]) == cases
    assert all(case["median"] > 0 and len(case["rounds"]) == 1 for case in found["ms_per_image"].values())
