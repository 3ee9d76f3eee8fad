"""`PatchLoader`: reproducible batches for any number of workers and ranks, exact resumption, and clear errors."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TIMEOUT_S, generate, wait_until
from test_trainer_stream import contents, workers

import srshards
from srshards.errors import ArgumentError, RunError, WorkerDiedError
from srshards.format import ShardRecord
from srshards.loader import memory, patch_loader
from srshards.loader.patch_loader import PatchLoader
from srshards.loader.prefetch import PrefetchedBatches
from srshards.loader.workers import WorkerBatches
from srshards.shards.folder import Shards

PATCH_PX, BATCH = 24, 8
Bytes = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def data(shards: Path) -> Shards:
    """39 samples at 2x in several shards."""
    return srshards.open(shards / "scale_2x")


def make(data: Shards, **arguments: Any) -> PatchLoader:
    return PatchLoader(data, **{"patch_size": PATCH_PX, "batch_size": BATCH, "workers": 0, "prefetch": 4, **arguments})


def with_shards(data: Shards, records: Sequence[ShardRecord]) -> Shards:
    """Return the set reduced to these shards."""
    return Shards(data.path, dataclasses.replace(data.manifest, shards=tuple(records)))


@pytest.fixture(scope="module")
def expected(data: Shards) -> list[Bytes]:
    """The contents of the batches of the first twelve steps."""
    with make(data) as loader:
        found = contents(loader.steps(0, 12))
    assert len(set(found)) == 12
    return found


# ---- the batches


@pytest.mark.parametrize("number", [0, 1, 2])
def test_epochs_form_one_sequence_for_any_number_of_workers(data: Shards, expected: list[Bytes], number: int) -> None:
    with make(data, workers=number) as loader:
        assert len(loader) == len(data.train) // BATCH == 4
        found, processes = [], []
        for _ in range(3):
            epoch = contents(loader)
            assert len(epoch) == len(loader)
            found += epoch
            processes.append({worker.pid for worker in workers()})
        assert found == expected
        assert len(processes[0]) == number and processes == [processes[0]] * 3  # kept across epochs
    assert not workers()


def test_batches_are_uint8_tensors_of_the_requested_sizes(data: Shards) -> None:
    for name, small in (("lr", PATCH_PX // 2), ("up", PATCH_PX)):
        with make(data, input=name) as loader:
            batch = next(iter(loader))
        assert batch.hr.dtype == batch.input.dtype == torch.uint8
        assert batch.hr.shape == (BATCH, PATCH_PX, PATCH_PX, 3) and batch.input.shape == (BATCH, small, small, 3)
        assert batch.damaged == ()


def test_epochs_smaller_than_a_batch_have_one_step(data: Shards) -> None:
    with make(data, batch_size=100) as loader:
        assert len(loader) == len(contents(loader)) == 1


def test_resident_samples_give_the_same_batches(data: Shards, expected: list[Bytes]) -> None:
    with make(data, resident=True, workers=2) as loader:
        assert [batch for _ in range(3) for batch in contents(loader)] == expected
        assert loader.memory_bytes == len(data.train) * 3 * (64**2 + 32**2)
        assert not workers()


def test_patches_without_augmentation_are_windows_of_the_stored_images(data: Shards) -> None:
    with make(data, augment=False) as loader:
        patches = next(iter(loader)).hr.numpy().copy()
    images = [
        image.image(index, "hr", "npy", data.hr_size)
        for image in map(data.open, data.train.records)
        for index in range(len(image))
    ]
    windows = [
        np.lib.stride_tricks.sliding_window_view(image, (PATCH_PX, PATCH_PX, 3))[::2, ::2, 0] for image in images
    ]
    for patch in patches:
        assert any((window == patch).all((2, 3, 4)).any() for window in windows)


def test_memory_bytes_counts_all_prefetched_batches(data: Shards) -> None:
    loader = make(data, workers=3, prefetch=4)  # two chunks of two batches per worker, and one in use
    assert loader.memory_bytes == 7 * 2 * BATCH * 3 * (PATCH_PX**2 + (PATCH_PX // 2) ** 2)


@pytest.mark.parametrize(
    ("device", "ranks", "expected"), [("cpu", 1, 16), ("cuda", 1, 14), ("cuda:1", 4, 2), ("cuda", 8, 1), ("cpu", 32, 1)]
)
def test_two_cpus_of_each_process_are_left_to_its_gpu(
    device: str, ranks: int, expected: int, data: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_loader, "available_cpus", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert make(data, workers=None, device=device, rank=0, world_size=ranks).workers == expected
    assert make(data, workers=5, device=device, rank=0, world_size=ranks).workers == 5


@pytest.mark.parametrize("number", [0, 1])
def test_global_rng_and_default_device_are_unchanged(data: Shards, number: int) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"), make(data, workers=number) as loader:
        assert next(iter(loader)).hr.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)


def test_numpy_scalars_are_accepted(data: Shards, expected: list[Bytes]) -> None:
    numbers = {"patch_size": PATCH_PX, "batch_size": BATCH, "workers": 1, "seed": 0, "rank": 0, "world_size": 1}
    given = {name: np.int64(value) for name, value in numbers.items()}
    with make(data, **given, augment=np.True_) as loader:
        assert contents(loader.steps(np.int64(0), np.int64(3))) == expected[:3]  # type: ignore[arg-type]
        state = json.loads(json.dumps(loader.state_dict()))
    with make(data) as other:
        other.load_state_dict(state)
        assert contents(other) == expected[3:4]


def test_steps_out_of_range_are_refused(data: Shards) -> None:
    with make(data) as loader:
        for first, stop, message in (
            (-1, 1, "`first` -1: expected 0 or more"),
            (2, 1, "`stop` 1: expected 2 or more"),
            (0, 2**60 + 1, f"`stop` {2**60 + 1}: expected at most {2**60}"),
        ):
            with pytest.raises(ArgumentError, match=message):
                loader.steps(first, stop)


# ---- resuming


@pytest.mark.parametrize("taken", range(10))
def test_a_state_resumes_exactly_after_every_batch(data: Shards, expected: list[Bytes], taken: int) -> None:
    with make(data) as loader:
        before = [batch for epoch in range(3) for batch in contents(islice(loader, max(0, taken - 4 * epoch)))]
        state = json.loads(json.dumps(loader.state_dict()))
    assert before == expected[:taken]
    assert pickle.loads(pickle.dumps(state)) == state
    with make(data) as other:
        other.load_state_dict(state)
        rest = [contents(other) for _ in range(3)]
    assert [len(epoch) for epoch in rest] == [4 - taken % 4, 4, 4]
    assert [batch for epoch in rest for batch in epoch][: 12 - taken] == expected[taken:]


def test_a_state_counts_consumed_batches_not_prefetched_ones(data: Shards, expected: list[Bytes]) -> None:
    with make(data, workers=2, prefetch=8) as loader:
        for number, _ in enumerate(loader):
            if number == 2:
                break
        state = loader.state_dict()
        assert state["step"] == 3
        assert contents(loader) == expected[3:4]  # the rest of the epoch, after the break
        assert contents(loader) == expected[4:8]
    with make(data, workers=1) as other:
        other.load_state_dict(state)
        assert contents(other) == expected[3:4]
        assert other.state_dict() == {**state, "step": 4}


def test_iteration_continues_after_steps(data: Shards, expected: list[Bytes]) -> None:
    with make(data, workers=1) as loader:
        assert contents(loader.steps(5, 11)) == expected[5:11]
        assert not workers()  # they have no more work
        assert contents(loader) == expected[11:12]
        assert contents(loader.steps(7, 7)) == []
        assert contents(loader) == expected[7:8]


def test_a_state_resumes_within_a_step_of_several_micro_batches(data: Shards, expected: list[Bytes]) -> None:
    joined = [b"".join(pair) for pair in ((hr,) for hr, _ in expected)]
    with make(data, batch_size=2, micro_batches=4) as loader:
        assert len(loader) == 16 and loader.patches_per_step == 8
        found = [hr for hr, _ in contents(islice(loader, 6))]
        state = loader.state_dict()
    assert (state["step"], state["micro_batch"]) == (1, 2)
    with make(data, batch_size=2, micro_batches=4) as other:
        other.load_state_dict(state)
        found += [hr for hr, _ in contents(other)]
    assert [b"".join(found[first : first + 4]) for first in range(0, 16, 4)] == joined[:4]
    with pytest.raises(ValueError, match="the middle of a step") as error:
        make(data, batch_size=8).load_state_dict(state)
    assert "`micro_batches` 4, not 1; save it between steps" in str(error.value)


# ---- several processes


def test_states_resume_with_another_number_of_ranks(data: Shards, expected: list[Bytes]) -> None:
    def steps_of(ranks: int, state: Any = None) -> tuple[list[Bytes], Any]:
        loaders = [make(data, batch_size=BATCH // ranks, rank=rank, world_size=ranks) for rank in range(ranks)]
        for loader in loaders:
            if state:
                loader.load_state_dict(state)
        parts = [contents(islice(loader, 3)) for loader in loaders]
        joined = [
            (b"".join(hr for hr, _ in step), b"".join(small for _, small in step)) for step in zip(*parts, strict=True)
        ]
        states = [loader.state_dict() for loader in loaders]
        assert states == [states[0]] * ranks
        return joined, states[0]

    first, state = steps_of(2)
    assert first == expected[:3]
    rest, state = steps_of(4, state)
    assert rest == expected[3:4]
    assert steps_of(1, state)[0] == expected[4:7]


def run_script(tmp_path: Path, text: str, *args: object) -> "subprocess.CompletedProcess[str]":
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(script), *map(str, args)], capture_output=True, text=True, timeout=2 * TIMEOUT_S
    )


PROCESS_GROUP_SCRIPT = """
    import json, os, sys
    import torch.distributed as dist
    import srshards
    if __name__ == "__main__":
        folder, rendezvous = sys.argv[1:]
        child = os.fork()  # one import for both ranks
        rank = 0 if child else 1
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
        with srshards.PatchLoader(srshards.open(folder), 24, 4, workers=0) as loader:
            assert loader.world_size == 2 and loader.patches_per_step == 8
            batches = [batch.hr.numpy().tobytes().hex() for _ in range(2) for batch in loader]
            state = loader.state_dict()
        states = [None, None]
        dist.all_gather_object(states, state)
        assert states[0] == states[1]
        with open(f"{rendezvous}-{rank}.json", "w") as file:
            json.dump({"batches": batches, "state": state}, file)
        dist.destroy_process_group()
        if child:
            assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_ranks_of_a_process_group_share_the_steps(data: Shards, expected: list[Bytes], tmp_path: Path) -> None:
    result = run_script(tmp_path, PROCESS_GROUP_SCRIPT, data.path, tmp_path / "group")
    assert result.returncode == 0, result.stderr
    found = [json.loads((tmp_path / f"group-{rank}.json").read_text()) for rank in range(2)]
    assert [bytes.fromhex("".join(step)) for step in zip(*(each["batches"] for each in found), strict=True)] == [
        hr for hr, _ in expected[:8]
    ]
    with make(data) as alone:
        alone.load_state_dict(found[0]["state"])
        assert contents(alone) == expected[8:12]


