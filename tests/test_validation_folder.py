"""`--val`: a validation set of its own, for `generate` and `pack`."""

import shutil
from pathlib import Path

import pytest
from helpers import contract_files, generate, make_photo, make_photos, run_cli, trainer
from pairs import make_pairs, manifest, pack, samples, save


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos of which three have the path of a training photo, with other content."""
    folder = tmp_path_factory.mktemp("val")
    for number in range(5):
        save(folder / f"class0/img{3 * number}.png", make_photo(90, 120, 100 + number))
    for number in range(3):
        (folder / f"class0/img{3 * number}.png").rename(folder / f"class0/img{3 * number}.jpg")
    return folder


def sources(folder: Path, split: str) -> set[str]:
    first = "01"[split == "val"]
    return {one["json"]["source"] for key, one in samples(folder).items() if key.startswith(first)}


def test_all_photos_of_the_folder_are_validation_samples(photos: Path, val: Path, tmp_path: Path) -> None:
    result = generate(photos, tmp_path, "-s", 2, "--val", val, "--sample", 0.25)
    assert f"Photos  3 of 12 in {photos} (train)\nVal     5 in {val}" in result.stdout
    assert len(sources(tmp_path / "scale_2x", "train")) == 3
    expected = {str(path.relative_to(val)) for path in val.rglob("*.*")}
    assert sources(tmp_path / "scale_2x", "val") == expected
    assert manifest(tmp_path)["settings"]["val_fraction"] is None
    assert "all intact" in run_cli("verify", tmp_path).stdout


def test_pixels_come_from_the_folder_of_the_split(photos: Path, val: Path, tmp_path: Path) -> None:
    """Both folders have `class0/img0.jpg`."""
    generate(photos, tmp_path / "both", "-s", 2, "--val", val)
    generate(photos, tmp_path / "train", "-s", 2, "--val-fraction", 0)
    generate(val, tmp_path / "val", "-s", 2, "--val-fraction", 0)
    both = samples(tmp_path / "both" / "scale_2x")
    for split, key in (("train", "0"), ("val", "1")):
        alone = {one["json"]["source"]: one for one in samples(tmp_path / split / "scale_2x").values()}
        for one in (one for name, one in both.items() if name.startswith(key)):
            assert (one["hr"] == alone[one["json"]["source"]]["hr"]).all()


def test_bytes_do_not_depend_on_workers_and_shards_are_kept(photos: Path, val: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "a", "-s", 2, "--val", val)
    generate(photos, tmp_path / "b", "-s", 2, "--val", val, "--workers", 2)
    assert contract_files(tmp_path / "a") == contract_files(tmp_path / "b")
    changed = Path(shutil.copytree(val, tmp_path / "val"))
    save(changed / "class0" / "new.png", make_photo(90, 120, 7))
    result = generate(photos, tmp_path / "a", "-s", 2, "--val", changed)
    assert "Shards: 1 built, 1 kept, 1 removed." in result.stdout, "training shards do not depend on it"


def test_failures_name_the_split(photos: Path, val: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(val, tmp_path / "val"))
    (broken / "class0" / "img0.jpg").write_bytes(b"no image")
    result = generate(photos, tmp_path / "out", "-s", 2, "--val", broken)
    reason = "not an image, or its header is damaged"
    assert manifest(tmp_path / "out")["failures"] == [{"path": "class0/img0.jpg", "reason": reason, "split": "val"}]
    assert f"class0/img0.jpg (--val): {reason}" in result.stderr
    assert "all intact" in run_cli("verify", tmp_path / "out").stdout


def test_exclude_applies_to_the_input_alone(photos: Path, val: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\nclass0/img12.png\n")
    result = generate(photos, tmp_path / "out", "-s", 2, "--val", val, "--exclude", tmp_path / "exclude.txt")
    assert "class0/img0.jpg" not in sources(tmp_path / "out" / "scale_2x", "train")
    assert len(sources(tmp_path / "out" / "scale_2x", "val")) == 5
    assert "1 path in exclude.txt not found in the input: class0/img12.png" in result.stdout


def test_tiles_of_the_folder_are_counted_by_themselves(photos: Path, val: Path, tmp_path: Path) -> None:
    result = generate(photos, tmp_path, "-s", 2, "--val", val, "--fit", "tile", "--size", 32, "--dry-run")
    assert f"(about {12 * 12 + 5 * 12} samples)" in result.stdout


def test_invalid_folders(photos: Path, val: Path, tmp_path: Path) -> None:
    missing = generate(photos, tmp_path / "out", "--val", tmp_path / "none", expect=2)
    assert "no such folder" in missing.stderr and "pass the folder of validation photos as --val" in missing.stderr
    same = generate(photos, tmp_path / "out", "--val", photos / "class0", expect=2)
    assert f"--val {photos / 'class0'} and --input {photos} overlap" in same.stderr
    both = generate(photos, tmp_path / "out", "--val", val, "--val-fraction", 0.1, expect=2)
    assert "--val-fraction excludes --val" in both.stderr
    pairs = make_pairs(tmp_path / "pairs", 2, (2,))
    (pairs / "X2").rename(pairs / "LR")
    assert "to pack the pairs, run" in generate(photos, tmp_path / "out", "--val", pairs, expect=2).stderr
    assert not (tmp_path / "out").exists()


# ---- pack


def test_pairs_of_one_folder(tmp_path: Path) -> None:
    """HR and LR are recognised in the folder, and all pairs are used."""
    train, val = make_pairs(tmp_path / "train", 6), make_pairs(tmp_path / "set5", 3, (2, 4))
    (val / "HR").rename(val / "GT")
    (val / "X2").rename(val / "LR_X2")
    (val / "X4").rename(val / "LR_X4")
    result = pack(train, tmp_path / "out", "--val", val, "--sample", 0.5)
    assert f"Pairs   3 of 6 in {train / 'HR'} (train)\nVal     3 in {val / 'GT'}" in result.stdout
    found = samples(tmp_path / "out" / "scale_2x")
    assert {key[0] for key in found} == {"0", "1"} and not (tmp_path / "out" / "scale_4x").exists()
    assert len(sources(tmp_path / "out" / "scale_2x", "val")) == 3


def test_pairs_of_two_folders_and_missing_scales(tmp_path: Path) -> None:
    """As in DIV2K."""
    train, val = make_pairs(tmp_path / "train", 4), make_pairs(tmp_path / "valid", 2)
    args = ("--val", val / "HR", "--val-lr", val / "X2")
    pack(train, tmp_path / "out", *args)
    assert len(sources(tmp_path / "out" / "scale_2x", "val")) == 2
    result = pack(train, tmp_path / "more", *args, scales=(2, 3), expect=2)
    assert f"the validation pairs of {val / 'HR'} have no LR images at 3x" in result.stderr
    up = ("--up", train / "HR")
    result = pack(train, tmp_path / "more", *args, *up, expect=2)
    assert "pass their folder as --val-up" in result.stderr


def test_training_reports_given_lr(tmp_path: Path) -> None:
    train, val = make_pairs(tmp_path / "train", 4), make_pairs(tmp_path / "valid", 2)
    pack(train, tmp_path / "out", "--val", val / "HR", "--val-lr", val / "X2")
    small = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 2, "--workers", 0, "--device", "cpu")
    args = ("--shards", tmp_path / "out" / "scale_2x", "--out", tmp_path / "runs", "--steps", 1, *small)
    result = trainer(*args)
    assert result.code == 0, result.err
    assert "2x with LR as given, npy" in result.err
