"""`srshards.webdataset`: the samples of local or stored tars as a pipeline of the `webdataset` package."""

import multiprocessing
import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from helpers import generate, make_photos
from torch.utils.data import DataLoader

import srshards
from srshards.imaging import codec
from srshards.loader.pipeline import PatchPipeline
from tests.drill.s3_server import Bucket

PATCH_PX, HR_PX = 16, 64


@pytest.fixture(scope="module")
def opened(shards: Path) -> srshards.Shards:
    """2x, HR of 64 px, npy, several shards."""
    return srshards.open(shards / "scale_2x")


def hr_of(pairs: Iterable[Any]) -> list[bytes]:
    """Return the HR image of every pair, given pairs or batches of pairs."""
    return [np.asarray(hr).tobytes() for pair in pairs for hr in (pair.hr if pair.hr.ndim == 4 else [pair.hr])]


def full_images(opened: srshards.Shards, **options: Any) -> PatchPipeline:
    """Return a pipeline of complete images, by which samples can be identified."""
    return srshards.webdataset(opened, HR_PX, augment=False, **options)


def images(opened: srshards.Shards, split: str = "train") -> list[bytes]:
    return [sample.hr.tobytes() for sample in opened.split(split)]


def tars(opened: srshards.Shards) -> list[str]:
    return [str(opened.tar(record)) for record in opened.train.records]


# ---- samples


def test_each_sample_occurs_once_with_matching_images(opened: srshards.Shards) -> None:
    pairs = list(full_images(opened))
    assert isinstance(pairs[0], srshards.PatchPair) and pairs[0].hr.dtype == np.uint8
    by_hr = {sample.hr.tobytes(): sample for sample in opened.train}
    assert all(np.array_equal(pair.input, by_hr[pair.hr.tobytes()].lr) for pair in pairs)
    up = list(full_images(opened, input="up"))
    assert all(np.array_equal(pair.input, by_hr[pair.hr.tobytes()].up) for pair in up)
    assert sorted(hr_of(pairs)) == sorted(hr_of(up)) == sorted(by_hr) and hr_of(pairs) != images(opened)
    assert hr_of(full_images(opened, split="val")) == images(opened, "val")
    assert hr_of(full_images(opened, shuffle=0)) == images(opened)


def test_patches_are_aligned_and_depend_on_seed_and_epoch_only(opened: srshards.Shards) -> None:
    pipeline = srshards.webdataset(opened, PATCH_PX, shuffle=0, augment=False)
    first = list(pipeline)
    for sample, pair in zip(opened.train, first, strict=True):
        half = PATCH_PX // 2
        found = [
            (top, left)
            for top, left in np.ndindex(33 - half, 33 - half)
            if np.array_equal(sample.lr[top : top + half, left : left + half], pair.input)
        ]
        crops = [sample.hr[2 * top : 2 * top + 16, 2 * left : 2 * left + 16] for top, left in found]
        assert any(np.array_equal(crop, pair.hr) for crop in crops)
    assert hr_of(pipeline) == hr_of(first)
    assert not set(hr_of(first)) & set(hr_of(srshards.webdataset(opened, PATCH_PX, seed=1, augment=False)))
    pipeline.set_epoch(1)
    assert not set(hr_of(first)) & set(hr_of(pipeline))


def test_epochs_cycle_through_variants_of_compressed_images(tmp_path: Path) -> None:
    recipe = ("--degradation", "bsrgan-light", "--variants", 2, "--no-up", "--codec", "webp", "--val-fraction", 0)
    generate(make_photos(tmp_path / "photos", 5), tmp_path, "-s", 2, *recipe)
    opened = srshards.open(tmp_path / "scale_2x")
    pipeline = full_images(opened, shuffle=0)
    shown = []
    for epoch in (0, 1):
        pipeline.set_epoch(epoch)
        shown.append([pair.input.tobytes() for pair in pipeline])
    for sample, both in zip(opened, zip(*shown, strict=True), strict=True):
        assert set(both) == {lr.tobytes() for lr in sample.lr_variants}