def test_one_process_per_machine_fetches_shards(data: Shards, tmp_path: Path) -> None:
    cached = srshards.open(data.path, cache=tmp_path, cache_bytes=10**9)
    kinds = []
    for local_rank in (0, 1):
        loader = make(cached, rank=2 + local_rank, world_size=4, local_rank=local_rank, local_world_size=2)
        kinds.append(type(loader._sources.source(0, 1)))
    assert kinds == [PrefetchedBatches, WorkerBatches]


def test_local_ranks_come_from_the_environment_of_torchrun(data: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"is_initialized": True, "get_rank": 5, "get_world_size": 8}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(patch_loader, "available_cpus", lambda: 12)
    loader = PatchLoader(data, PATCH_PX, BATCH)
    assert (loader._sources.ranks.local_rank, loader.workers, loader.world_size) == (1, 3, 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert PatchLoader(data, PATCH_PX, BATCH).workers == 1  # all eight ranks are assumed to be on this machine
    assert PatchLoader(data, PATCH_PX, BATCH, rank=0, world_size=1).workers == 12


# ---- states that are refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 32}, "`patch_size` 24, not 32"),
        ({"batch_size": 4}, "`patches_per_step` 8, not 4"),
        ({"seed": 1, "input": "up"}, "`input` lr, not up, `seed` 0, not 1"),
        ({"augment": False}, "`augment` True, not False"),
        ({"patches_per_sample": 2}, "`patches_per_sample` 1, not 2"),
    ],
)
def test_a_state_of_other_batches_is_refused(data: Shards, arguments: dict[str, Any], message: str) -> None:
    state = make(data).state_dict()
    with pytest.raises(ValueError) as error:
        make(data, **arguments).load_state_dict(state)
    assert str(error.value) == f"this state is for different batches: {message}"


