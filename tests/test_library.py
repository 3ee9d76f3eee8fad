"""The public API of the library on local shards: `open`, `Shards`, `Sample` and `PatchDataset`."""

import dataclasses
import doctest
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import library_user
import numpy as np
import pytest
import torch
from helpers import all_files, generate, make_photos, overwrite, read_images
from PIL import Image
from torch.utils.data import DataLoader, default_collate

import srshards
from srshards.shards import folder as folder_module
from srshards.shards.tar_index import load_index

ROOT = Path(__file__).parent.parent
PATCH_PX, HR_PX = 16, 64
NUM_VARIANTS = 3
RECIPE = ("--degradation", "bsrgan-light", "--variants", NUM_VARIANTS, "--no-up")


@pytest.fixture(scope="module")
def opened(shards: Path) -> srshards.Shards:
    """2x, HR of 64 px, npy, several shards."""
    return srshards.open(shards / "scale_2x")


@pytest.fixture(scope="module")
def recipe_shards(tmp_path_factory: pytest.TempPathFactory) -> srshards.Shards:
    """2x, png, three LR images per training sample, no upsampled images, some validation samples."""
    root = tmp_path_factory.mktemp("recipe")
    generate(make_photos(root / "photos", 12), root, "-s", 2, *RECIPE, "--codec", "png", "--val-fraction", 0.3)
    return srshards.open(root / "scale_2x")


def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))


def spoil(folder: Path, sample: srshards.Sample, extension: str) -> None:
    """Overwrite the first bytes of a member."""
    shard = ("val-" if sample.key[0] == "1" else "train-") + sample.key[1:7]
    members = [member for line in load_index(folder / f"{shard}.idx") for member in line]
    member = next(member for member in members if member.name == f"{sample.key}.{extension}")
    overwrite(folder / f"{shard}.tar", member.offset, b"damage")


# ---- importing


def test_import_loads_no_heavy_dependency() -> None:
    program = "import sys, srshards; dir(srshards); print({'torch', 'click', 'cv2', 'PIL'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_public_names_exist_and_others_raise() -> None:
    assert set(srshards.__all__) <= set(dir(srshards))
    for name in srshards.__all__:
        assert getattr(srshards, name) is not None
    with pytest.raises(AttributeError, match="module 'srshards' has no attribute 'Loader'"):
        _ = srshards.Loader


@pytest.mark.parametrize("name", [name for name in srshards.__all__ if name[0] != "_"])
def test_docstring_examples_run(name: str, opened: srshards.Shards) -> None:
    public = {other: getattr(srshards, other) for other in srshards.__all__}
    value = public[name]
    found = doctest.DocTestFinder().find(value, name, globs={**public, "shards": opened, "folder": opened.path})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in found:
        runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)
    assert runner.tries, f"{name} has no example"
    assert all(test.docstring for test in found)


@pytest.mark.slow
def test_the_example_program_passes_strict_mypy() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", str(Path(library_user.__file__).relative_to(ROOT))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (ROOT / "srshards/py.typed").exists()


def test_the_example_program_runs(shards: Path) -> None:
    library_user.use_everything(str(shards / "scale_2x"))


# ---- samples


def test_samples_match_the_tars_in_manifest_order(shards: Path) -> None:
    path = shards / "scale_2x"
    for given in (path, str(path)):
        opened = srshards.open(given)
        records = json.loads((path / "manifest.json").read_text())["shards"]
        images = {name: image for r in records for name, image in read_images(path / f"{r['name']}.tar").items()}
        assert len(opened) == len(opened.train) + len(opened.val) == sum(r["samples"] for r in records) == 40
        keys = [sample.key for sample in opened]
        assert keys == list(dict.fromkeys(name.partition(".")[0] for name in images))
        assert keys == [opened[number].key for number in range(40)] == [sample.key for sample in opened[:]]
        for sample in opened:
            for name, image in (("hr", sample.hr), ("lr", sample.lr), ("up", sample.up)):
                assert image.dtype == np.uint8 and np.array_equal(image, images[f"{sample.key}.{name}.npy"])
    assert [record.name for record in opened.train.records] == [r["name"] for r in records if r["split"] == "train"]


