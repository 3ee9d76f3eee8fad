"""The batch stream: a pure function of (seed, epoch, step), with HR and input aligned to the pixel."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from helpers import generate
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srshards.errors import RunError
from srshards.loader.batches import BatchReader, Patches
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.resident import ResidentBatches
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Rows
from srshards.sampling.counter_rng import below, draw, shuffled
from srshards.sampling.patches import NUM_SYMMETRIES, Cut, PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.mapped import MappedShard
from srshards.shards.opening import open_shards

SEED = 3
CPU = torch.device("cpu")


def reader_of(
    folder: Path, patch: int, input_name: str = "lr", global_batch: int = 8, patches_per_sample: int = 1
) -> BatchReader:
    """Return a reader of the training shards in the folder of one scale."""
    shards = open_shards(folder)
    records = shards.train.records
    schedule = Schedule(
        [r.samples for r in records], [r.bytes for r in records], SEED, global_batch, patches_per_sample
    )
    grid = PatchGrid(shards.hr_size, shards.scale, patch, shards.scale if input_name == "lr" else 1)
    tars = [(shards.tar(record), record.samples) for record in records]
    return BatchReader(tars, shards.codec, schedule, grid, shards.inputs(input_name), SEED, shards.origin)


def contents(batches: Iterable[PatchBatch]) -> list[tuple[bytes, bytes]]:
    """Return the bytes of HR and input of each batch."""
    return [(batch.hr.numpy().tobytes(), batch.input.numpy().tobytes()) for batch in batches]


def loaded(reader: BatchReader, rows: Rows, first: int, stop: int, workers: int) -> list[tuple[bytes, bytes]]:
    """Return the contents of the micro-batches of steps `first` to `stop` - 1 from `WorkerBatches`."""
    return contents(WorkerBatches(reader, rows, first, stop, workers, 2, CPU).started())


def resident(reader: BatchReader, rows: Rows, first: int, stop: int) -> list[PatchBatch]:
    """Return the same batches from samples in device memory."""
    return list(ResidentBatches(reader, rows, first, stop, CPU).started())


def read(reader: BatchReader, step: int, rows: int = 8) -> Patches:
    """Read the first rows of a step's global batch directly."""
    memory = np.empty(rows * reader.grid.bytes_per_row, np.uint8)
    patches = reader.lay_out(memory, 1, rows)
    assert not reader.read(range(step, step + 1), range(rows), patches)
    return Patches(patches.hr[0], patches.input[0])


def as_bytes(batch: Patches) -> tuple[bytes, bytes]:
    return batch.hr.tobytes(), batch.input.tobytes()


# ---- draws


def test_draw_depends_on_every_key_and_on_nothing_else() -> None:
    numbers = np.arange(100)
    assert (draw(1, 2, numbers) == np.concatenate([draw(1, 2, number) for number in range(100)])).all()
    everything = np.concatenate([draw(a, b, numbers) for a in range(5) for b in range(5)])
    assert len(np.unique(everything)) == 2500
    assert int(draw(1, 2, 3)[0]) == 16914669369030367833  # fixed: a resumed run must see the same crops


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_below_is_uniform_over_its_range(limit: int, seed: int) -> None:
    found = below(draw(seed, np.arange(2000)), limit)
    assert found.min() >= 0 and found.max() < limit
    assert abs(found.mean() - (limit - 1) / 2) <= 0.06 * limit


@given(st.integers(0, 500), st.integers(0, 2**32))
def test_shuffled_returns_a_permutation(count: int, seed: int) -> None:
    assert sorted(shuffled(count, seed, 1).tolist()) == list(range(count))


# ---- schedule

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any)