def test_a_state_of_other_shards_is_refused(data: Shards) -> None:
    fewer = with_shards(data, data.train.records[:1])
    with pytest.raises(ValueError, match=r"different batches: different `shards`$"):
        make(data, batch_size=1).load_state_dict(make(fewer, batch_size=1).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: None, "expected the state_dict"),
        (lambda state: [1], "expected the state_dict"),
        (lambda state: {}, "expected the state_dict"),
        (lambda state: {**state, "step": "1"}, "expected the state_dict"),
        (lambda state: {**state, "step": True}, "expected the state_dict"),
        (lambda state: {**state, "step": -1}, "not a valid position of a PatchLoader"),
        (lambda state: {**state, "step": 2**63}, "not a valid position of a PatchLoader"),
        (lambda state: {**state, "micro_batch": 1}, "not a valid position of a PatchLoader"),
        (lambda state: {**state, "version": 2}, "expected a state of version 1, found version 2"),
    ],
)
def test_an_invalid_state_is_refused(data: Shards, change: Callable[[Any], Any], message: str) -> None:
    loader = make(data)
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict(change(loader.state_dict()))


def test_a_state_is_refused_after_the_first_batch(data: Shards) -> None:
    with make(data) as loader:
        state = loader.state_dict()
        next(iter(loader))
        with pytest.raises(RuntimeError, match="batches were already taken; create a new PatchLoader"):
            loader.load_state_dict(state)


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 25}, "`patch_size` 25 is not divisible by the scale 2; try 24 or 26"),
        ({"patch_size": 1}, "`patch_size` 1 is not divisible by the scale 2; try 2"),
        ({"patch_size": 66}, "`patch_size` 66: the stored HR images have 64 px"),
        ({"patch_size": 0}, "`patch_size` 0: expected 1 or more"),
        ({"patch_size": 24.0}, "`patch_size` 24.0: expected an integer"),
        ({"batch_size": 0}, "`batch_size` 0: expected 1 or more"),
        ({"batch_size": 10**12}, "`batch_size` 1000000000000: a batch exceeds this machine's memory; try"),
        ({"workers": -1}, "`workers` -1: expected 0 or more"),
        ({"prefetch": 0}, "`prefetch` 0: expected 1 or more"),
        ({"prefetch": 65}, "`prefetch` 65: expected at most 64"),
        ({"micro_batches": 0}, "`micro_batches` 0: expected 1 or more"),
        ({"patches_per_sample": 0}, "`patches_per_sample` 0: expected 1 or more"),
        ({"seed": -1}, "`seed` -1: expected 0 or more"),
        ({"input": "hr"}, "`input` 'hr': expected 'lr' or 'up'"),
        ({"device": "gpu"}, "`device` 'gpu': expected cpu, cuda, cuda:N or mps"),
        ({"device": "meta"}, "`device` 'meta': expected cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "`device` 'cuda:99': this machine has "),
        ({"rank": 2, "world_size": 2}, "`rank` 2: expected less than the `world_size` 2"),
        ({"rank": -1, "world_size": 2}, "`rank` -1: expected 0 or more"),
        ({"rank": 0}, "`rank` and `world_size`: expected both or neither"),
        ({"world_size": 0, "rank": 0}, "`world_size` 0: expected 1 or more"),
        ({"local_rank": 1}, "`local_rank` and `local_world_size`: expected both or neither"),
        ({"local_rank": 1, "local_world_size": 1}, "`local_rank` 1: expected less than the `local_world_size` 1"),
        ({"local_rank": 0, "local_world_size": 2}, "`local_world_size` 2: expected at most the `world_size` 1"),
    ],
)
def test_invalid_arguments_are_refused(data: Shards, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make(data, **arguments)
    assert str(error.value).startswith(message)


def test_shards_without_training_samples_are_refused(data: Shards) -> None:
    with pytest.raises(ValueError, match=r"`shards`: expected the result of srshards.open, found 'shards/scale_2x'"):
        PatchLoader("shards/scale_2x", PATCH_PX, BATCH)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no training samples"):
        make(with_shards(data, data.val.records))


def test_too_little_memory_is_reported_before_allocation(data: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 2_000_000)
    make(data)
    with pytest.raises(ArgumentError) as error:
        make(data, workers=8, prefetch=64)
    assert str(error.value) == (
        "`workers` 8 and `prefetch` 64 need 9.4 MB of memory for batches, but 2.0 MB are free, and training needs "
        "some; use fewer `workers`, or a smaller `prefetch`, `batch_size`, `micro_batches` or `patches_per_sample`"
    )
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 500_000)
    with pytest.raises(
        ArgumentError, match=r"`resident`: the images of 39 samples take [\d.]+ kB, but cpu has 500.0 kB free"
    ):
        make(data, resident=True)


