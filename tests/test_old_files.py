"""Shards and runs that older releases wrote (`old_files/make.py` says which) read as they were meant."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, run_cli, trainer
from PIL import Image

OLD = Path(__file__).parent / "old_files"
VERSIONS = ("version_1", "version_2")


@pytest.mark.parametrize("version", VERSIONS)
def test_old_shards_are_whole(version: str) -> None:
    done = run_cli("verify", OLD / version)
    assert done.returncode == 0 and "2 shards, 8 samples" in done.stdout and "all intact" in done.stdout


@pytest.mark.parametrize(("version", "codec", "variants"), [("version_1", "npy", 1), ("version_2", "png", 2)])
def test_old_shards_are_described(version: str, codec: str, variants: int) -> None:
    described = json.loads(run_cli("inspect", OLD / version / "scale_2x", "--json").stdout)
    settings = next(iter(described.values()))["settings"]
    assert (settings["hr_size"], settings["codec"], settings.get("variants", 1)) == (32, codec, variants)


# Recorded when the files were made: sha256 over name, size and pixels of each unpacked file, in the order of names.
UNPACKED = {
    "version_1": (24, "da374329533324df2b1a680a2e02aeb42f364425cc999394ac98c052d847a93f"),
    "version_2": (29, "0efed13ffbba03e13cf942e9f698193812dca30be01b44b9fa56eb7a324f0dd2"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_old_shards_unpack_to_the_same_pixels(version: str, tmp_path: Path) -> None:
    assert run_cli("unpack", OLD / version / "scale_2x", "-o", tmp_path).returncode == 0
    files, found = sorted(tmp_path.rglob("*.png")), hashlib.sha256()
    for path in files:
        pixels = np.asarray(Image.open(path))
        found.update(f"{path.relative_to(tmp_path).as_posix()} {pixels.shape}".encode() + pixels.tobytes())
    assert (len(files), found.hexdigest()) == UNPACKED[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_old_shards_train(version: str, tmp_path: Path) -> None:
    words = ("--shards", OLD / version / "scale_2x", *SMALL, "--patch-size", 16, "--batch-size", 2)
    done = trainer(*words, "--steps", 2, "--out", tmp_path, "--run", "r")
    assert done.code == 0 and (tmp_path / "r" / "best.pth").exists(), done.err


def test_an_old_run_goes_on_as_if_it_had_never_been_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(OLD / "version_1" / "scale_2x", tmp_path / "scale_2x")
    shutil.copytree(OLD / "run", tmp_path / "runs" / "run")
    monkeypatch.chdir(tmp_path)
    done = trainer("--run", "run", "--resume")
    assert done.code == 0, done.err
    expected, found = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (OLD / "run" / "journal-of-the-whole.jsonl", Path("runs/run/journal.jsonl"))
    )
    assert [(line["event"], line["step"]) for line in found] == [(line["event"], line["step"]) for line in expected]
    for name in ("loss", "psnr_y"):
        figures = [[line[name] for line in lines if name in line] for lines in (found, expected)]
        assert len(figures[0]) == {"loss": 6, "psnr_y": 3}[name]
        assert figures[0] == pytest.approx(figures[1], rel=1e-3)
