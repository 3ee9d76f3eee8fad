"""`srshards.webdataset`: the samples of a set as a pipeline of the `webdataset` package, from wherever the tars lie."""

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
    """HR of every pair, or of every pair of batches."""
    return [np.asarray(hr).tobytes() for pair in pairs for hr in (pair.hr if pair.hr.ndim == 4 else [pair.hr])]


def whole(opened: srshards.Shards, **options: Any) -> PatchPipeline:
    """Whole images instead of patches, so that samples can be told apart."""
    return srshards.webdataset(opened, HR_PX, augment=False, **options)


def images(opened: srshards.Shards, split: str = "train") -> list[bytes]:
    return [sample.hr.tobytes() for sample in opened.split(split)]


def tars(opened: srshards.Shards) -> list[str]:
    return [str(opened.tar(record)) for record in opened.train.records]


# ---- what comes


def test_each_sample_comes_once_and_its_two_images_match(opened: srshards.Shards) -> None:
    pairs = list(whole(opened))
    assert isinstance(pairs[0], srshards.PatchPair) and pairs[0].hr.dtype == np.uint8
    of_hr = {sample.hr.tobytes(): sample for sample in opened.train}
    assert all(np.array_equal(pair.input, of_hr[pair.hr.tobytes()].lr) for pair in pairs)
    up = list(whole(opened, input="up"))
    assert all(np.array_equal(pair.input, of_hr[pair.hr.tobytes()].up) for pair in up)
    assert sorted(hr_of(pairs)) == sorted(hr_of(up)) == sorted(of_hr) and hr_of(pairs) != images(opened)
    assert hr_of(whole(opened, split="val")) == images(opened, "val")
    assert hr_of(whole(opened, shuffle=0)) == images(opened)


def test_patches_are_cut_at_matching_places_and_follow_from_seed_and_epoch(opened: srshards.Shards) -> None:
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


def test_a_recipes_variants_come_in_turn_from_compressed_images(tmp_path: Path) -> None:
    recipe = ("--degradation", "bsrgan-light", "--variants", 2, "--no-up", "--codec", "webp", "--val-fraction", 0)
    generate(make_photos(tmp_path / "photos", 5), tmp_path, "-s", 2, *recipe)
    opened = srshards.open(tmp_path / "scale_2x")
    pipeline = whole(opened, shuffle=0)
    shown = []
    for epoch in (0, 1):
        pipeline.set_epoch(epoch)
        shown.append([pair.input.tobytes() for pair in pipeline])
    for sample, both in zip(opened, zip(*shown, strict=True), strict=True):
        assert set(both) == {lr.tobytes() for lr in sample.lr_variants}