def test_a_cache_that_is_too_small_is_reported(data: Shards, tmp_path: Path) -> None:
    loader = make(srshards.open(data.path, cache=tmp_path, cache_bytes=1000))
    with pytest.raises(ArgumentError, match=r"is limited to 1.0 kB, but the shards needed at the same time take"):
        next(iter(loader))


# ---- misuse


def test_a_closed_loader_refuses_use(data: Shards, expected: list[Bytes]) -> None:
    loader = make(data, workers=1)
    batches = iter(loader)
    batch = next(batches)
    loader.close()
    loader.close()
    assert not workers()
    assert contents([batch]) == expected[:1]
    for use in (lambda: next(batches), lambda: iter(loader), lambda: loader.steps(0, 1)):
        with pytest.raises(RuntimeError, match="this PatchLoader is closed"):
            use()
    assert loader.state_dict()["step"] == 1  # still readable after close()


def test_a_new_iterator_invalidates_the_previous_one(data: Shards, expected: list[Bytes]) -> None:
    with make(data) as loader:
        previous, newer = iter(loader), iter(loader)
        assert contents(islice(newer, 2)) == expected[:2]
        with pytest.raises(RuntimeError, match="this PatchLoader has a newer iterator"):
            next(previous)
        assert contents(newer) == expected[2:4]
        with pytest.raises(RuntimeError, match="a newer iterator"):
            for _ in zip(loader, loader, strict=True):
                pass


