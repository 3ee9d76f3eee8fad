"""`unpack --layout pairs` and `basicsr`."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import generate, make_photo, run_cli
from PIL import Image
from plain_reader import read_folder

# The last two become equal names in a flat folder.
PHOTOS = ("sky/one.jpg", "sky/one.png", "sea/one.jpg", "sea/two words.png", "top.png", "sky_sea/x.png", "sky/sea_x.png")
SPLITS = {"0": "train", "1": "val"}  # by the first digit of a key


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of photos whose names are hard to keep apart, with three LR images per training sample."""
    root = tmp_path_factory.mktemp("layouts")
    for number, name in enumerate(PHOTOS):
        (root / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_photo(64, 64, seed=number)).save(root / "photos" / name, "PNG")
    recipe = ("--degradation", "bsrgan-light", "--variants", 3, "--val-fraction", 0.4)
    generate(root / "photos", root / "shards", "-s", 4, *recipe)
    return root / "shards"


def stored(shards: Path) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Return the images of each sample by split and source."""
    edges = {"hr": 64, "up": 64}
    return {
        (SPLITS[key[0]], entry["source"]): {
            name: np.frombuffer(content, np.uint8).reshape(edges.get(name, 16), -1, 3)
            for name, content in images.items()
        }
        for key, images, entry in read_folder(shards / "scale_4x")
    }


def unpacked(shards: Path, output: Path, *args: object) -> Path:
    result = run_cli("unpack", shards, "-o", output, *args)
    assert result.returncode == 0, result.stderr
    return output / "scale_4x"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image)


def source_of(hr: np.ndarray, samples: dict[tuple[str, str], Any], split: str) -> str:
    """Return the source of the sample of the split with this HR image."""
    (source,) = [key[1] for key, images in samples.items() if key[0] == split and np.array_equal(images["hr"], hr)]
    return source


def test_pairs_have_equal_names_and_the_stored_pixels(shards: Path, tmp_path: Path) -> None:
    folder, samples = unpacked(shards, tmp_path, "--layout", "pairs"), stored(shards)
    found = {}
    for split, top in (("train", folder), ("val", folder / "val")):
        kinds = ("HR", "LR", "LR1", "LR2") if split == "train" else ("HR", "LR")
        folders = {path.name for path in top.iterdir() if path.is_dir()} - {"val"}
        assert folders == set(kinds)
        names = {kind: {path.relative_to(top / kind) for path in (top / kind).rglob("*.png")} for kind in kinds}
        assert all(names[kind] == names["HR"] for kind in kinds)
        for name in names["HR"]:
            source = source_of(pixels(top / "HR" / name), samples, split)
            found[split, source] = str(name)
            for kind in kinds:
                assert np.array_equal(pixels(top / kind / name), samples[split, source][kind.lower()])
    assert found.keys() == samples.keys() and {split for split, _ in samples} == {"train", "val"}
    by_source = {source: name for (_, source), name in found.items()}
    assert by_source == {
        "sky/one.jpg": "sky/one_jpg.png",
        "sky/one.png": "sky/one_png.png",
        "sea/one.jpg": "sea/one.png",
        "sea/two words.png": "sea/two words.png",
        "top.png": "top.png",
        "sky_sea/x.png": "sky_sea/x.png",
        "sky/sea_x.png": "sky/sea_x.png",
    }


def basicsr_pairs(gt_folder: Path, lq_folder: Path, meta_info: Path) -> list[tuple[Path, Path]]:
    """What BasicSR 1.4.2 makes of a meta_info file: the first word of each line; LQ without subfolders."""
    names = [line.strip().split(" ")[0] for line in meta_info.read_text().split("\n")[:-1]]
    return [(gt_folder / name, lq_folder / os.path.basename(name)) for name in names]


def test_basicsr_reads_all_pairs(shards: Path, tmp_path: Path) -> None:
    folder, samples = unpacked(shards, tmp_path, "--layout", "basicsr"), stored(shards)
    found = {}
    for split, top in (("train", folder), ("val", folder / "val")):
        lines = (top / "meta_info.txt").read_text().splitlines()
        assert lines == sorted(lines) and all(line.endswith(".png (64,64,3)") for line in lines)
        pairs = basicsr_pairs(top / "HR", top / "LR", top / "meta_info.txt")
        assert {hr for hr, _ in pairs} == set((top / "HR").rglob("*")), "a flat folder, all of it listed"
        for hr, lr in pairs:
            source = source_of(pixels(hr), samples, split)
            assert np.array_equal(pixels(lr), samples[split, source]["lr"])
            found[split, source] = hr.name
    assert found.keys() == samples.keys()
    by_source = {source: name for (_, source), name in found.items()}
    assert by_source["sea/two words.png"] == "sea_two_words.png" and by_source["sky/one.jpg"] == "sky_one_jpg.png"
    for source in ("sky_sea/x.png", "sky/sea_x.png"):
        stem, _, key = by_source[source].removesuffix(".png").rpartition("_")
        assert stem == "sky_sea_x" and source in run_cli("inspect", shards, "--sample", key).stdout


@pytest.mark.parametrize("layout", ["pairs", "basicsr"])
def test_splits_can_be_written_one_after_the_other(layout: str, shards: Path, tmp_path: Path) -> None:
    at_once = unpacked(shards, tmp_path / "both", "--layout", layout)
    val = unpacked(shards, tmp_path / "apart", "--layout", layout, "--split", "val")
    assert {path.name for path in val.iterdir()} == {"val", ".shardgen-unpack"}
    apart = unpacked(shards, tmp_path / "apart", "--layout", layout, "--split", "train")
    assert files(apart) == files(at_once)


@pytest.mark.parametrize(("first", "second"), [("old", "pairs"), ("pairs", "old"), ("pairs", "basicsr")])
def test_layouts_are_not_mixed(first: str, second: str, shards: Path, tmp_path: Path) -> None:
    before = files(unpacked(shards, tmp_path, "--layout", first))
    result = run_cli("unpack", shards, "-o", tmp_path, "--layout", second)
    assert result.returncode == 2 and files(tmp_path / "scale_4x") == before
    assert f"did not write from {shards / 'scale_4x'} with --layout {second}; pass another --output" in result.stderr


def test_old_is_the_default(shards: Path, tmp_path: Path) -> None:
    assert files(unpacked(shards, tmp_path / "a")) == files(unpacked(shards, tmp_path / "b", "--layout", "old"))
    assert "_hr.png" in json.dumps(sorted(files(tmp_path / "a")))


def test_tiles_are_pairs_too(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(make_photo(64, 130, seed=0)).save(tmp_path / "photos" / "wide.png")
    generate(tmp_path / "photos", tmp_path / "shards", "-s", 4, "--fit", "tile", "--val-fraction", 0)
    folder = unpacked(tmp_path / "shards", tmp_path / "loose", "--layout", "basicsr")
    names = [f"wide_x{x}_y0.png" for x in (0, 64, 66)]
    assert sorted(path.name for path in (folder / "HR").iterdir()) == sorted(names)
    assert (folder / "meta_info.txt").read_text() == "".join(f"{name} (64,64,3)\n" for name in sorted(names))
    assert not (folder / "val").exists(), "no validation samples"
