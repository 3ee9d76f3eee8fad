"""A locale that knows ASCII alone changes nothing: names are UTF-8, and manifests have the same bytes."""

import os
from pathlib import Path

import pytest
from helpers import SMALL, all_files, contract_files, generate, make_photos, run_cli, run_trainer

ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CLASSES = ("山", "été", os.fsdecode(b"\xe9t\xe9"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos each in folders with a Chinese name, an accented one, and one that is not UTF-8."""
    folder = make_photos(tmp_path_factory.mktemp("named"), 6)
    for number, name in enumerate(CLASSES):
        (folder / f"class{number}").rename(folder / name)
    (folder / "山" / "空.jpg").write_bytes(b"no image")
    return folder


def test_shards_and_loose_files_are_the_same(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "utf8", "-s", 2)
    words = ("generate", "-i", photos, "-o", tmp_path / "ascii", "-s", 2, "--size", 64, "--workers", 1, "--auto")
    done = run_cli(*words, env=ASCII)
    assert done.returncode == 0 and "山/空.jpg: not an image" in done.stderr
    assert contract_files(tmp_path / "ascii") == contract_files(tmp_path / "utf8")
    assert run_cli("unpack", tmp_path / "utf8", "-o", tmp_path / "loose").returncode == 0
    done = run_cli("unpack", tmp_path / "ascii", "-o", tmp_path / "同", env=ASCII)
    assert done.returncode == 0 and done.stdout == f"{tmp_path / '同'}: 6 samples, 18 files\n" and done.stderr == ""
    assert all_files(tmp_path / "同") == all_files(tmp_path / "loose")


@pytest.mark.slow
def test_the_trainer_takes_the_same_names(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "分片", "-s", 2)
    words = ("--shards", tmp_path / "分片/scale_2x", *SMALL, "--steps", 1, "--out", tmp_path, "--run", "跑")
    done = run_trainer(*words, "--workers", 1, env=ASCII)
    assert done.returncode == 0 and (tmp_path / "跑/model.pth").exists() and "Traceback" not in done.stderr