def test_use_in_a_forked_process_is_refused_and_harmless(data: Shards, expected: list[Bytes]) -> None:
    with make(data, workers=1) as loader:
        batches = iter(loader)
        found = contents(islice(batches, 1))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                next(batches)
            except RuntimeError as error:
                os.write(writing, str(error).encode())
            loader.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert b"cannot be used in the forked process %d; create one in each process" % child in os.read(reading, 1000)
        assert found + contents(batches) == expected[:4]
        os.close(reading), os.close(writing)


def test_iteration_can_restart_after_a_worker_was_killed(data: Shards, expected: list[Bytes]) -> None:
    patches = [
        hr[first : first + len(hr) // BATCH] for hr, _ in expected for first in range(0, len(hr), len(hr) // BATCH)
    ]
    with make(data, workers=2, batch_size=1, prefetch=1) as loader:
        with pytest.raises(WorkerDiedError, match=r"a data worker died .*use fewer `workers` or a smaller"):
            for _ in loader:
                for worker in workers():
                    worker.kill()
        assert not workers()
        step = int(loader.state_dict()["step"])
        assert 1 <= step < len(loader)
        assert [hr for hr, _ in contents(loader)] == patches[step : len(loader)]


@pytest.mark.parametrize(
    ("codec", "kind", "message"),
    [
        ("npy", RunError, r"train-00000\d\.tar was truncated while it was being read.*verify .* --fix`"),
        (
            "png",
            WorkerDiedError,
            r"a data worker died: a shard was truncated while it was being read.*verify .* --fix`",
        ),
    ],
)
def test_a_shard_truncated_while_it_is_read_is_named_as_the_cause(
    codec: str, kind: type[RunError], message: str, photos: Path, tmp_path: Path
) -> None:
    """The compiled core notices which shard; for others, only that a worker died."""
    generate(photos, tmp_path, "-s", 2, "--codec", codec)
    folder = tmp_path / "scale_2x"
    with make(srshards.open(folder), workers=1, prefetch=1) as loader:
        batches = loader.steps(0, 1000)
        for _ in range(len(loader) + 1):  # the worker has mapped every shard
            next(batches)
        for tar in folder.glob("*.tar"):
            os.truncate(tar, 0)
        with pytest.raises(kind, match=message):
            for _ in batches:
                pass


def test_an_unreferenced_loader_stops_its_workers(data: Shards) -> None:
    loader = make(data, workers=2)
    kept = next(iter(loader))
    wait_until(lambda: len(workers()) == 2)  # the second may not have set its name yet
    del loader
    assert not workers()
    assert kept.hr.shape[0] == BATCH


UNGUARDED_SCRIPT = """
    import sys
    import srshards
    for batch in srshards.PatchLoader(srshards.open(sys.argv[1]), 24, 8, workers=1):
        print("a batch")
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_file", [True, False])
def test_workers_do_not_import_the_main_program(is_file: bool, data: Shards, tmp_path: Path) -> None:
    """A program needs no main guard, and may be read from stdin."""
    if is_file:
        result = run_script(tmp_path, UNGUARDED_SCRIPT, data.path)
    else:
        program = textwrap.dedent(UNGUARDED_SCRIPT).replace("sys.argv[1]", repr(str(data.path)))
        result = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a batch\n" * 4, "")


THREADS_SCRIPT = """
    import os, signal, sys, threading
    import srshards
    def loop(workers, times):
        for _ in range(times):
            with srshards.PatchLoader(srshards.open(sys.argv[1]), 24, 8, workers=workers) as loader:
                all_ready.wait()
                found.append(sum(1 for _ in loader))
    def in_threads(count, *args):
        global found, all_ready
        found, all_ready = [], threading.Barrier(count, timeout=60)
        threads = [threading.Thread(target=loop, args=args) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found
    if __name__ == "__main__":
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers, environment = [signal.getsignal(number) for number in numbers], dict(os.environ)
        assert in_threads(1, 2, 1) == [4]
        assert [signal.getsignal(number) for number in numbers] == handlers
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert in_threads(4, 1, 3) == [4] * 12, found
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        assert all(os.environ.get(name) == environment.get(name) for name in names)
"""


@pytest.mark.slow
def test_loaders_in_threads_leave_signals_and_environment_unchanged(data: Shards, tmp_path: Path) -> None:
    result = run_script(tmp_path, THREADS_SCRIPT, data.path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


CHILD_SCRIPT = """
    import multiprocessing, os, signal, sys
    import srshards
    def use():
        with srshards.PatchLoader(srshards.open(sys.argv[1]), 24, 8, workers=1) as loader:
            print(sum(1 for _ in loader), flush=True)
    def report(ready):
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        print([signal.getsignal(number) == signal.SIG_IGN for number in numbers], os.environ.get("MKL_NUM_THREADS"))
        sys.stdout.flush()
        ready.set()
        signal.pause()
    if __name__ == "__main__":
        with srshards.PatchLoader(srshards.open(sys.argv[1]), 24, 8, workers=1) as loader:
            batches = iter(loader)
            next(batches)
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                child = context.Process(target=use)
                child.start()
                child.join()
            print(1 + sum(1 for _ in batches))
        ready = context.Event()
        child = context.Process(target=report, args=(ready,))
        child.start()
        ready.wait()
        child.terminate()
        child.join()
        print(child.exitcode)
"""


@pytest.mark.slow
def test_child_processes_can_have_their_own_loaders_and_inherit_nothing(
    data: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ignored signals and no settings reach the fork server of the user."""
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    result = run_script(tmp_path, CHILD_SCRIPT, data.path)
    expected = "4\n4\n4\n4\n[False, False, False] None\n-15\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")


def test_workers_are_refused_in_a_daemonic_process(data: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with make(data, workers=1) as loader, pytest.raises(RuntimeError, match=r"daemonic process.*pass `workers` 0"):
        next(iter(loader))