def test_the_pipeline_is_an_ordinary_one_of_the_package(opened: srshards.Shards) -> None:
    pipeline = srshards.webdataset(opened, PATCH_PX, transform=lambda pair: pair._replace(input=pair.input // 2))
    assert isinstance(pipeline, webdataset.DataPipeline)
    assert [hr.shape for hr, _ in pipeline.batched(10)] == [(10, 16, 16, 3)] * 3 + [(9, 16, 16, 3)]
    assert max(pair.input.max() for pair in pipeline) < 128


# ---- workers and ranks


def test_workers_share_the_samples_and_see_the_next_epoch(opened: srshards.Shards) -> None:
    """Workers that live on from epoch to epoch, too."""
    pipeline = whole(opened)
    loader = DataLoader(pipeline, batch_size=4, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        pipeline.set_epoch(epoch)
        orders.append(hr_of(loader))
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(images(opened))
    assert orders[0] == orders[2] != orders[1]


def test_ranks_share_the_shards(opened: srshards.Shards) -> None:
    ranks = [hr_of(whole(opened, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(chain(*ranks)) == sorted(images(opened)) and all(ranks)
    with pytest.raises(srshards.ArgumentError, match=r"`world_size` 99: expected at most the number of shards, \d+"):
        whole(opened, rank=0, world_size=99)


# ---- places


def test_addresses_may_be_a_list_or_one_text(opened: srshards.Shards) -> None:
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


def test_a_store_is_read_by_workers_after_the_parent_has_read(
    opened: srshards.Shards, shards: Path, s3: Bucket, tmp_path: Path
) -> None:
    address = s3.put_folder(shards / "scale_2x", "scale_2x")
    stored = srshards.open(address, cache=tmp_path)
    assert np.array_equal(stored[0].hr, opened[0].hr)
    loader = DataLoader(whole(stored), batch_size=4, num_workers=2)
    assert sorted(hr_of(loader)) == sorted(images(opened))
    urls = [f"{address}/{Path(name).name}" for name in tars(opened)]
    assert sorted(hr_of(srshards.webdataset(urls, HR_PX, augment=False))) == sorted(images(opened))


def test_samples_of_a_store_are_read_in_any_process(
    opened: srshards.Shards, shards: Path, s3: Bucket, tmp_path: Path
) -> None:
    stored = srshards.open(s3.put_folder(shards / "scale_2x", "scale_2x"), cache=tmp_path)
    data = srshards.PatchDataset(stored, HR_PX, augment=False)
    assert np.array_equal(data[0].hr, opened.train[0].hr)  # the first shard; the others are fetched by the workers
    for method in ("fork", "spawn"):  # a fork server would have the environment of the test that started it
        context = multiprocessing.get_context(method)
        loader = DataLoader(data, batch_size=13, num_workers=1, multiprocessing_context=context)
        assert hr_of(loader) == images(opened)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_a_connection_that_breaks_costs_no_sample(opened: srshards.Shards, shards: Path, s3: Bucket) -> None:
    address = s3.put_folder(shards / "scale_2x", "scale_2x")
    pipeline = srshards.webdataset([f"{address}/train-000000.tar"], HR_PX, augment=False, shuffle=0)
    s3.proxy.break_next("reset", method="GET", key="*.tar", times=2)
    assert hr_of(pipeline) == images(opened)[: opened.train.records[0].samples]


# ---- what goes wrong


def test_tars_that_cannot_be_read(opened: srshards.Shards, tmp_path: Path) -> None:
    name = tars(opened)[0]
    content = Path(name).read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:20_000])
    (tmp_path / "other.tar").write_bytes(b"no tar at all" * 1000)
    for url, words in (
        (str(tmp_path / "gone.tar"), "gone.tar: cannot read it to the end .*No such file"),
        (str(tmp_path / "cut.tar"), "cut.tar: cannot read it to the end .*unexpected end of data"),
        (str(tmp_path / "other.tar"), "other.tar: cannot read it to the end"),
        (f"pipe:cat '{name}'; exit 3", "exit 3: cannot read it to the end .*exit 3"),
    ):
        with pytest.raises(srshards.RunError, match=words):
            list(srshards.webdataset([url], PATCH_PX))


def test_a_tar_that_ends_between_two_samples_is_not_taken_for_whole(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    opened = srshards.open(folder)
    tar = folder / "train-000000.tar"
    samples = opened.train.records[0].samples
    second = next(line.split()[1] for line in tar.with_suffix(".idx").read_text().splitlines()[2:])
    tar.write_bytes(tar.read_bytes()[: int(second) - 512])
    with pytest.raises(srshards.RunError, match=rf"train-000000\.tar: expected {samples} samples as in .*, found 1"):
        list(whole(opened))
    with pytest.raises(srshards.RunError, match=r"train-000000\.tar: expected"):  # out of a worker, too
        list(DataLoader(whole(opened), batch_size=4, num_workers=1))


def test_members_that_are_not_what_they_should_be(opened: srshards.Shards, tmp_path: Path) -> None:
    def tar_of(name: str, members: dict[str, bytes]) -> str:
        with webdataset.TarWriter(str(tmp_path / name)) as writer:
            writer.write({"__key__": "000000000000", **members})
        return str(tmp_path / name)

    sample = opened[0]
    hr = b"".join(codec.encode("npy", sample.hr))
    described = {"json": b'{"source": "a", "class": "b", "box": [0, 0, 1, 1], "scale": 2, "method": "cubic"}'}
    for url, words in (
        (tar_of("a.tar", {"lr.npy": hr, **described}), "sample 000000000000 has no hr image"),
        (tar_of("b.tar", {"hr.npy": hr, **described}), "sample 000000000000 has no lr image"),
        (tar_of("c.tar", {"hr.npy": hr, "lr.npy": hr, **described}), "sizes of HR .* and lr .* do not match at 2x"),
        (tar_of("d.tar", {"hr.npy": hr[:-1], "lr.npy": hr, **described}), "hr.npy cannot be decoded as npy"),
        (tar_of("e.tar", {"hr.npy": hr, "lr.npy": hr}), "json is not valid JSON"),
    ):
        with pytest.raises(srshards.RunError, match=words):
            list(srshards.webdataset([url], PATCH_PX))
    with webdataset.TarWriter(str(tmp_path / "f.tar")) as writer:
        writer.write({"__key__": "cat", "hr.npy": hr, "lr.npy": hr})
    with pytest.raises(srshards.RunError, match="sample cat: 'cat' is not a sample key"):
        list(srshards.webdataset([str(tmp_path / "f.tar")], PATCH_PX))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patch_size": 15}, "`patch_size` 15 is not divisible by the scale 2; try 14 or 16"),
        ({"patch_size": 66}, "`patch_size` 66: the stored HR images have 64 px"),
        ({"input": "hr"}, "`input` 'hr': expected 'lr' or 'up'"),
        ({"split": "test"}, "`split` 'test': expected train or val"),
        ({"seed": -1}, "`seed` -1: expected 0 or more"),
        ({"shuffle": -1}, "`shuffle` -1: expected 0 or more"),
        ({"shards": []}, "`shards` []: expected the result of srshards.open, or addresses of tars"),
        ({"shards": 3}, "`shards` 3: expected the result of srshards.open, or addresses of tars"),
    ],
)
def test_arguments_that_do_not_fit(opened: srshards.Shards, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(srshards.ArgumentError) as error:
        srshards.webdataset(**{"shards": opened, "patch_size": PATCH_PX, **arguments})
    assert str(error.value).startswith(words)


def test_a_folder_is_named_for_what_it_is(opened: srshards.Shards) -> None:
    with pytest.raises(srshards.ArgumentError, match=r"scale_2x is a folder; open it with srshards\.open"):
        srshards.webdataset(str(opened.path), PATCH_PX)


def test_a_patch_that_does_not_fit_tars_of_unknown_size(opened: srshards.Shards) -> None:
    with pytest.raises(srshards.ArgumentError, match="`patch_size` 15: expected a multiple of the scale 2, at"):
        next(iter(srshards.webdataset(tars(opened), 15)))
