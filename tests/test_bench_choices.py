"""The benchmark of `--method` and `--codec`, run on a few synthetic photos."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import make_photos
from PIL import Image

from benchmarks import choices
from benchmarks.common import REPOSITORY, RESULTS
from shardgen.planning.config import METHODS
from srshards.format import CODECS

PX = 48


@pytest.mark.slow
def test_command_measures_methods_and_codecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "METHODS", ("nearest", "area"))  # each starts a process; the published result has all
    monkeypatch.setattr(choices, "CODECS", ("npy", "webp"))
    photos, output = make_photos(tmp_path / "photos", 5), tmp_path / "choices.json"
    where = ["--photos", str(photos), "--scratch", str(tmp_path), "-o", str(output)]
    result = CliRunner().invoke(choices.main, [*where, "--size", str(PX)])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())

    assert set(found["methods"]) == {"nearest", "area"} and set(found["codecs"]) == {"npy", "webp"}
    for psnr in found["methods"].values():
        assert 10 < psnr["min"] < psnr["mean"] < psnr["max"] < 60
    assert found["methods"]["nearest"]["mean"] < found["methods"]["area"]["mean"]

    image = PX * PX * 3
    for scale in (2, 3, 4):
        lr = image // scale**2
        with_up, without = (found["codecs"]["npy"][name][f"{scale}x"] for name in ("with up", "without up"))
        assert 2 * image + lr < with_up < 2 * image + lr + 12_000
        assert image < with_up - without < image + 1_500  # the image, its headers, and padding
    for cases in found["codecs"].values():
        assert all(cases["without up"][scale] < cases["with up"][scale] for scale in ("2x", "3x", "4x"))
    assert found["settings"] == {"size": PX, "sample": 1.0, "method_scale": 4}
    assert "PSNR of up" in result.output and "webp, without up" in result.output
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("shardgen-bench")] == []


def test_published_result_is_complete_and_quoted() -> None:
    found = json.loads((RESULTS / "choices.json").read_text())
    assert set(found["methods"]) == set(METHODS) and set(found["codecs"]) == set(CODECS)
    page = (REPOSITORY / "docs/explanation/performance.md").read_text()
    for name, psnr in found["methods"].items():
        assert f"| `{name}` | {psnr['mean']:.2f} dB | {psnr['min']:.2f} dB | {psnr['max']:.2f} dB |\n" in page


def test_mean_is_weighted_by_samples() -> None:
    train = {"samples": 4, "psnr_up_db": {"mean": 30.0, "min": 20.0, "max": 40.0, "identical": 1}}
    val = {"samples": 1, "psnr_up_db": {"mean": 34.0, "min": 34.0, "max": 34.0, "identical": 0}}
    none = {"samples": 2, "psnr_up_db": {"mean": None, "min": None, "max": None, "identical": 2}}
    assert choices.psnr_up_db({"splits": {"train": train, "val": val, "more": none}}) == {
        "mean": 31.0,
        "min": 20.0,
        "max": 40.0,
    }


def test_photos_of_a_single_colour_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((64, 64, 3), 7, np.uint8)).save(tmp_path / "photos/flat.png")
    where = ["--photos", str(tmp_path / "photos"), "--scratch", str(tmp_path), "-o", str(tmp_path / "choices.json")]
    result = CliRunner().invoke(choices.main, [*where, "--size", str(PX)])
    assert result.exit_code == 1 and "a single colour" in result.output and not (tmp_path / "choices.json").exists()


@pytest.mark.parametrize("args", [[], ["--photos", "nowhere"]])
def test_missing_photos_are_reported(args: list[str]) -> None:
    result = CliRunner().invoke(choices.main, args)
    assert result.exit_code == 2 and "photo" in result.output
