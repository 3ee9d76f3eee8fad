"""The ring: no batch in use ever changes, nothing is left behind, and a device's own memory gives the same batches."""

import errno
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers import PATIENCE_S, SMALL, generate, overwrite, trainer, until
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trainer_stream import CPU, SEED, loaded, reader_of, workers

from srshards.errors import RunError
from srshards.loader import workers as loader_room
from srshards.loader.batches import BatchReader, DamagedRow, Patches
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.queues import with_pipes
from srshards.loader.resident import ResidentBatches
from srshards.loader.ring import FreeSlots, Ring
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Chunks, Rows
from srshards.sampling.schedule import Schedule
from srshards.shards.mapped import MappedShard
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from trainer.training.checks import checked_plan
from trainer.training.config import MAX_PREFETCH, TrainConfig


class Scribbler(BatchReader):
    """Fills a chunk with rubbish, then with the numbers of its steps, and leaves a byte in a file for each chunk."""

    done: Path

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        for images in to:
            images[:] = 0xEE
            images[:] = np.fromiter(steps, np.uint8).reshape(-1, 1, 1, 1, 1)
        with open(self.done, "ab") as file:
            file.write(b".")
        return ()


def scribbler(shards: Path, done: Path) -> Scribbler:
    reader = reader_of(shards / "scale_2x", 32)
    reader.__class__ = Scribbler
    assert isinstance(reader, Scribbler)
    reader.done = done
    done.touch()
    return reader


def wait_for(done: Path, count: int) -> None:
    """Until the workers have filled so many chunks."""
    deadline = monotonic() + PATIENCE_S
    while done.stat().st_size < count:
        assert monotonic() < deadline
        sleep(0.001)


