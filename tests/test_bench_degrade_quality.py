"""The experiment on degradations and trained quality, with a few synthetic photos and two steps."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import make_photos, warm_command
from PIL import Image

from benchmarks import degrade_quality


@pytest.mark.slow
def test_networks_are_evaluated_on_clean_and_degraded_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(degrade_quality.SETS, "realesrgan-8")  # differs from realesrgan-1 only in its shards
    monkeypatch.setattr(degrade_quality, "timed_command", warm_command)
    photos = make_photos(tmp_path / "photos", 5)
    args = ["--photos", str(photos), "--work", str(tmp_path / "work"), "--steps", "2", "-o", str(tmp_path / "q.json")]
    result = CliRunner().invoke(degrade_quality.main, [*args, "--picture", str(tmp_path / "q.png")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "q.json").read_text())
    assert set(found["quality"]) == set(found["settings"]["cpu_s"]) == {"cubic", "realesrgan-1"}
    for quality in found["quality"].values():
        assert set(quality) == {"clean", "degraded"}
        assert quality["clean"]["bicubic"]["psnr_y"] > quality["degraded"]["bicubic"]["psnr_y"]
        assert 0 < quality["clean"]["network"]["ssim_y"] < 1
    with Image.open(tmp_path / "q.png") as picture:
        assert picture.width == 5 * 192 + 6 * 8
    again = CliRunner().invoke(degrade_quality.main, [*args[:5], "3", *args[6:]])
    assert again.exit_code == 2 and "pass another --work, or --steps 2" in again.output