def test_properties_and_repr_of_a_set(opened: srshards.Shards) -> None:
    assert (opened.scale, opened.hr_size, opened.codec, opened.variants) == (2, 64, "npy", 1)
    assert opened.manifest.raw["totals"]["samples"] == 40
    assert repr(opened) == "<Shards 2x: 39 train, 1 val samples, HR 64 px, npy>"
    assert repr(opened.val) == f"<Split val of {opened.path}: 1 samples>"
    assert repr(opened[0]) == f"<Sample 000000000000 of {opened.path}>"


def test_negative_indexes_and_slices(opened: srshards.Shards) -> None:
    assert opened[-1].key == opened[39].key == opened.val[0].key == opened.val[-1].key
    assert opened[0].key == opened.train[-39].key == opened[np.int64(0)].key
    assert [sample.key for sample in opened[37:]] == [opened[n].key for n in (37, 38, 39)]
    assert [sample.key for sample in opened.train[::-20]] == [opened[38].key, opened[18].key]


@pytest.mark.parametrize("index", [40, -41])
def test_invalid_indexes_raise(opened: srshards.Shards, index: int) -> None:
    with pytest.raises(IndexError, match=f"index {index} is out of range: there are 40 samples in "):
        opened[index]
    with pytest.raises(IndexError, match="index 1 is out of range: there are 1 val samples in "):
        opened.val[1]
    with pytest.raises(TypeError):
        opened["0"]  # type: ignore[call-overload]


def test_images_are_read_only_views(opened: srshards.Shards) -> None:
    sample = opened[0]
    with pytest.raises(ValueError, match="read-only"):
        sample.hr[0, 0, 0] = 1
    assert not sample.hr.flags.owndata and sample.hr is sample.hr


def test_meta_describes_the_origin_of_a_sample(opened: srshards.Shards, photos: Path) -> None:
    meta = opened[0].meta
    assert (photos / meta["source"]).exists() and meta["source"].startswith(meta["class"] + "/")
    assert (meta["scale"], meta["method"], meta["box"][2:]) == (2, "cubic", [90, 90])


def test_training_samples_have_all_variants_and_validation_samples_one(
    recipe_shards: srshards.Shards,
) -> None:
    assert recipe_shards.variants == NUM_VARIANTS and len(recipe_shards.val) > 0
    for sample, count in ((recipe_shards.train[0], NUM_VARIANTS), (recipe_shards.val[0], 1)):
        images = [sample.hr, *sample.lr_variants]
        assert [image.shape[0] for image in images] == [64, *[32] * count]
        assert len({image.tobytes() for image in images}) == 1 + count
        assert sample.lr is sample.lr_variants[0] and len(sample.meta["degradation"]) == count
        assert sample.up.shape == sample.hr.shape


def test_decode_caches_decoded_images(recipe_shards: srshards.Shards, tmp_path: Path) -> None:
    decoded = srshards.open(recipe_shards.path, cache=tmp_path / "cache", decode=True)
    assert (recipe_shards.codec, decoded.codec) == ("png", "npy")
    for here, there in zip(recipe_shards, decoded, strict=True):
        assert np.array_equal(here.hr, there.hr)
        assert all(map(np.array_equal, here.lr_variants, there.lr_variants))
    assert any(name.endswith(".npy.tar") for name in all_files(tmp_path / "cache"))


# ---- processes


