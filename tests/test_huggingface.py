"""Hugging Face `datasets` reads folders of shards as they are, from a disk and from (an imitation of) the Hub."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs_commands import run_python
from fake_hub import REPOSITORY, serving
from helpers import TIMEOUT_S, all_files, generate, make_photos, read_images
from pairs import make_pairs, pack

import srshards
from srshards.format import CODECS, image_codec, image_extension

pytestmark = pytest.mark.slow

RECIPE = ("--degradation", "realesrgan", "--variants", 3, "--val-fraction", 0.3, "--shard-bytes", "200KB")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package, with its cache in a temporary folder. Imported here because that takes a second."""
    import datasets

    cache = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield datasets


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 18)


@pytest.fixture(scope="module", params=CODECS)
def by_recipe(request: pytest.FixtureRequest, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of each codec at two scales, with variants."""
    output = tmp_path_factory.mktemp(request.param) / "shards"
    generate(few, output, "-s", 2, 4, "--codec", request.param, *RECIPE)
    return output


def assert_equal(rows: Any, samples: srshards.Shards, codec: str) -> None:
    """Compare rows of `datasets` with all samples, in any order of shards, to the bit."""
    by_key = {row["__key__"]: row for row in rows}
    assert len(by_key) == len(samples) > 0
    for sample in samples:
        row = by_key[sample.key]
        images = {"hr": sample.hr, "up": sample.up}
        images |= {f"lr{n or ''}": lr for n, lr in enumerate(sample.lr_variants)}
        for name, pixels in images.items():
            found = row[image_extension(name, codec)]
            if image_codec(name, codec) == "tlc":
                found = srshards.decode_tlc(found)
            assert np.array_equal(np.asarray(found), pixels), (sample.key, name)
        assert row[image_extension("lr2", codec)] is None or len(sample.lr_variants) == 3
        assert row["json"]["source"] == sample.meta["source"] and row["json"]["box"] == sample.meta["box"]
        assert row["json"]["libraries"] == sample.meta["libraries"]
        assert row["json"]["degradation"].startswith('[[{"step": ')


def test_folders_load_as_they_are(by_recipe: Path, datasets: Any) -> None:
    """A configuration per scale, the splits train and validation, and images as images."""
    for scale in ("scale_2x", "scale_4x"):
        shards = srshards.open(by_recipe / scale)
        loaded = datasets.load_dataset(str(by_recipe), scale)
        assert loaded.keys() == {"train", "validation"}
        assert_equal(loaded["train"], shards.train, shards.codec)
        assert_equal(loaded["validation"], shards.val, shards.codec)
    alone = datasets.load_dataset(str(by_recipe / "scale_4x"))
    assert alone["train"].features == loaded["train"].features and alone.num_rows == loaded.num_rows
    kinds = {"npy": datasets.Array3D, "tlc": datasets.Value}
    for name in ("hr", "lr", "lr2", "up"):
        kind = kinds.get(image_codec(name, shards.codec), datasets.Image)
        assert isinstance(loaded["train"].features[image_extension(name, shards.codec)], kind)


def test_folders_stream(by_recipe: Path, datasets: Any) -> None:
    shards = srshards.open(by_recipe / "scale_2x")
    for folder, name in ((by_recipe, "scale_2x"), (by_recipe / "scale_2x", None)):
        stream = datasets.load_dataset(str(folder), name, streaming=True)
        assert_equal(stream["train"], shards.train, shards.codec)
        assert_equal(stream["validation"], shards.val, shards.codec)


def test_images_come_as_uint8_arrays_with_a_numpy_format(by_recipe: Path, datasets: Any) -> None:
    shards = srshards.open(by_recipe / "scale_2x")
    if shards.codec == "tlc":
        pytest.skip("to datasets, tlc images are bytes")
    columns = [f"hr.{shards.codec}", f"lr.{shards.codec}"]
    loaded = datasets.load_dataset(str(by_recipe), "scale_2x", split="train")
    for row, key in zip(loaded.with_format("numpy", columns=columns, dtype=np.uint8), loaded["__key__"], strict=True):
        sample = next(sample for sample in shards.train if sample.key == key)
        for column, pixels in zip(columns, (sample.hr, sample.lr), strict=True):
            assert row[column].dtype == np.uint8 and np.array_equal(row[column], pixels)


def test_the_snippets_of_the_cards_run(by_recipe: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(by_recipe.parent)
    printed = {}
    for card in (by_recipe / "README.md", by_recipe / "scale_4x" / "README.md"):
        snippets = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
        assert len(snippets) == 3
        names: dict[str, Any] = {}
        printed[card] = [run_python(snippet, names) for snippet in snippets]
        assert names["hr"].dtype == np.uint8 and names["hr"].shape == (64, 64, 3)
    assert all("64" in output for output in next(iter(printed.values()))[:2])


def test_several_scales_must_be_chosen_from(by_recipe: Path, few: Path, tmp_path: Path, datasets: Any) -> None:
    with pytest.raises(ValueError, match=r"pick one among the available configs: \['scale_2x', 'scale_4x'\]"):
        datasets.load_dataset(str(by_recipe))
    generate(few, tmp_path / "one", "-s", 3, "--codec", "png")
    assert datasets.load_dataset(str(tmp_path / "one")).keys() == {"train", "validation"}


def test_shards_generated_again_are_not_taken_from_the_cache(few: Path, tmp_path: Path, datasets: Any) -> None:
    """`datasets` finds cached data by the card: same folder, same sizes, but other pixels."""
    folder, pixels = tmp_path / "shards", []
    for method in ("nearest", "area"):
        generate(few, folder, "-s", 2, "--method", method, "--force")
        loaded = datasets.load_dataset(str(folder), split="validation")
        pixels.append(np.asarray(loaded[0]["lr.npy"]))
        stored = read_images(folder / "scale_2x" / "val-000000.tar")
        assert np.array_equal(pixels[-1], stored[f"{loaded[0]['__key__']}.lr.npy"])
    assert not np.array_equal(*pixels)


def test_a_release_of_hr_loads_as_a_folder_of_images(few: Path, tmp_path: Path, datasets: Any) -> None:
    """The commands of docs/how-to/publishing.md that lay out such a release."""
    generate(few, tmp_path / "published", "-s", 4)
    page = (Path(__file__).parent.parent / "docs/how-to/publishing.md").read_text()
    copied = re.findall(r"^cp published/(\S+) (release/\S*)$", page, re.MULTILINE)
    assert [source for source, _ in copied] == ["scale_4x/manifest.json", "scale_4x/README.md"]
    shutil.copytree(few, tmp_path / "release" / "photos")
    for source, target in copied:
        shutil.copy(tmp_path / "published" / source, tmp_path / target)
    loaded = datasets.load_dataset(str(tmp_path / "release"), split="train")
    assert len(loaded) == 18 and loaded[0]["image"].width > 0


def test_a_missing_shard_is_an_error(few: Path, tmp_path: Path, datasets: Any) -> None:
    generate(few, tmp_path / "shards", "-s", 2, "--codec", "png", "--shard-bytes", "50KB")
    (tmp_path / "shards/scale_2x/train-000001.tar").unlink()
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError, match="num_examples=17"):
        datasets.load_dataset(str(tmp_path / "shards"))


ON_THE_HUB = f"""
import sys
import numpy as np, srshards
from datasets import load_dataset
from huggingface_hub import HfApi

api = HfApi(token="none")
api.create_repo("{REPOSITORY}", repo_type="dataset")
api.upload_folder(repo_id="{REPOSITORY}", repo_type="dataset", folder_path=sys.argv[1], ignore_patterns=[".*", "*/.*"])

here = srshards.open(sys.argv[1] + "/scale_2x")
there = srshards.open("hf://datasets/{REPOSITORY}/scale_2x", cache="cache")
assert len(here) == len(there) and all(np.array_equal(a.lr, b.lr) for a, b in zip(here, there))
assert len(load_dataset("{REPOSITORY}", "scale_2x", split="train")) == len(here.train)
print(len(here))
"""


def test_upload_to_a_hub_and_read_from_it(few: Path, tmp_path: Path) -> None:
    """In a process of its own, because the address of the Hub is fixed when its package is imported."""
    generate(few, tmp_path / "shards", "-s", 2, 4, "--codec", "png")
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as endpoint:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", ON_THE_HUB, str(tmp_path / "shards")]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "18\n"
    assert all_files(tmp_path / "hub") == all_files(tmp_path / "shards") - {".shardgen.lock"}


def test_packed_pairs_load(tmp_path: Path, datasets: Any) -> None:
    pairs = make_pairs(tmp_path / "pairs", 6)
    pack(pairs, tmp_path / "shards", "--codec", "png", "--val-fraction", 0.3, scales=(2, 3))
    loaded = datasets.load_dataset(str(tmp_path / "shards"), "scale_3x")
    rows = {row["__key__"]: row for split in ("train", "validation") for row in loaded[split]}
    shards = srshards.open(tmp_path / "shards" / "scale_3x")
    assert len(rows) == len(shards) > 6 and loaded.keys() == {"train", "validation"}
    for sample in shards:
        row = rows[sample.key]
        assert np.array_equal(np.asarray(row["lr.png"]), sample.lr)
        assert row["json"] == sample.meta