def test_the_pipeline_is_a_webdataset_pipeline(opened: srshards.Shards) -> None:
    pipeline = srshards.webdataset(opened, PATCH_PX, transform=lambda pair: pair._replace(input=pair.input // 2))
    assert isinstance(pipeline, webdataset.DataPipeline)
    assert [hr.shape for hr, _ in pipeline.batched(10)] == [(10, 16, 16, 3)] * 3 + [(9, 16, 16, 3)]
    assert max(pair.input.max() for pair in pipeline) < 128


# ---- workers and ranks


def test_workers_share_the_samples_and_follow_the_epoch(opened: srshards.Shards) -> None:
    """With persistent workers."""
    pipeline = full_images(opened)
    loader = DataLoader(pipeline, batch_size=4, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        pipeline.set_epoch(epoch)
        orders.append(hr_of(loader))
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(images(opened))
    assert orders[0] == orders[2] != orders[1]


def test_ranks_share_the_shards(opened: srshards.Shards) -> None:
    ranks = [hr_of(full_images(opened, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(chain(*ranks)) == sorted(images(opened)) and all(ranks)
    with pytest.raises(srshards.ArgumentError, match=r"`world_size` 99: expected at most the number of shards, \d+"):
        full_images(opened, rank=0, world_size=99)


# ---- addresses


def test_addresses_may_be_a_list_or_a_string(opened: srshards.Shards) -> None:
    names = tars(opened)
    texts = (
        names,
        list(map(Path, names)),
        "::".join(names),
        [f"file://{name}" for name in names],
        [f"pipe:cat '{name}'" for name in names],
        f"{Path(names[0]).parent}/train-{{000000..{len(names) - 1:06d}}}.tar",
    )
    for given in texts:
        assert sorted(hr_of(srshards.webdataset(given, HR_PX, augment=False))) == sorted(images(opened))


def test_workers_read_from_a_store_after_their_parent(
    opened: srshards.Shards, shards: Path, s3: Bucket, tmp_path: Path
) -> None:
    address = s3.put_folder(shards / "scale_2x", "scale_2x")
    stored = srshards.open(address, cache=tmp_path)
    assert np.array_equal(stored[0].hr, opened[0].hr)
    loader = DataLoader(full_images(stored), batch_size=4, num_workers=2)
    assert sorted(hr_of(loader)) == sorted(images(opened))
    urls = [f"{address}/{Path(name).name}" for name in tars(opened)]
    assert sorted(hr_of(srshards.webdataset(urls, HR_PX, augment=False))) == sorted(images(opened))


def test_datasets_of_a_store_work_with_any_start_method(
    opened: srshards.Shards, shards: Path, s3: Bucket, tmp_path: Path
) -> None:
    stored = srshards.open(s3.put_folder(shards / "scale_2x", "scale_2x"), cache=tmp_path)
    data = srshards.PatchDataset(stored, HR_PX, augment=False)
    assert np.array_equal(data[0].hr, opened.train[0].hr)  # fetches the first shard; workers fetch the others
    for method in ("fork", "spawn"):  # a fork server keeps the environment of the test that started it
        context = multiprocessing.get_context(method)
        loader = DataLoader(data, batch_size=13, num_workers=1, multiprocessing_context=context)
        assert hr_of(loader) == images(opened)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_a_broken_connection_loses_no_sample(opened: srshards.Shards, shards: Path, s3: Bucket) -> None:
    address = s3.put_folder(shards / "scale_2x", "scale_2x")
    pipeline = srshards.webdataset([f"{address}/train-000000.tar"], HR_PX, augment=False, shuffle=0)
    s3.proxy.break_next("reset", method="GET", key="*.tar", times=2)
    assert hr_of(pipeline) == images(opened)[: opened.train.records[0].samples]


# ---- errors


def test_unreadable_tars_are_reported(opened: srshards.Shards, tmp_path: Path) -> None:
    name = tars(opened)[0]
    content = Path(name).read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:20_000])
    (tmp_path / "other.tar").write_bytes(b"no tar at all" * 1000)
    for url, message in (
        (str(tmp_path / "missing.tar"), "missing.tar: cannot read it to the end .*No such file"),
        (str(tmp_path / "cut.tar"), "cut.tar: cannot read it to the end .*unexpected end of data"),
        (str(tmp_path / "other.tar"), "other.tar: cannot read it to the end"),
        (f"pipe:cat '{name}'; exit 3", "exit 3: cannot read it to the end .*exit 3"),
    ):
        with pytest.raises(srshards.RunError, match=message):
            list(srshards.webdataset([url], PATCH_PX))


def test_a_tar_truncated_between_samples_is_reported(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    opened = srshards.open(folder)
    tar = folder / "train-000000.tar"
    samples = opened.train.records[0].samples
    second = next(line.split()[1] for line in tar.with_suffix(".idx").read_text().splitlines()[2:])
    tar.write_bytes(tar.read_bytes()[: int(second) - 512])
    with pytest.raises(srshards.RunError, match=rf"train-000000\.tar: expected {samples} samples as in .*, found 1"):
        list(full_images(opened))
    with pytest.raises(srshards.RunError, match=r"train-000000\.tar: expected"):  # also from a worker
        list(DataLoader(full_images(opened), batch_size=4, num_workers=1))


def test_invalid_members_are_reported(opened: srshards.Shards, tmp_path: Path) -> None:
    def tar_of(name: str, members: dict[str, bytes]) -> str:
        with webdataset.TarWriter(str(tmp_path / name)) as writer:
            writer.write({"__key__": "000000000000", **members})
        return str(tmp_path / name)

    sample = opened[0]
    hr = b"".join(codec.encode("npy", sample.hr))
    meta = {"json": b'{"source": "a", "class": "b", "box": [0, 0, 1, 1], "scale": 2, "method": "cubic"}'}
    for url, message in (
        (tar_of("a.tar", {"lr.npy": hr, **meta}), "sample 000000000000 has no hr image"),
        (tar_of("b.tar", {"hr.npy": hr, **meta}), "sample 000000000000 has no lr image"),
        (tar_of("c.tar", {"hr.npy": hr, "lr.npy": hr, **meta}), "sizes of HR .* and lr .* do not match at 2x"),
        (tar_of("d.tar", {"hr.npy": hr[:-1], "lr.npy": hr, **meta}), "hr.npy cannot be decoded as npy"),
        (tar_of("e.tar", {"hr.npy": hr, "lr.npy": hr}), "json is not valid JSON"),
    ):
        with pytest.raises(srshards.RunError, match=message):
            list(srshards.webdataset([url], PATCH_PX))
    with webdataset.TarWriter(str(tmp_path / "f.tar")) as writer:
        writer.write({"__key__": "cat", "hr.npy": hr, "lr.npy": hr})
    with pytest.raises(srshards.RunError, match="sample cat: 'cat' is not a sample key"):
        list(srshards.webdataset([str(tmp_path / "f.tar")], PATCH_PX))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": -1}, "`shuffle` -1: expected 0 or more"),
        ({"shards": []}, "`shards` []: expected the result of srshards.open, or addresses of tars"),
        ({"shards": 3}, "`shards` 3: expected the result of srshards.open, or addresses of tars"),
    ],
)
def test_invalid_arguments_are_refused(opened: srshards.Shards, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(srshards.ArgumentError) as error:
        srshards.webdataset(**{"shards": opened, "patch_size": PATCH_PX, **arguments})
    assert str(error.value).startswith(message)


def test_the_path_of_a_folder_is_refused(opened: srshards.Shards) -> None:
    with pytest.raises(srshards.ArgumentError, match=r"scale_2x is a folder; open it with srshards\.open"):
        srshards.webdataset(str(opened.path), PATCH_PX)


def test_an_indivisible_patch_size_is_refused_for_tars(opened: srshards.Shards) -> None:
    with pytest.raises(srshards.ArgumentError, match="`patch_size` 15: expected a multiple of the scale 2, at"):
        next(iter(srshards.webdataset(tars(opened), 15)))
