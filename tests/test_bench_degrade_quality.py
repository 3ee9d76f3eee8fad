"""The experiment on what degradations do for a network, with a handful of made photos and three steps."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import make_photos
from PIL import Image

from benchmarks import degrade_quality


@pytest.mark.slow
def test_networks_are_judged_on_two_kinds_of_photos_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three: the third differs in its shards alone."""
    monkeypatch.delitem(degrade_quality.SETS, "realesrgan-8")
    photos = make_photos(tmp_path / "photos", 5)
    words = ["--photos", str(photos), "--work", str(tmp_path / "work"), "--steps", "2", "-o", str(tmp_path / "q.json")]
    done = CliRunner().invoke(degrade_quality.main, [*words, "--picture", str(tmp_path / "q.png")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "q.json").read_text())
    assert set(found["quality"]) == set(found["settings"]["cpu_s"]) == {"cubic", "realesrgan-1"}
    for judged in found["quality"].values():
        assert set(judged) == {"clean", "degraded"}
        assert judged["clean"]["bicubic"]["psnr_y"] > judged["degraded"]["bicubic"]["psnr_y"]
        assert 0 < judged["clean"]["network"]["ssim_y"] < 1
    with Image.open(tmp_path / "q.png") as picture:
        assert picture.width == 5 * 192 + 6 * 8
    again = CliRunner().invoke(degrade_quality.main, [*words[:5], "3", *words[6:]])
    assert again.exit_code == 2 and "pass another --work, or --steps 2" in again.output