def test_sets_and_samples_can_be_pickled(shards: Path) -> None:
    opened = srshards.open(shards / "scale_2x")
    sample = opened[3]
    for _ in range(2):
        for again in (pickle.loads(pickle.dumps(opened))[3], pickle.loads(pickle.dumps(sample))):
            assert again.key == sample.key and np.array_equal(again.hr, sample.hr) and again.meta == sample.meta
        assert len(pickle.dumps(opened)) < 20_000


def test_a_forked_child_can_read_after_its_parent(opened: srshards.Shards) -> None:
    expected = [int(sample.hr.sum()) for sample in opened]
    data = srshards.PatchDataset(opened, PATCH_PX)
    assert data[0]

    def read(results: "Queue[Any]") -> None:
        results.put([int(sample.hr.sum()) for sample in opened])
        results.put(int(data[0].hr.sum()))

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=read, args=(results,))
    child.start()
    assert results.get(timeout=60) == expected and results.get(timeout=60) == int(data[0].hr.sum())
    child.join()
    assert child.exitcode == 0


def test_the_number_of_mapped_shards_is_bounded(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = srshards.open(shards / "scale_2x")
    assert len(opened.train.records) > 3
    monkeypatch.setattr(folder_module, "_MAX_MAPPED", 2)
    forwards = [int(sample.hr.sum()) for sample in opened]
    assert [int(opened[number].hr.sum()) for number in range(39, -1, -1)] == forwards[::-1]
    assert len(opened._mapped) == 2


def test_a_small_cache_serves_samples_in_any_order(shards: Path, tmp_path: Path) -> None:
    opened = srshards.open(shards / "scale_2x")
    limit = 6 * max(record.bytes for record in opened.manifest.shards)
    cached = srshards.open(str(shards / "scale_2x"), cache=str(tmp_path), cache_bytes=limit)
    for number in (*range(0, 40, 3), *range(39, 0, -3)):
        assert np.array_equal(cached[number].hr, opened[number].hr)
    assert cached.cached is not None and cached.cached.cache.used_bytes() <= limit


# ---- verifying, damage


def test_verify_reads_all_bytes_and_reports_damage(shards: Path, tmp_path: Path) -> None:
    folder = copied(shards, tmp_path)
    opened = srshards.open(folder)
    read: list[int] = []
    opened.verify(read.append)
    assert sum(read) == opened.manifest.raw["totals"]["bytes"]
    spoil(folder, opened[0], "hr.npy")
    for act in (opened.verify, lambda: srshards.open(folder, verify=True)):
        with pytest.raises(
            srshards.UsageError, match=r"train-000000\.tar: SHA-256 differs from manifest\.json; .* --fix"
        ):
            act()
    assert len(srshards.open(folder)) == 40


def test_reading_a_damaged_member_raises(shards: Path, tmp_path: Path) -> None:
    folder = copied(shards, tmp_path)
    opened = srshards.open(folder)
    spoil(folder, opened[0], "hr.npy")
    spoil(folder, opened[1], "json")
    with pytest.raises(srshards.RunError, match=r"000000000000.hr.npy: expected 64 x 64 x 3, found damaged data"):
        _ = opened[0].hr
    with pytest.raises(srshards.RunError, match=r"train-000000\.tar: 000000000001\.json is not valid JSON"):
        _ = opened[1].meta
    with pytest.raises(srshards.RunError, match=r"000000000000.hr.npy: expected 64 x 64 x 3"):
        srshards.PatchDataset(opened, PATCH_PX)[0]
    assert opened[1].hr.shape == opened[0].up.shape


def test_a_shard_deleted_after_opening_is_reported(shards: Path, tmp_path: Path) -> None:
    folder = copied(shards, tmp_path)
    opened = srshards.open(folder)
    (folder / "train-000000.idx").unlink()
    with pytest.raises(srshards.RunError, match=r"train-000000\.idx"):
        _ = opened[0].lr


def test_relative_paths_survive_a_change_of_directory(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards)
    opened = srshards.open("scale_2x")
    monkeypatch.chdir(tmp_path)
    assert opened[0].hr.shape == srshards.PatchDataset(opened, HR_PX)[0].hr.shape == (HR_PX, HR_PX, 3)
    with srshards.PatchLoader(opened, PATCH_PX, 4, workers=1) as loader:
        assert sum(1 for _ in loader) == len(loader)


# ---- opening invalid folders


# Each prepares `root` and returns the path to open and the start of the expected message.


def missing(root: Path) -> tuple[Path, str]:
    return root / "nowhere", "expected a folder of shards, but it does not exist; to generate shards, run "


def file(root: Path) -> tuple[Path, str]:
    (root / "photo.jpg").write_bytes(b"")
    return (
        root / "photo.jpg",
        "expected a folder of shards, but it is a file; to generate shards, run `python -m shardgen generate",
    )


def loose_images(root: Path) -> tuple[Path, str]:
    Image.new("RGB", (8, 8)).save(root / "a.png")
    return (
        root,
        f"this folder has 1 loose image but no shards; to generate shards, run `python -m shardgen generate -i {root} "
        "-o shards` or, if HR/LR pairs exist already, `python -m shardgen pack --hr HR --lr LR -o shards`",
    )


def output_of_unpack(root: Path) -> tuple[Path, str]:
    for name in ("a_hr", "a_lr_4x"):
        Image.new("RGB", (8, 8)).save(root / f"{name}.png")
    return (
        root,
        "this folder has 2 loose images but no shards; to make shards of the pairs, run `python -m shardgen pack --hr "
        f"{root} --lr {root} -o shards`",
    )


def empty(root: Path) -> tuple[Path, str]:
    return root, "this folder has no manifest.json; to generate shards, run `python -m shardgen generate"


def several_scales(root: Path) -> tuple[Path, str]:
    for scale in (2, 4):
        (root / f"scale_{scale}x").mkdir()
        (root / f"scale_{scale}x/manifest.json").write_text("{}")
    two, four = root / "scale_2x", root / "scale_4x"
    return root, f"expected the folder of one scale; pass `path` {two} or {four}"


def unfinished(root: Path) -> tuple[Path, str]:
    (root / "train-000000.tar").write_bytes(b"")
    return root, "this folder has tars but no manifest.json: generation did not finish; run the same `generate`"


NOT_SHARDS = [missing, file, loose_images, output_of_unpack, empty, unfinished]


@pytest.mark.parametrize("make", [*NOT_SHARDS, several_scales])
def test_open_refuses_other_folders(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    path, message = make(tmp_path)
    for given in (path, str(path)):
        with pytest.raises(srshards.ArgumentError) as error:
            srshards.open(given)
        assert str(error.value).startswith(f"`path` {path}: {message}") and isinstance(error.value, ValueError)


def test_open_refuses_a_file_of_a_set(shards: Path) -> None:
    folder = shards / "scale_2x"
    for name in ("manifest.json", "train-000000.tar"):
        with pytest.raises(srshards.ArgumentError, match=f"this is a file .*; pass its folder, `path` {folder}$"):
            srshards.open(folder / name)


def test_a_dataset_refuses_other_states(opened: srshards.Shards) -> None:
    data = srshards.PatchDataset(opened, 24)
    for state in ({}, {"epoch": 1, "step": 2}):
        with pytest.raises(ValueError, match="expected the state of a PatchDataset"):
            data.load_state_dict(state)
    with pytest.raises(srshards.ArgumentError, match="`epoch` -1: expected 0 or more"):
        data.load_state_dict({"epoch": -1})
    data.load_state_dict({"epoch": 5})
    assert data.epoch == 5


def test_invalid_paths_and_caches_are_refused(shards: Path, tmp_path: Path) -> None:
    folder = shards / "scale_2x"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(srshards.StoreError, match="the path is empty"):
        srshards.open("")
    for path in (None, 3, b"shards"):
        with pytest.raises(srshards.ArgumentError, match=r"^`path` .*: expected a string or a path"):
            srshards.open(path)  # type: ignore[arg-type]
    with pytest.raises(srshards.StoreError, match="unknown store nfs://"):
        srshards.open("nfs://server/shards")
    for cache_bytes in (0, "1GB"):
        with pytest.raises(
            srshards.ArgumentError, match=f"`cache_bytes` {cache_bytes!r}: expected a number of bytes, 1"
        ):
            srshards.open(folder, cache_bytes=cache_bytes)  # type: ignore[arg-type]
    for cache, message in (
        ("", "the path is empty"),
        ("s3://bucket/cache", "must be a local folder"),
        (Path("s3://bucket/cache"), "expected a local folder"),
    ):
        with pytest.raises(srshards.ArgumentError, match=f"`cache`:? .*{message}"):
            srshards.open(folder, cache=cache)
    with pytest.raises(srshards.ArgumentError, match=r"`cache` .*file/x: cannot write there \(Not a directory\); pass"):
        srshards.open(folder, cache=tmp_path / "file/x")


def test_open_refuses_incomplete_shards(shards: Path, tmp_path: Path) -> None:
    folder = copied(shards, tmp_path)
    (folder / "train-000001.tar").write_bytes(b"short")
    with pytest.raises(
        srshards.UsageError, match=r"train-000001\.tar: expected [\d,]+ bytes as in the manifest, found 5"
    ):
        srshards.open(folder)
    (folder / "train-000001.tar").unlink()
    with pytest.raises(srshards.UsageError, match=r"train-000001\.tar is listed in the manifest but missing"):
        srshards.open(folder)


# ---- PatchDataset


def positions(image: np.ndarray, patch: np.ndarray) -> list[tuple[int, int]]:
    """Return the top and left of each occurrence of a patch in an image."""
    size = len(patch)
    tops_lefts = np.ndindex(*(edge - size + 1 for edge in image.shape[:2]))
    return [(y, x) for y, x in tops_lefts if np.array_equal(image[y : y + size, x : x + size], patch)]


def content(pairs: Any) -> list[bytes]:
    """Return the bytes of every pair, given pairs or batches of pairs."""
    return [
        np.asarray(hr).tobytes() + np.asarray(small).tobytes()
        for pair in pairs
        for hr, small in zip(*(part if part.ndim == 4 else part[None] for part in pair), strict=True)
    ]


def test_both_patches_of_an_item_are_aligned(opened: srshards.Shards) -> None:
    lr, up = (srshards.PatchDataset(opened, PATCH_PX, input=name, augment=False) for name in ("lr", "up"))
    assert len(lr) == 39
    for number in (0, 7, -1):
        sample = opened.train[number]
        ((top, left),) = positions(sample.lr, lr[number].input)
        assert positions(sample.hr, lr[number].hr) == positions(sample.up, up[number].input) == [(2 * top, 2 * left)]
        assert lr[number].input.shape == (PATCH_PX // 2, PATCH_PX // 2, 3) and lr[number].hr.flags.writeable
    assert len({positions(opened.train[n].hr, lr[n].hr)[0] for n in range(39)}) > 20


def test_augmentation_flips_and_rotates_both_patches(opened: srshards.Shards) -> None:
    plain, augmented = (srshards.PatchDataset(opened, PATCH_PX, augment=augment) for augment in (False, True))
    symmetries = [(k, flip) for k in range(4) for flip in (False, True)]

    def inverse(image: np.ndarray, symmetry: tuple[int, bool]) -> np.ndarray:
        rotated = np.rot90(image, -symmetry[0])
        return rotated[:, ::-1] if symmetry[1] else rotated

    num_changed = 0
    for number in range(39):
        hr, small = augmented[number]
        (symmetry,) = [each for each in symmetries if np.array_equal(inverse(hr, each), plain[number].hr)]
        assert np.array_equal(inverse(small, symmetry), plain[number].input)
        num_changed += symmetry != (0, False)
    assert num_changed > 20


def test_patches_depend_on_seed_epoch_and_index_only(opened: srshards.Shards) -> None:
    data, other_seed = (srshards.PatchDataset(opened, PATCH_PX, seed=seed) for seed in (0, 1))
    first = content(data)
    assert len(first) == 39 and content(data[n] for n in range(38, -1, -1)) == first[::-1]
    assert content(pickle.loads(pickle.dumps(data))) == content(data.__getitems__(range(39))) == first
    assert not set(first) & set(content(other_seed))
    data.set_epoch(1)
    second = content(data)
    assert data.epoch == 1 and not set(first) & set(second)
    data.set_epoch(0)
    assert content(data) == first
    assert content(data.at_epoch(n, 1) for n in range(39)) == second and data.epoch == 0


def test_n_epochs_show_each_of_n_variants_once(recipe_shards: srshards.Shards) -> None:
    data = srshards.PatchDataset(recipe_shards, 64, augment=False)
    shown: list[set[int]] = [set() for _ in range(len(data))]
    for epoch in range(NUM_VARIANTS):
        data.set_epoch(epoch)
        for number, pair in enumerate(data):
            variants = [np.array_equal(pair.input, lr) for lr in recipe_shards.train[number].lr_variants]
            shown[number].add(variants.index(True))
    assert shown == [{0, 1, 2}] * len(data)
    val = srshards.PatchDataset(recipe_shards, 64, split="val", augment=False)
    assert np.array_equal(val[0].input, recipe_shards.val[0].lr)


def test_default_collate_keeps_the_type_of_items(opened: srshards.Shards) -> None:
    data = srshards.PatchDataset(opened, PATCH_PX)
    batch = default_collate([data[0], data[1]])
    assert isinstance(batch, srshards.PatchPair) and batch.hr.dtype == batch.input.dtype == torch.uint8
    assert tuple(batch.hr.shape) == (2, 16, 16, 3) and tuple(batch.input.shape) == (2, 8, 8, 3)


def test_the_transform_is_applied_to_each_item(opened: srshards.Shards) -> None:
    def darker(pair: srshards.PatchPair) -> srshards.PatchPair:
        return pair._replace(input=pair.input // 2)

    data, plain = srshards.PatchDataset(opened, PATCH_PX, transform=darker), srshards.PatchDataset(opened, PATCH_PX)
    assert np.array_equal(data[5].input, plain[5].input // 2) and np.array_equal(data[5].hr, plain[5].hr)


@pytest.mark.parametrize(
    ("method", "workers", "persistent"),
    [(None, 0, False), ("fork", 2, False), ("fork", 2, True), ("spawn", 1, True), ("forkserver", 1, True)],
)
def test_batches_do_not_depend_on_workers(
    opened: srshards.Shards, method: str | None, workers: int, persistent: bool
) -> None:
    """Persistent workers also use an epoch that is set between two iterations."""
    data = srshards.PatchDataset(opened, PATCH_PX, input="up")
    loader = DataLoader(
        data,
        batch_size=4,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(0),
        shuffle=method == "fork",
    )
    for epoch in (0, 1):
        data.set_epoch(epoch)
        expected = content(data)
        found = content(loader)
        assert (sorted(found) == sorted(expected)) if method == "fork" else (found == expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_dataloader_resumes_within_an_epoch(opened: srshards.Shards, workers: int) -> None:
    module = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is in the dev extra")

    def loader() -> Any:
        generator = torch.Generator().manual_seed(7)
        data = srshards.PatchDataset(opened, PATCH_PX)
        return module.StatefulDataLoader(data, batch_size=4, shuffle=True, num_workers=workers, generator=generator)

    first = loader()
    first.dataset.set_epoch(3)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    rest = content(batches)
    resumed = loader()
    resumed.load_state_dict(state)
    assert len(rest) == 23 and content(resumed) == rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 15}, "`patch_size` 15 is not divisible by the scale 2; try 14 or 16"),
        ({"patch_size": 66}, "`patch_size` 66: the stored HR images have 64 px; pass at most that"),
        ({"patch_size": 0}, "`patch_size` 0: expected 1 or more"),
        ({"input": "hr"}, "`input` 'hr': expected 'lr' or 'up'"),
        ({"split": "test"}, "`split` 'test': expected train or val"),
        ({"seed": -1}, "`seed` -1: expected 0 or more"),
    ],
)
def test_invalid_arguments_are_refused(opened: srshards.Shards, arguments: dict[str, Any], message: str) -> None:
    for make in (srshards.PatchDataset, srshards.webdataset):
        with pytest.raises(srshards.ArgumentError) as error:
            make(**{"shards": opened, "patch_size": PATCH_PX, **arguments})
        assert str(error.value).startswith(message)


def test_a_dataset_refuses_the_path_of_shards() -> None:
    message = "`shards`: expected the result of srshards.open, found 'shards/scale_2x'"
    with pytest.raises(srshards.ArgumentError, match=message):
        srshards.PatchDataset("shards/scale_2x", PATCH_PX)  # type: ignore[arg-type]


def test_missing_splits_are_refused(tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 3), tmp_path, "-s", 2, "--val-fraction", 0)
    without_val = srshards.open(tmp_path / "scale_2x")
    assert list(without_val.val) == []
    with pytest.raises(srshards.ArgumentError, match=r"`split` val: .* has no such samples"):
        srshards.PatchDataset(without_val, PATCH_PX, split="val")


def test_sets_without_training_samples_have_a_validation_dataset(opened: srshards.Shards) -> None:
    manifest = dataclasses.replace(opened.manifest, shards=opened.val.records)
    only_val = srshards.Shards(opened.path, manifest)
    expected = srshards.PatchDataset(opened, PATCH_PX, split="val")[0]
    assert np.array_equal(srshards.PatchDataset(only_val, PATCH_PX, split="val")[0].hr, expected.hr)
    assert len(list(srshards.webdataset(only_val, PATCH_PX, split="val"))) == len(only_val.val)
    with pytest.raises(srshards.ArgumentError, match="has no training samples"):
        srshards.PatchDataset(only_val, PATCH_PX)


def test_numpy_integers_are_accepted(opened: srshards.Shards) -> None:
    data = srshards.PatchDataset(opened, np.int64(PATCH_PX), seed=np.int64(3))  # type: ignore[arg-type]
    data.set_epoch(np.int64(2))  # type: ignore[arg-type]
    expected = srshards.PatchDataset(opened, PATCH_PX, seed=3)
    expected.set_epoch(2)
    assert np.array_equal(data[0].hr, expected[0].hr) and type(data.state_dict()["epoch"]) is int


def test_datasets_ignore_the_default_device(opened: srshards.Shards) -> None:
    with torch.device("meta"):
        data = srshards.PatchDataset(opened, PATCH_PX)
        assert data[0].hr.shape == (PATCH_PX, PATCH_PX, 3)


def test_indexes_and_epochs_out_of_range_are_refused(opened: srshards.Shards) -> None:
    data = srshards.PatchDataset(opened, PATCH_PX)
    with pytest.raises(IndexError, match="index 39 is out of range: there are 39 train samples in "):
        data[39]
    with pytest.raises(srshards.ArgumentError, match="`epoch` -1: expected 0 or more"):
        data.set_epoch(-1)
    with pytest.raises(srshards.ArgumentError, match=f"`epoch` {2**63}: expected at most {2**63 - 1}"):
        data.set_epoch(2**63)
    with pytest.raises(ValueError, match="`epoch` -1: expected 0 or more"):
        data.at_epoch(0, -1)