@settings(max_examples=60)
@given(SIZES, st.integers(1, 40), st.integers(0, 99), st.integers(1, 30))
def test_each_epoch_contains_every_sample_once(sizes: list[int], batch: int, seed: int, block: int) -> None:
    """Including batches larger than an epoch, empty shards and small blocks."""
    schedule = Schedule(sizes, sizes, seed, batch, block_bytes=block)
    epochs = 3
    drawn = [schedule.batch(step) for step in range(-(-epochs * sum(sizes) // batch))]
    numbers = np.concatenate([d.numbers for d in drawn])
    of_epoch = np.concatenate([d.epochs for d in drawn])
    assert (np.diff(of_epoch) >= 0).all()
    for epoch in range(epochs):
        assert sorted(numbers[of_epoch == epoch].tolist()) == list(range(sum(sizes)))


@settings(max_examples=40)
@given(SIZES, st.integers(1, 5), st.integers(0, 99), st.integers(0, 200), st.sampled_from([1, 2, 4]))
def test_batch_is_independent_of_earlier_calls_and_of_ranks(
    sizes: list[int], batch: int, seed: int, step: int, ranks: int
) -> None:
    rows = [Rows(batch, 2, rank, ranks) for rank in range(ranks)]
    used = Schedule(sizes, sizes, seed, rows[0].global_batch)
    for earlier in (5, 0, step + 1):
        used.batch(earlier)
    complete = used.batch(step)
    parts = [
        Schedule(sizes, sizes, seed, rows[0].global_batch).batch(step, row.of_step.start, row.of_step.stop).numbers
        for row in rows
    ]
    assert np.concatenate(parts).tolist() == complete.numbers.tolist()


def test_epochs_and_seeds_change_the_order() -> None:
    schedule = Schedule([50, 50], [1, 1], 0, 100)
    assert schedule.batch(0).numbers.tolist() != schedule.batch(1).numbers.tolist()
    assert schedule.batch(0).numbers.tolist() != Schedule([50, 50], [1, 1], 1, 100).batch(0).numbers.tolist()


def test_a_batch_reads_the_shards_of_one_block() -> None:
    schedule = Schedule([10] * 20, [100] * 20, 0, 30, block_bytes=300)
    for step in range(6):  # a block: 30 samples in three shards
        assert len({schedule.shard_of(number)[0] for number in schedule.batch(step).numbers}) == 3


def test_num_steps_drops_the_incomplete_last_step() -> None:
    schedule = Schedule([25], [1], 0, 10)
    assert [schedule.num_steps(epochs) for epochs in (1, 2, 3, 4)] == [2, 5, 7, 10]
    assert Schedule([3], [1], 0, 10).num_steps(1) == 1  # fewer samples than a batch: samples repeat


# ---- patches


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards at 2x, 3x and 4x of 20 photos whose pixels encode the photo's number and the LR row and column.

    `nearest` copies an LR pixel from its own HR cell, so all images contain coordinates.
    """
    root = tmp_path_factory.mktemp("planted")
    for scale in (2, 3, 4):
        y, x = np.divmod(np.arange(60 * 60).reshape(60, 60), 60)
        for number in range(20):
            photo = np.stack([y // scale, x // scale, np.full_like(x, number)], axis=2).astype(np.uint8)
            path = root / f"photos{scale}" / "class" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(path)
        generate(root / f"photos{scale}", root, "-s", scale, "--size", 60, "--method", "nearest")
    return root


@pytest.mark.parametrize("input_name", ["lr", "up"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_hr_and_input_match_to_the_pixel_after_every_symmetry(planted: Path, scale: int, input_name: str) -> None:
    reader = reader_of(planted / f"scale_{scale}x", 24, input_name)
    symmetries = set()
    for step in range(40):
        draws = reader.schedule.batch(step)
        symmetries |= {cut.symmetry for cut in reader.grid.cuts(SEED, draws)}
        batch = read(reader, step)
        factor = scale if input_name == "lr" else 1
        assert (np.repeat(np.repeat(batch.input, factor, 1), factor, 2) == batch.hr).all()
        for hr in batch.hr:  # a complete patch: each of its cells once, all of one photo
            cells = {tuple(pixel) for pixel in hr.reshape(-1, 3).tolist()}
            assert len(cells) == (24 // scale) ** 2 and len({photo for _, _, photo in cells}) == 1
    assert symmetries == set(range(NUM_SYMMETRIES))


def test_the_eight_symmetries_differ() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    grid = PatchGrid(hr=4, scale=2, patch=4, input_scale=2)
    patches = np.empty((NUM_SYMMETRIES, 4, 4, 3), np.uint8)
    for number in range(NUM_SYMMETRIES):
        grid.cut(image, image[:2, :2].copy(), Cut(0, 0, number), patches[number], np.empty((2, 2, 3), np.uint8))
        assert (patches[number] == np.rot90(image[:, ::-1] if number >= 4 else image, number % 4)).all()
    assert len({patch.tobytes() for patch in patches}) == NUM_SYMMETRIES


def test_crops_reach_every_position_of_the_image() -> None:
    grid = PatchGrid(hr=64, scale=4, patch=32, input_scale=4)
    cuts = grid.cuts(0, Schedule([5000], [1], 0, 5000).batch(0))
    assert Counter(cut.top for cut in cuts).keys() == Counter(cut.left for cut in cuts).keys() == set(range(9))


def test_a_patch_may_be_as_large_as_the_image(planted: Path) -> None:
    batch = read(reader_of(planted / "scale_4x", 60), 0)
    assert batch.hr.shape == (8, 60, 60, 3) and batch.input.shape == (8, 15, 15, 3)


# ---- reading


def test_an_npy_image_is_a_view_of_the_mapped_tar(shards: Path) -> None:
    folder = open_shards(shards / "scale_2x")
    record = folder.train.records[0]
    mapped = MappedShard(folder.tar(record), record.samples)
    image = mapped.image(0, "hr", "npy", 64)
    assert not image.flags.owndata and not image.flags.writeable
    assert np.shares_memory(image, np.frombuffer(mapped._map, np.uint8))


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_the_codec_does_not_change_pixels(photos: Path, shards: Path, codec: str, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", codec)
    generate(photos, tmp_path / "npy", "-s", 2)
    for step in range(3):
        expected = read(reader_of(tmp_path / "npy" / "scale_2x", 32), step)
        assert as_bytes(read(reader_of(tmp_path / "scale_2x", 32), step)) == as_bytes(expected)


def test_more_workers_than_shards_give_the_same_batches(planted: Path) -> None:
    reader = reader_of(planted / "scale_2x", 24)
    assert len(reader._open._shards) == 1
    assert loaded(reader, Rows(8), 0, 10, 5) == loaded(reader, Rows(8), 0, 10, 0)


def test_workers_start_no_compute_threads_and_do_not_leak_over_50_epochs(shards: Path) -> None:
    """Compare the anonymous memory (not mapped files) of two workers after 5 and after 50 epochs."""
    reader = reader_of(shards / "scale_2x", 32)
    steps = reader.schedule.num_steps(51)
    batches = WorkerBatches(reader, Rows(8), 0, steps, 2, 2, CPU).started()
    early = late = {}
    for number, _ in enumerate(batches):
        if number == steps * 5 // 51:
            early = anonymous_bytes_of_workers()
        if number == steps * 50 // 51:
            late = anonymous_bytes_of_workers()
            break
    assert len(early) == 2 and early.keys() == late.keys()
    assert all(late[pid] - early[pid] < 2e6 for pid in early), (early, late)


def workers() -> list[psutil.Process]:
    """Return the data workers that the fork server started for this process."""
    return [child for child in psutil.Process().children(recursive=True) if child.name() == "srshards_worker"]


def anonymous_bytes_of_workers() -> dict[int, int]:
    found = {}
    for process in workers():
        # The main thread and two that wait for the end; no compute threads.
        assert process.num_threads() <= 3, process.threads()
        status = Path(f"/proc/{process.pid}/status").read_text()
        found[process.pid] = 1024 * int(status.split("RssAnon:")[1].split()[0])
    return found


# ---- failures


def test_a_shard_deleted_during_training_is_reported(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    reader = reader_of(tmp_path / "scale_2x", 32)
    os.unlink(reader._open._shards[0][0])
    with pytest.raises(RunError, match=r"No such file.*train-000000\.tar"):
        loaded(reader, Rows(8), 0, 4, 2)
