"""The ring of shared memory, the worker processes that fill it, and samples in device memory."""

import errno
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers import SMALL, TIMEOUT_S, generate, overwrite, trainer, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import Buggy, Scribbler
from test_trainer_stream import CPU, SEED, contents, loaded, reader_of, resident, workers

from srshards.errors import ArgumentError, RunError
from srshards.loader import worker_pool
from srshards.loader import workers as workers_module
from srshards.loader.batches import BatchReader
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.resident import ResidentBatches
from srshards.loader.ring import Ring
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Chunks, Rows
from srshards.sampling.schedule import Schedule
from srshards.shards.mapped import MappedShard
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from trainer.training.checks import checked_plan
from trainer.training.config import MAX_PREFETCH, TrainConfig

pytestmark = pytest.mark.slow


def scribbler(shards: Path, log: Path) -> Scribbler:
    reader = reader_of(shards / "scale_2x", 32)
    reader.__class__ = Scribbler
    assert isinstance(reader, Scribbler)
    reader.log = log
    log.touch()
    return reader


def has_size(path: Path, size: int) -> bool:
    return path.stat().st_size >= size


@pytest.mark.parametrize("prefetch", [1, 4, 9])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_batch_in_use_never_changes(shards: Path, tmp_path: Path, num_workers: int, prefetch: int) -> None:
    """Check each batch after the workers have written all that they may write while it is in use."""
    log = tmp_path / "log"
    reader = scribbler(shards, log)
    rows, steps = Rows(4, micro_batches=2), range(3, 60)
    chunks = Chunks.of(rows, reader.grid, "npy", 1, prefetch)
    numbers = chunks.numbers(steps.start, steps.stop)
    batches = WorkerBatches(reader, rows, steps.start, steps.stop, num_workers, prefetch, CPU).started()
    for count, batch in enumerate(batches):
        step = steps.start + count // 2
        under_way = step // chunks.size - numbers.start + chunks.num_slots(num_workers)
        wait_until(functools.partial(has_size, log, min(len(numbers), under_way)))
        assert (batch.hr == step).all() and (batch.input == step).all()
    assert count + 1 == 2 * len(steps)


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 2), ("spawn", 1), ("forkserver", 2)])
def test_every_start_method_gives_the_same_batches(
    shards: Path, method: str, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single worker with `spawn`, because each imports all that it needs."""
    reader = reader_of(shards / "scale_2x", 32)
    expected = loaded(reader, Rows(8), 0, 9, 0)
    monkeypatch.setattr(worker_pool, "start_fork_server", lambda *given: multiprocessing.get_context(method))
    assert loaded(reader, Rows(8), 0, 9, num_workers) == expected


def test_an_abandoned_loader_keeps_its_last_batch_and_stops_its_workers(shards: Path) -> None:
    reader = reader_of(shards / "scale_2x", 32)
    batches = WorkerBatches(reader, Rows(8), 0, 10**6, 2, 4, CPU).started()
    kept = list(islice(batches, 3))[-1]
    copy = kept.hr.clone()
    former = workers()
    assert len(former) == 2
    del batches
    assert loaded(reader, Rows(8), 0, 12, 2) == loaded(reader, Rows(8), 0, 12, 0)
    assert (kept.hr == copy).all()
    assert not [worker for worker in former if worker.is_running()]


def test_two_loaders_at_once_are_independent(shards: Path) -> None:
    readers = [reader_of(shards / f"scale_{scale}x", 24) for scale in (2, 3)]
    loaders = [WorkerBatches(reader, Rows(8), 0, 12, 2, 2, CPU) for reader in readers]
    pairs: list[list[bytes]] = [[], []]
    for both in zip_longest(*(loader.started() for loader in loaders)):
        for found, batch in zip(pairs, both, strict=True):
            found.append(batch.hr.numpy().tobytes())
    assert pairs == [[hr for hr, _ in loaded(reader, Rows(8), 0, 12, 0)] for reader in readers]


def test_slots_are_contiguous_and_outlive_the_ring() -> None:
    ring = Ring(3, 5)
    for number in range(3):
        ring.slot(number)[:] = number
    kept = ring.slot(2)
    assert ring.all_bytes().tolist() == [0] * 5 + [1] * 5 + [2] * 5
    del ring
    assert kept.tolist() == [2] * 5


def test_a_bug_in_a_worker_is_raised_with_its_traceback(shards: Path) -> None:
    reader = reader_of(shards / "scale_2x", 32)
    reader.__class__ = Buggy
    with pytest.raises(RuntimeError, match=r"an error in a data worker:\nTraceback(?s:.*)Error: in step 7"):
        loaded(reader, Rows(8), 7, 8, 1)
    assert not workers()


def test_worker_processes_need_no_pytorch() -> None:
    imports = (
        "import srshards.loader.chunk_worker, srshards.loader.shard_fetcher, sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", imports], check=True)


def test_the_maximum_of_outstanding_requests_fits_into_the_pipe(shards: Path) -> None:
    """Decoded samples, one step per request: the largest number of requests that a slow worker can accumulate."""
    reader = reader_of(shards / "scale_2x", 24, "lr", 1)
    reader.codec = "png"  # no such members: every request fails, but only after the workers have started
    batches = WorkerBatches(reader, Rows(1), 10**15, 10**15 + 10**6, 2, MAX_PREFETCH, CPU).started
    with pytest.raises(RunError, match=r"has no hr\.png"):
        batches()


# ---- the end of processes

LEFT_WITH_AN_ERROR = """
    import sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]  # the test modules, and the package `tests`
    from test_trainer_stream import CPU, reader_of, workers
    from srshards.sampling.chunks import Rows
    from srshards.loader.workers import WorkerBatches
    if __name__ == "__main__":
        batches = WorkerBatches(reader_of(Path(sys.argv[1]), 32), Rows(8), 0, 10**6, 2, 2, CPU).started()
        next(batches), next(batches)  # one from each worker
        print(*(worker.pid for worker in workers()), flush=True)
        sys.stdin.read()
        for batch in batches:
            raise ValueError("error of the user")
