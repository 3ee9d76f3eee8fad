"""Current code reads shards and runs of older releases (see `old_files/make.py`)."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, contract_files, make_photos, run_cli, trainer
from PIL import Image

OLD = Path(__file__).parent / "old_files"
VERSIONS = ("version_1", "version_2", "version_3")


@pytest.mark.parametrize("version", VERSIONS)
def test_old_shards_are_intact(version: str) -> None:
    result = run_cli("verify", OLD / version)
    assert result.returncode == 0 and "2 shards, 8 samples" in result.stdout and "all intact" in result.stdout


@pytest.mark.parametrize(
    ("version", "codec", "variants"), [("version_1", "npy", 1), ("version_2", "png", 2), ("version_3", "tlc", 1)]
)
def test_settings_of_old_shards(version: str, codec: str, variants: int) -> None:
    output = json.loads(run_cli("inspect", OLD / version / "scale_2x", "--json").stdout)
    settings = next(iter(output.values()))["settings"]
    assert (settings["hr_size"], settings["codec"], settings.get("variants", 1)) == (32, codec, variants)


# Recorded when the files were created: number of unpacked files, and SHA-256 of their names, shapes and pixels.
UNPACKED = {
    "version_1": (24, "da374329533324df2b1a680a2e02aeb42f364425cc999394ac98c052d847a93f"),
    "version_2": (29, "0efed13ffbba03e13cf942e9f698193812dca30be01b44b9fa56eb7a324f0dd2"),
    "version_3": (16, "ec378e3e2cb72ceebb148a48455b42cdca78b0fe77cf3dddb6345190ca060dcf"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_old_shards_unpack_to_the_same_pixels(version: str, tmp_path: Path) -> None:
    assert run_cli("unpack", OLD / version / "scale_2x", "-o", tmp_path).returncode == 0
    files, digest = sorted(tmp_path.rglob("*.png")), hashlib.sha256()
    for path in files:
        pixels = np.asarray(Image.open(path))
        digest.update(f"{path.relative_to(tmp_path).as_posix()} {pixels.shape}".encode() + pixels.tobytes())
    assert (len(files), digest.hexdigest()) == UNPACKED[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_training_on_old_shards(version: str, tmp_path: Path) -> None:
    args = ("--shards", OLD / version / "scale_2x", *SMALL, "--patch-size", 16, "--batch-size", 2)
    result = trainer(*args, "--steps", 2, "--out", tmp_path, "--run", "r")
    assert result.code == 0 and (tmp_path / "r" / "best.pth").exists(), result.err


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_old_shards_are_replaced_only_with_force(version: str, tmp_path: Path) -> None:
    shards = shutil.copytree(OLD / version, tmp_path / "shards")
    settings = json.loads((OLD / version / "scale_2x/manifest.json").read_text())["settings"]
    photos = make_photos(tmp_path / "photos", 8, (40, 52))
    args = ("generate", "-i", photos, "-o", shards, "-s", 2, "--size", 32, "--val-fraction", 0.25, "--auto")
    args += ("--codec", settings["codec"], "--shard-bytes", settings["shard_bytes"])
    recipe = ("--degradation", "realesrgan", "--variants", 2) if version == "version_2" else ()
    before = contract_files(shards)
    refused = run_cli(*args, *recipe)
    assert refused.returncode == 2 and f"format_version {version[-1]} -> 3" in refused.stderr
    assert "Pass --force" in refused.stderr and contract_files(shards) == before
    assert run_cli(*args, *recipe, "--force").returncode == 0 and run_cli("verify", shards).returncode == 0
    assert json.loads((shards / "scale_2x/manifest.json").read_text())["format_version"] == 3


def test_old_run_resumes_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(OLD / "version_1" / "scale_2x", tmp_path / "scale_2x")
    shutil.copytree(OLD / "run", tmp_path / "runs" / "run")
    monkeypatch.chdir(tmp_path)
    result = trainer("--run", "run", "--resume")
    assert result.code == 0, result.err
    expected, found = (
        [line for line in map(json.loads, path.read_text().splitlines()) if line["event"] != "account"]
        for path in (OLD / "run" / "journal-of-the-whole.jsonl", Path("runs/run/journal.jsonl"))
    )
    assert '"account"' in Path("runs/run/journal.jsonl").read_text(), "it begins with the resumption"
    assert [(line["event"], line["step"]) for line in found] == [(line["event"], line["step"]) for line in expected]
    for name in ("loss", "psnr_y"):
        figures = [[line[name] for line in lines if name in line] for lines in (found, expected)]
        assert len(figures[0]) == {"loss": 6, "psnr_y": 3}[name]
        assert figures[0] == pytest.approx(figures[1], rel=1e-3)
    found_rates, rates = ([line["lr"] for line in lines if "lr" in line] for lines in (found, expected))
    assert found_rates == rates, "those of the version that started the run, although the defaults have changed"