@pytest.mark.parametrize("prefetch", [1, 4, 9])
@pytest.mark.parametrize("number_of_workers", [0, 1, 3])
def test_a_batch_in_use_never_changes_however_far_the_workers_run_ahead(
    shards: Path, tmp_path: Path, number_of_workers: int, prefetch: int
) -> None:
    """Each batch is looked at after the workers have written everything that they may write while it is in use."""
    done = tmp_path / "done"
    reader = scribbler(shards, done)
    rows, steps = Rows(4, micro_batches=2), range(3, 60)
    chunks = Chunks.of(rows, reader.grid, "npy", 1, prefetch)
    numbers = chunks.numbers(steps.start, steps.stop)
    batches = WorkerBatches(reader, rows, steps.start, steps.stop, number_of_workers, prefetch, CPU).started()
    for count, batch in enumerate(batches):
        step = steps.start + count // 2
        under_way = step // chunks.size - numbers.start + chunks.num_slots(number_of_workers)
        wait_for(done, min(len(numbers), under_way))
        assert (batch.hr == step).all() and (batch.input == step).all()
    assert count + 1 == 2 * len(steps)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_way_of_starting_workers_gives_the_same_batches(
    shards: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(shards / "scale_2x", 32)
    expected = loaded(reader, Rows(8), 0, 9, 0)
    monkeypatch.setattr(loader_room, "start_fork_server", lambda *given: multiprocessing.get_context(method))
    assert loaded(reader, Rows(8), 0, 9, 2) == expected


def test_a_loader_that_is_left_early_leaves_its_last_batch_alone_and_no_workers(shards: Path) -> None:
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


def test_two_loaders_side_by_side_do_not_meet(shards: Path) -> None:
    readers = [reader_of(shards / f"scale_{scale}x", 24) for scale in (2, 3)]
    loaders = [WorkerBatches(reader, Rows(8), 0, 12, 2, 2, CPU) for reader in readers]
    pairs: list[list[bytes]] = [[], []]
    for both in zip_longest(*(loader.started() for loader in loaders)):
        for found, batch in zip(pairs, both, strict=True):
            found.append(batch.hr.numpy().tobytes())
    assert pairs == [[hr for hr, _ in loaded(reader, Rows(8), 0, 12, 0)] for reader in readers]


def test_slots_are_handed_out_in_turn_and_only_when_they_may_be_written_to() -> None:
    waited: list[int] = []
    free = FreeSlots(3)
    assert [free.take() for _ in range(3)] == [0, 1, 2]
    free.give_back(1, lambda: waited.append(1))
    free.give_back(0, lambda: waited.append(0))
    assert not waited
    assert free.take() == 1 and waited == [1]
    assert free.take() == 0 and waited == [1, 0]


def test_slots_lie_side_by_side_in_one_piece_of_memory() -> None:
    ring = Ring(3, 5)
    for number in range(3):
        ring.slot(number)[:] = number
    kept = ring.slot(2)
    assert ring.all_bytes().tolist() == [0] * 5 + [1] * 5 + [2] * 5
    del ring
    assert kept.tolist() == [2] * 5


def test_a_queue_gives_what_was_put_in_order_and_says_when_it_is_empty() -> None:
    context = with_pipes(multiprocessing.get_context("forkserver"))
    pipe = context.Queue()
    for number in range(3):
        pipe.put((number, "x"))
    assert [pipe.get(timeout=1) for _ in range(3)] == [(number, "x") for number in range(3)]
    with pytest.raises(queue.Empty):
        pipe.get(timeout=0)
    assert not isinstance(multiprocessing.get_context("forkserver").Queue(), type(pipe))  # nobody else has these


def test_as_much_as_may_be_asked_of_a_worker_fits_into_its_pipe(shards: Path) -> None:
    """Samples that are decoded, one step at a time: the most requests that there can be, of a worker that is slow."""
    reader = reader_of(shards / "scale_2x", 24, "lr", 1)
    reader.codec = "png"  # there are none: every request is answered with a failure, after a start
    batches = WorkerBatches(reader, Rows(1), 10**15, 10**15 + 10**6, 2, MAX_PREFETCH, CPU).started
    with pytest.raises(RunError, match=r"has no hr\.png"):
        batches()


# ---- the end of processes

LEFT_WITH_AN_ERROR = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_trainer_stream import CPU, reader_of, workers
    from srshards.sampling.chunks import Rows
    from srshards.loader.workers import WorkerBatches
    if __name__ == "__main__":
        batches = WorkerBatches(reader_of(Path(sys.argv[1]), 32), Rows(8), 0, 10**6, 2, 2, CPU).started()
        next(batches), next(batches)  # one of each worker
        print(*(worker.pid for worker in workers()), flush=True)
        sys.stdin.read()
        for batch in batches:
            raise ValueError("what the user's own code may do")
"""


@pytest.mark.parametrize("end", ["error", "kill"])
@pytest.mark.slow
def test_nothing_is_left_behind_by_any_end(shards: Path, tmp_path: Path, end: str) -> None:
    """An error in the loop that keeps the loader alive in its traceback to the very end; and no chance to tidy up."""
    script = tmp_path / "trains.py"
    script.write_text(textwrap.dedent(LEFT_WITH_AN_ERROR))
    command = [sys.executable, str(script), str(shards / "scale_2x"), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    training = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    left = [psutil.Process(int(pid)) for pid in training.stdout.readline().split()]
    assert len(left) == 2
    servers = [worker.parent() for worker in left]
    maps = Path(f"/proc/{left[0].pid}/maps").read_text().split()
    semaphores = [Path(path) for path in maps if path.startswith("/dev/shm/")]
    assert semaphores
    if end == "kill":
        training.kill()
    _, errors = training.communicate(timeout=PATIENCE_S)
    assert training.returncode == (1 if end == "error" else -signal.SIGKILL)
    assert ("what the user's own code may do" in errors) == (end == "error")
    _, alive = psutil.wait_procs([*left, *(server for server in servers if server)], timeout=PATIENCE_S)
    assert not alive
    until(lambda: not any(path.exists() for path in semaphores))  # the resource tracker removes them last of all


def test_a_worker_ends_when_the_training_process_says_so_and_when_nobody_else_does(shards: Path) -> None:
    """`timeout` and job schedulers send SIGTERM to the whole group: what that means is not for workers to decide."""
    batches = WorkerBatches(reader_of(shards / "scale_2x", 32), Rows(8), 0, 10**6, 2, 2, CPU).started()
    assert len(list(islice(batches, 4))) == 4
    both = workers()
    for worker in both:
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(islice(batches, 200))) == 200  # far more than lay ready
    for worker in both:
        worker.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(both, timeout=PATIENCE_S)
    assert not alive


def test_a_ring_that_cannot_be_made_is_said_with_what_to_do(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(slots: int, slot_bytes: int) -> Ring:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loader_room, "Ring", refuse)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1)
    assert done.code == 2 and "kB for batches (No space left on device); use fewer --workers" in done.err


# ---- several patches of a decoded sample


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.integers(1, 3))
def test_a_run_of_whole_epochs_takes_every_sample_once_in_each_but_for_those_left_out(
    samples: int, batch: int, times: int, rounds: int
) -> None:
    batch = min(batch, samples)  # else several epochs may be left out
    schedule, epochs = Schedule([samples], [1], SEED, batch, times), rounds * times
    draws = [schedule.batch(step) for step in range(schedule.num_steps(epochs))]
    numbers, of_epoch = (np.concatenate(column) for column in zip(*((d.numbers, d.epochs) for d in draws), strict=True))
    counts = [len(numbers[of_epoch == epoch]) for epoch in range(epochs)]
    left_out = (epochs * samples - len(draws) * batch) // times
    assert all(len(set(numbers[of_epoch == epoch])) == count for epoch, count in enumerate(counts))
    assert counts == [samples] * (epochs - times) + [samples - left_out] * times
    assert left_out < batch


def test_epochs_that_cannot_be_gone_through_so_many_at_a_time_are_refused(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--patches-per-sample", 4)
    done = trainer(*words, "--epochs", 15)
    assert done.code == 2
    assert "--patches-per-sample 4 requires --epochs to be a multiple of 4, got 15" in done.err
    assert "try --epochs 12" in done.err
    assert "try --epochs 4" in trainer(*words, "--epochs", 3).err


@pytest.mark.parametrize(("epochs", "times"), [(1, 1), (4, 4), (6, 3), (10, 2), (7, 1)])
def test_as_many_epochs_are_taken_at_a_time_as_divide_them(
    photos: Path, tmp_path: Path, epochs: int, times: int
) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    config = TrainConfig(tmp_path / "scale_2x", epochs=epochs, patch_size=32, batch_size=4, device="cpu", workers=0)
    assert checked_plan(config, open_shards(config.shards)).loader.patches_per_sample == times


@pytest.mark.parametrize("times", [2, 3, 4])
def test_every_sample_comes_once_in_every_epoch_and_its_patches_in_steps_that_follow_each_other(times: int) -> None:
    samples, batch = 23, 5
    schedule = Schedule([samples], [1], SEED, batch, times)
    rounds = [schedule.batch(step) for step in range(samples * times)]
    numbers = np.concatenate([draws.numbers for draws in rounds])
    epochs = np.concatenate([draws.epochs for draws in rounds])
    for epoch in range(5 * times):
        assert sorted(numbers[epochs == epoch].tolist()) == list(range(samples))
    for first in range(0, samples * times, times):
        of_steps = [rounds[first + echo] for echo in range(times)]
        assert len({draws.numbers.tobytes() for draws in of_steps}) == 1
        assert len({draws.epochs.tobytes() for draws in of_steps}) == times  # so their crops differ


def test_a_compressed_sample_is_decoded_once_for_its_patches(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    decoded: list[int] = []
    image = MappedShard.image

    def counted(self: MappedShard, place: int, name: str, codec: str, size: int) -> np.ndarray:  # type: ignore[type-arg]
        decoded.append(place)
        return image(self, place, name, codec, size)

    monkeypatch.setattr(MappedShard, "image", counted)
    for times, first, images in ((1, 0, 12 * 8 * 2), (4, 0, 3 * 8 * 2), (4, 2, 4 * 8 * 2)):
        decoded.clear()
        loaded(echoing(tmp_path / "scale_2x", times), Rows(8), first, first + 12, 0)
        assert len(decoded) == images


def echoing(folder: Path, times: int) -> BatchReader:
    reader = reader_of(folder, 32)
    shards = open_shards(folder).train.records
    reader.schedule = Schedule([s.samples for s in shards], [s.bytes for s in shards], SEED, 8, times)
    return reader


def test_the_same_batches_whoever_asks_when_samples_are_shared_by_steps(shards: Path) -> None:
    reader = echoing(shards / "scale_2x", 3)
    whole = loaded(reader, Rows(8), 0, 14, 0)
    assert len(set(whole)) == 14
    assert loaded(reader, Rows(8), 0, 14, 2) == whole
    assert loaded(reader, Rows(8), 5, 14, 1) == whole[5:]
    halves = [loaded(reader, Rows(2, 2, rank, 2), 0, 14, 0) for rank in (0, 1)]
    joined = [b"".join(half[2 * step + part][0] for half in halves for part in (0, 1)) for step in range(14)]
    assert joined == [hr for hr, _ in whole]


# ---- samples on the device


def resident(reader: BatchReader, rows: Rows, first: int, stop: int) -> list[PatchBatch]:
    return list(ResidentBatches(reader, rows, first, stop, CPU).started())


@pytest.mark.parametrize("patch", [3, 24, 63])
@pytest.mark.parametrize("input_name", ["lr", "up"])
def test_samples_on_the_device_give_the_same_batches_to_the_bit(shards: Path, input_name: str, patch: int) -> None:
    reader, rows = reader_of(shards / "scale_3x", patch, input_name), Rows(4, 2)
    found = [
        (batch.hr.numpy().tobytes(), batch.input.numpy().tobytes())
        for batch in resident(reader, rows, 5, 45)  # more than are drawn at a time
    ]
    assert found == loaded(reader, rows, 5, 45, 0)


def damage(folder: Path, number: int) -> None:
    """Make the HR image of a sample of the first training shard one that no NumPy has written."""
    record = open_shards(folder).train.records[0]
    tar = folder / f"{record.name}.tar"
    member = next(m for m in load_index(tar.with_suffix(".idx"))[number] if m.extension == "hr.npy")
    overwrite(tar, member.offset, b"damaged")


def test_damaged_samples_are_replaced_and_named_on_the_device_as_elsewhere(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    folder = tmp_path / "scale_2x"
    damage(folder, 1)
    ring = list(WorkerBatches(reader_of(folder, 32), Rows(8), 0, 12, 0, 2, CPU).started())
    device = resident(reader_of(folder, 32), Rows(8), 0, 12)
    assert {number for batch in ring for number, _ in batch.damaged} == {1}
    assert [batch.damaged for batch in device] == [batch.damaged for batch in ring]
    assert [batch.hr.numpy().tobytes() for batch in device] == loaded_hr(folder)


def loaded_hr(folder: Path) -> list[bytes]:
    return [hr for hr, _ in loaded(reader_of(folder, 32), Rows(8), 0, 12, 0)]


def test_a_shard_that_went_away_is_named_before_the_first_batch_from_the_device(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    reader = reader_of(tmp_path / "scale_2x", 32)
    os.unlink(tmp_path / "scale_2x" / "train-000000.tar")
    with pytest.raises(RunError, match=r"No such file.*train-000000\.tar.*python -m shardgen verify"):
        resident(reader, Rows(8), 0, 12)


def test_samples_that_turn_out_not_to_fit_are_said_with_what_to_do(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ResidentBatches) -> None:
        raise MemoryError

    monkeypatch.setattr(ResidentBatches, "_load", fail)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--resident", "--steps", 1)
    assert done.code == 2 and "--resident: the samples do not fit in the memory of cpu; omit --resident" in done.err


def test_a_run_with_resident_samples_ends_with_the_weights_of_one_without(shards: Path, tmp_path: Path) -> None:
    for name, options in (("ring", ()), ("device", ("--resident",))):
        words = ("--shards", shards / "scale_2x", "--out", tmp_path, "--run", name, *SMALL, "--steps", 6, *options)
        done = trainer(*words)
        assert done.code == 0, done.err
        assert ("all samples in device memory" in done.err) == bool(options)
    ring, device = (torch.load(tmp_path / name / "model.pth")["params"] for name in ("ring", "device"))
    assert all(torch.equal(ring[name], device[name]) for name in ring)


# ---- the disk


def pointed_to(offset: int, size: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerBatches:
    """Batches of the folder, the index of whose first sample says that."""

    def damaged(path: Path) -> list[list[Any]]:
        samples = [list(sample) for sample in load_index(path)]
        samples[0] = [member._replace(offset=offset, size=size) for member in samples[0]]
        return samples

    monkeypatch.setattr("srshards.shards.mapped.load_index", damaged)
    return WorkerBatches(reader_of(folder, 32), Rows(8), 0, 12, 0, 2, CPU)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 5)])
def test_an_index_that_points_to_no_image_costs_one_sample_and_no_more(
    photos: Path, tmp_path: Path, offset: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2)
    batches = list(pointed_to(offset, size, tmp_path / "scale_2x", monkeypatch).started())
    assert {number for batch in batches for number, _ in batch.damaged} == {0}


@pytest.mark.parametrize(("offset", "size"), [(10**30, 100), (0, 10**30), (10**9, 100)])
def test_an_index_that_points_out_of_its_tar_is_refused(
    photos: Path, tmp_path: Path, offset: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path, "-s", 2)
    with pytest.raises(RunError, match=r"train-000000.idx: 000000000000.hr.npy ends beyond the .* bytes of its tar"):
        list(pointed_to(offset, size, tmp_path / "scale_2x", monkeypatch).started())


@pytest.fixture
def cold(photos: Path, tmp_path: Path) -> Iterator[BatchReader]:
    """A reader of shards of which no byte of an image is in memory."""
    generate(photos, tmp_path, "-s", 2)
    folder = tmp_path / "scale_2x"
    for tar in folder.glob("*.tar"):
        with open(tar, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield reader_of(folder, 32)


def test_what_is_not_in_memory_is_read_ahead_and_what_is_there_is_left_alone(
    cold: BatchReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(MappedShard, "read_ahead", lambda self, place, name, *rest: asked.append(name))
    steps = [range(step, step + 1) for step in range(400)]
    to = cold.lay_out(np.empty(8 * cold.grid.bytes_per_row, np.uint8), 1, 8)
    cold.read(steps[0], range(8), to, steps[1])
    assert asked == ["hr", "lr"] * 16  # of this step, and of the next
    for step in steps:
        cold.read(step, range(8), to)
    asked.clear()
    for step in steps[:10]:
        cold.read(step, range(8), to, steps[11])
    assert not asked