"""


@pytest.mark.parametrize("end", ["error", "kill"])
def test_no_process_outlives_the_training(shards: Path, tmp_path: Path, end: str) -> None:
    """Neither after an error, whose traceback keeps the loader alive to the end, nor after SIGKILL."""
    script = tmp_path / "trains.py"
    script.write_text(textwrap.dedent(LEFT_WITH_AN_ERROR))
    command = [sys.executable, str(script), str(shards / "scale_2x"), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    training = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    left = [psutil.Process(int(pid)) for pid in training.stdout.readline().split()]
    assert len(left) == 2
    servers = [worker.parent() for worker in left]
    maps = Path(f"/proc/{left[0].pid}/maps").read_text()
    assert "memfd:batches" in maps and "/dev/shm/" not in maps and "torch" not in maps
    if end == "kill":
        training.kill()
    _, errors = training.communicate(timeout=TIMEOUT_S)
    assert training.returncode == (1 if end == "error" else -signal.SIGKILL)
    assert ("error of the user" in errors) == (end == "error")
    _, alive = psutil.wait_procs([*left, *(server for server in servers if server)], timeout=TIMEOUT_S)
    assert not alive


def test_workers_ignore_sigterm_from_other_processes(shards: Path) -> None:
    """`timeout` and job schedulers signal the complete process group; the training process decides what to do."""
    batches = WorkerBatches(reader_of(shards / "scale_2x", 32), Rows(8), 0, 10**6, 2, 2, CPU).started()
    assert len(list(islice(batches, 4))) == 4
    both = workers()
    for worker in both:
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(islice(batches, 200))) == 200  # far more than were prefetched
    for worker in both:
        worker.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(both, timeout=TIMEOUT_S)
    assert not alive


def test_a_failed_ring_allocation_is_reported(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(slots: int, slot_bytes: int) -> Ring:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers_module, "Ring", refuse)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1)
    assert result.code == 2 and "kB for batches (No space left on device); use fewer --workers" in result.err


def test_the_ring_is_allocated_while_the_workers_start(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end when that fails."""
    started: list[int] = []

    def refuse(ring: Ring) -> None:
        started.append(len(multiprocessing.active_children()))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ring, "allocate", refuse)
    before = len(multiprocessing.active_children())
    with pytest.raises(ArgumentError, match=r"kB for batches \(No space left on device\); use fewer `workers`"):
        loaded(reader_of(shards / "scale_2x", 32), Rows(8), 0, 4, 2)
    assert started == [before + 2] and len(multiprocessing.active_children()) == before


