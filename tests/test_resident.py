"""Samples in device memory: pixel positions of large sets, and crops drawn in advance by a thread."""

import threading
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from test_trainer_stream import contents, loaded, reader_of

import srshards
from srshards.loader.ahead import computed_ahead
from srshards.loader.batches import BatchReader, DrawnCrops
from srshards.loader.resident import ResidentBatches, ResidentImages, positions
from srshards.sampling.chunks import Rows

SIZE, PATCH, UNIT = 256, 3, 4
IMAGES_OF_32_BITS = 2**31 // SIZE**2


def no_images(count: int) -> ResidentImages:
    """Return images that take no memory."""
    return ResidentImages(torch.empty((count, SIZE, SIZE, 3), dtype=torch.uint8, device="meta"), UNIT, PATCH)


@pytest.mark.parametrize(
    ("count", "dtype"),
    [
        (2**31 // (3 * SIZE**2) + 1, torch.int32),  # more than 2^31 bytes, but not pixels
        (IMAGES_OF_32_BITS, torch.int32),
        (IMAGES_OF_32_BITS + 1, torch.int64),
        (40 * IMAGES_OF_32_BITS, torch.int64),
    ],
)
def test_positions_of_pixels_do_not_overflow(count: int, dtype: torch.dtype) -> None:
    images = no_images(count)
    corner = (SIZE - PATCH) // UNIT
    places = list(product((0, count // 2, count - 1), (0, corner), (0, corner), range(8)))
    numbers, *cuts = np.array(places).T
    corners = images.corners(numbers, np.array(cuts))
    found = positions(corners, torch.arange(PATCH, dtype=dtype))
    assert corners.dtype == found.dtype == dtype
    for (number, top, left, symmetry), patch in zip(places, found.tolist(), strict=True):
        rows = [[(number * SIZE + top * UNIT + y) * SIZE + left * UNIT + x for x in range(PATCH)] for y in range(PATCH)]
        image = np.array(rows, object)  # of integers without limits
        assert patch == np.rot90(image[:, ::-1] if symmetry >= 4 else image, symmetry % 4).tolist()
    assert int(found.max()) == count * SIZE**2 - 1 - (SIZE - PATCH) % UNIT * (SIZE + 1)


def test_batches_are_the_same_with_positions_of_64_bits(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(shards / "scale_2x", 24)
    monkeypatch.setattr("srshards.loader.resident._MAX_PIXELS_OF_32_BITS", 0)
    batches = ResidentBatches(reader, Rows(4, 2), 5, 45, torch.device("cpu")).started()
    assert contents(batches) == loaded(reader, Rows(4, 2), 5, 45, 0)


# ---- the thread


def test_results_are_computed_in_order_and_a_limited_number_in_advance() -> None:
    computed = [threading.Event() for _ in range(20)]
    started: list[int] = []

    def compute(number: int) -> int:
        started.append(number)
        computed[number].set()
        return number**2

    results = computed_ahead(compute, range(20), 3)
    for number in range(20):
        assert next(results) == number**2
        last = min(number + 3, 19)
        computed[last].wait()  # is computed although nobody has asked for it
        assert started == list(range(last + 1))
    assert not list(results)


def test_an_error_is_raised_in_the_place_of_its_result() -> None:
    results = computed_ahead(lambda number: 6 // (2 - number), range(9), 4)
    assert list(islice(results, 2)) == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not list(results)


@pytest.fixture
def threads() -> Iterator[set[threading.Thread]]:
    """The threads that run already. Fails when the test leaves more behind."""
    before = set(threading.enumerate())
    yield before
    assert set(threading.enumerate()) <= before


def test_closing_the_loader_ends_the_thread(shards: Path, threads: set[threading.Thread]) -> None:
    with srshards.PatchLoader(srshards.open(shards / "scale_2x"), 24, 4, resident=True) as loader:
        next(loader.steps(0, 1000))
        assert len(set(threading.enumerate()) - threads) == 1


@pytest.mark.usefixtures("threads")
def test_an_error_of_the_thread_is_raised_by_the_loader(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = BatchReader.drawn

    def failing(self: BatchReader, steps: range, rows: range) -> DrawnCrops:
        if steps.start >= 16:
            raise RuntimeError("no crops")
        return drawn(self, steps, rows)

    monkeypatch.setattr(BatchReader, "drawn", failing)
    with srshards.PatchLoader(srshards.open(shards / "scale_2x"), 24, 4, resident=True) as loader:
        batches = loader.steps(0, 1000)
        assert len(list(islice(batches, 16))) == 16
        with pytest.raises(RuntimeError, match=r"^no crops$"):
            next(batches)
