"""The transfer of batches to a CUDA device, with a stand-in for the device."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import OUT_OF_MEMORY, FakeCuda
from readers import Buggy
from test_trainer_stream import CPU, contents, loaded, reader_of

from srshards.loader.patch_batch import PatchBatch
from srshards.loader.ring import Ring
from srshards.loader.to_device import Transfer
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Rows

SECOND = torch.device("cuda", 1)
ROWS = Rows(8)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def batches(shards: Path, workers: int = 0, device: torch.device = SECOND) -> Iterator[PatchBatch]:
    return WorkerBatches(reader_of(shards / "scale_2x", 32), ROWS, 0, 12, workers, 2, device).started()


def expected(shards: Path) -> list[tuple[bytes, bytes]]:
    return loaded(reader_of(shards / "scale_2x", 32), ROWS, 0, 12, 0)


def assert_registered_once(cuda: FakeCuda, device: int = 1) -> None:
    """Check that the ring's memory was page-locked and unlocked once, on the same device."""
    (kind, *locked), unlocked = cuda.calls
    assert (kind, locked[0]) == ("register", device) and locked[2] > 0
    assert unlocked == ("unregister", device, locked[1])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_those_of_the_cpu_when_copies_run_as_late_as_possible(
    shards: Path, cuda: FakeCuda, workers: int
) -> None:
    taken = list(batches(shards, workers))
    assert contents(taken) == expected(shards)
    assert len(cuda.ordered) > 1  # work on the device is ordered after the copies
    assert_registered_once(cuda)


def test_the_complete_ring_is_page_locked(cuda: FakeCuda) -> None:
    ring = Ring(3, 1000)
    transfer = Transfer(ring, SECOND)
    assert cuda.calls == [("register", 1, ring.all_bytes().ctypes.data, 3000)]
    transfer.close()
    transfer.close()
    assert_registered_once(cuda)


def test_memory_that_cannot_be_page_locked_gives_the_same_batches(shards: Path, cuda: FakeCuda) -> None:
    cuda.registering = OUT_OF_MEMORY
    text = r"^cannot page-lock batches \(cudaErrorMemoryAllocation\): copying them to the GPU takes longer$"
    with pytest.warns(UserWarning, match=text):
        taken = list(batches(shards))
    assert contents(taken) == expected(shards)
    assert [name for name, *_ in cuda.calls] == ["register", "zeros"]  # which clears the error; nothing to unlock


def test_memory_is_unlocked_when_the_loader_is_closed_early(shards: Path, cuda: FakeCuda) -> None:
    running = batches(shards)
    taken = list(islice(running, 3))
    del running
    assert_registered_once(cuda)
    assert contents(taken) == expected(shards)[:3]  # closing waits for the copies


def test_memory_is_unlocked_after_an_error_of_a_reader(shards: Path, cuda: FakeCuda) -> None:
    reader = reader_of(shards / "scale_2x", 32)
    reader.__class__ = Buggy
    with pytest.raises(ZeroDivisionError):
        WorkerBatches(reader, ROWS, 0, 12, 0, 2, SECOND).started()
    assert_registered_once(cuda)


def test_an_error_of_the_device_is_raised_once_and_memory_is_still_unlocked(shards: Path, cuda: FakeCuda) -> None:
    running = batches(shards)
    next(running)
    cuda.is_broken = True
    with pytest.raises(RuntimeError, match="illegal memory access") as error:
        list(running)
    assert error.value.__context__ is None
    assert_registered_once(cuda)


@pytest.mark.filterwarnings("error")  # also for exceptions that are ignored
def test_closing_after_an_error_of_the_device_raises_nothing(shards: Path, cuda: FakeCuda) -> None:
    running = batches(shards)
    next(running)
    cuda.is_broken = True
    del running
    assert_registered_once(cuda)


def test_memory_is_unlocked_on_the_device_that_was_current_at_the_start(cuda: FakeCuda) -> None:
    cuda.current = 1
    transfer = Transfer(Ring(1, 10), torch.device("cuda"))
    cuda.current = 0
    transfer.close()
    assert_registered_once(cuda)


def test_nothing_is_copied_or_page_locked_for_a_cpu(cuda: FakeCuda) -> None:
    ring = Ring(1, 12)
    transfer = Transfer(ring, CPU)
    (sent,), wait = transfer.send((torch.from_numpy(ring.slot(0)),))
    wait()
    assert np.shares_memory(sent.numpy(), ring.slot(0))
    transfer.close()
    assert not cuda.calls