# ---- several patches of a decoded sample


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.integers(1, 3))
def test_num_steps_leaves_out_less_than_a_batch(samples: int, batch: int, times: int, rounds: int) -> None:
    batch = min(batch, samples)  # otherwise several epochs could be left out
    schedule, epochs = Schedule([samples], [1], SEED, batch, times), rounds * times
    draws = [schedule.batch(step) for step in range(schedule.num_steps(epochs))]
    numbers, of_epoch = (np.concatenate(column) for column in zip(*((d.numbers, d.epochs) for d in draws), strict=True))
    counts = [len(numbers[of_epoch == epoch]) for epoch in range(epochs)]
    left_out = (epochs * samples - len(draws) * batch) // times
    assert all(len(set(numbers[of_epoch == epoch])) == count for epoch, count in enumerate(counts))
    assert counts == [samples] * (epochs - times) + [samples - left_out] * times
    assert left_out < batch


def test_epochs_not_divisible_by_patches_per_sample_are_refused(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--patches-per-sample", 4)
    result = trainer(*args, "--epochs", 15)
    assert result.code == 2
    assert "--epochs 15: expected a multiple of --patches-per-sample 4" in result.err
    assert "try --epochs 12" in result.err
    assert "try --epochs 4" in trainer(*args, "--epochs", 3).err


@pytest.mark.parametrize(("epochs", "times"), [(1, 1), (4, 4), (6, 3), (10, 2), (7, 1)])
def test_the_default_of_patches_per_sample_divides_the_epochs(
    photos: Path, tmp_path: Path, epochs: int, times: int
) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    config = TrainConfig(tmp_path / "scale_2x", epochs=epochs, patch_size=32, batch_size=4, device="cpu", workers=0)
    assert checked_plan(config, open_shards(config.shards)).loader.patches_per_sample == times


def test_a_compressed_sample_is_decoded_once_for_all_its_patches(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    decoded: list[int] = []
    image = MappedShard.image

    def counted(self: MappedShard, index: int, name: str, codec: str, size: int) -> np.ndarray:  # type: ignore[type-arg]
        decoded.append(index)
        return image(self, index, name, codec, size)

    monkeypatch.setattr(MappedShard, "image", counted)
    for times, first, images in ((1, 0, 12 * 8 * 2), (4, 0, 3 * 8 * 2), (4, 2, 4 * 8 * 2)):
        decoded.clear()
        loaded(reader_of(tmp_path / "scale_2x", 32, patches_per_sample=times), Rows(8), first, first + 12, 0)
        assert len(decoded) == images


# ---- samples on the device


@pytest.mark.parametrize("patch", [3, 24, 63])
@pytest.mark.parametrize("input_name", ["lr", "up"])
def test_resident_samples_give_identical_batches(shards: Path, input_name: str, patch: int) -> None:
    reader, rows = reader_of(shards / "scale_3x", patch, input_name), Rows(4, 2)
    # More steps than are drawn at a time.
    assert contents(resident(reader, rows, 5, 45)) == loaded(reader, rows, 5, 45, 0)


def damage(folder: Path, number: int) -> None:
    """Overwrite the header of the HR image of a sample of the first training shard."""
    record = open_shards(folder).train.records[0]
    tar = folder / f"{record.name}.tar"
    member = next(m for m in load_index(tar.with_suffix(".idx"))[number] if m.extension == "hr.npy")
    overwrite(tar, member.offset, b"damaged")


def test_damaged_resident_samples_are_replaced_and_reported(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    folder = tmp_path / "scale_2x"
    damage(folder, 1)
    ring = [
        PatchBatch(batch.hr.clone(), batch.input.clone(), batch.damaged)
        for batch in WorkerBatches(reader_of(folder, 32), Rows(8), 0, 12, 0, 2, CPU).started()
    ]
    device = resident(reader_of(folder, 32), Rows(8), 0, 12)
    assert {number for batch in ring for number, _ in batch.damaged} == {1}
    assert [batch.damaged for batch in device] == [batch.damaged for batch in ring]
    assert contents(device) == contents(ring)


def test_a_missing_shard_is_reported_before_the_first_resident_batch(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    reader = reader_of(tmp_path / "scale_2x", 32)
    os.unlink(tmp_path / "scale_2x" / "train-000000.tar")
    with pytest.raises(RunError, match=r"No such file.*train-000000\.tar.*python -m shardgen verify"):
        resident(reader, Rows(8), 0, 12)


def test_running_out_of_memory_for_resident_samples_is_reported(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ResidentBatches) -> None:
        raise MemoryError

    monkeypatch.setattr(ResidentBatches, "_load", fail)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--resident", "--steps", 1)
    assert result.code == 2 and "--resident: the samples do not fit in the memory of cpu; omit --resident" in result.err


# ---- the disk


def batches_with_index_entry(offset: int, size: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerBatches:
    """Return batches of the folder, whose first sample has `offset` and `size` in the index."""

    def damaged(path: Path) -> list[list[Any]]:
        samples = [list(sample) for sample in load_index(path)]
        samples[0] = [member._replace(offset=offset, size=size) for member in samples[0]]
        return samples

    monkeypatch.setattr("srshards.shards.mapped.load_index", damaged)
    return WorkerBatches(reader_of(folder, 32), Rows(8), 0, 12, 0, 2, CPU)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 5)])
def test_an_index_entry_outside_any_image_damages_one_sample(
    photos: Path, tmp_path: Path, offset: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2)
    batches = list(batches_with_index_entry(offset, size, tmp_path / "scale_2x", monkeypatch).started())
    assert {number for batch in batches for number, _ in batch.damaged} == {0}


@pytest.mark.parametrize(("offset", "size"), [(10**30, 100), (0, 10**30), (10**9, 100)])
def test_an_index_entry_beyond_its_tar_is_refused(
    photos: Path, tmp_path: Path, offset: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2)
    with pytest.raises(RunError, match=r"train-000000.idx: 000000000000.hr.npy ends beyond the .* bytes of its tar"):
        list(batches_with_index_entry(offset, size, tmp_path / "scale_2x", monkeypatch).started())


@pytest.fixture
def cold(photos: Path, tmp_path: Path) -> Iterator[BatchReader]:
    """A reader of shards outside the page cache."""
    generate(photos, tmp_path, "-s", 2)
    folder = tmp_path / "scale_2x"
    for tar in folder.glob("*.tar"):
        with open(tar, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield reader_of(folder, 32)


def test_only_images_outside_memory_are_read_ahead(cold: BatchReader, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []
    monkeypatch.setattr(MappedShard, "read_ahead", lambda self, index, name, *rest: requested.append(name))
    steps = [range(step, step + 1) for step in range(400)]
    to = cold.lay_out(np.empty(8 * cold.grid.bytes_per_row, np.uint8), 1, 8)
    cold.read(steps[0], range(8), to, steps[1])
    assert requested == ["hr", "lr"] * 16  # of this step and the next
    for step in steps:
        cold.read(step, range(8), to)
    requested.clear()
    for step in steps[:10]:
        cold.read(step, range(8), to, steps[11])
    assert not requested
