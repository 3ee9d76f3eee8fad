"""Faults during training: damaged data, signals, dead workers, full disks. Runs end with a message and can resume."""

import contextlib
import functools
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from helpers import (
    SMALL,
    TIMEOUT_S,
    all_files,
    close_terminal_when,
    events,
    generate,
    journal,
    make_photo,
    overwrite,
    run_cli,
    trainer,
    trainer_command,
    wait_until,
    weights,
)
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srshards.errors import UsageError
from srshards.sampling.schedule import Schedule
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from tests.drill import commands
from tests.drill.commands import Result
from tests.drill.warm import Warm, run_warm
from trainer.models.weights import read_weights, save_weights
from trainer.runs.lookup import run_folder
from trainer.training.learner import Learner
from trainer.training.loop import TrainingLoop
from trainer.training.validation import Validation

pytestmark = pytest.mark.slow

LONG = ("--steps", 5000, "--val-every", 2)
TINY = (*SMALL, "--patch-size", 16, "--patches-per-sample", 1)
Step = Callable[..., torch.Tensor]


def saved_step(run: Path) -> int:
    """Return the step of the saved state, whose weights must be finite."""
    state = torch.load(run / "state.pt", weights_only=True)
    for name in ("params", "params_ema"):
        assert all(bool(tensor.isfinite().all()) for tensor in (state[name] or {}).values()), name
    return int(state["progress"]["step"])


def on_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[Learner], object]) -> None:
    """Call `act` at the end of the `number`-th step of a run."""
    real = Learner.step

    def step(learner: Learner, index: int, batches: Iterator[Any]) -> torch.Tensor:
        loss = real(learner, index, batches)
        if index + 1 == number:
            act(learner)
        return loss

    monkeypatch.setattr(Learner, "step", step)


def on_validation(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Call `act` at the start of the `number`-th validation of a run."""
    real, count = Validation.run, itertools.count(1)

    def run(*args: Any) -> Any:
        if next(count) == number:
            act()
        return real(*args)

    monkeypatch.setattr(Validation, "run", run)


# ---- damaged samples


@pytest.fixture(scope="module")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,110 photos of 16 px, so that one damaged sample is less than 0.1 %."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(1110):
        Image.fromarray(make_photo(16, 16, number)).save(folder / f"{number}.png", compress_level=0)
    return folder


@pytest.fixture(scope="module", params=["png", "npy"])
def tiny_shards(request: pytest.FixtureRequest, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    generate(tiny_photos, root, "-s", 2, "--size", 16, "--codec", request.param)
    return root / "scale_2x"


@pytest.fixture
def tiny_copy(tiny_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_shards, tmp_path / "copy"))


@pytest.fixture
def shards_copy(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "copy"))


def samples_of_step(folder: Path, batch: int, step: int) -> list[int]:
    """Return the sample numbers of the `step`-th step of a run with seed 0."""
    train = open_shards(folder).train.records
    schedule = Schedule([r.samples for r in train], [r.bytes for r in train], 0, batch)
    return [int(number) for number in schedule.batch(step - 1).numbers]


def spoil(folder: Path, number: int, image: str = "hr") -> str:
    """Overwrite the first bytes of an image of a training sample. Return its shard and name."""
    for record in open_shards(folder).train.records:
        if number < record.samples:
            break
        number -= record.samples
    tar = folder / f"{record.name}.tar"
    sample = load_index(tar.with_suffix(".idx"))[number]
    member = next(member for member in sample if member.extension.startswith(image))
    overwrite(tar, member.offset, bytes(20))
    return f"{tar.name}: {member.name}"


def test_a_damaged_sample_is_replaced_and_logged(tiny_copy: Path, tmp_path: Path) -> None:
    name = spoil(tiny_copy, samples_of_step(tiny_copy, 4, 3)[2])
    result = trainer("--shards", tiny_copy, "--out", tmp_path, *TINY, "--steps", 6, "--run", "r")
    assert result.code == 0, result.err
    assert (
        result.err.count(f"Damaged sample replaced by another one: {name}: expected 16 x 16 x 3, found damaged data")
        == 1
    )
    (entry,) = events(tmp_path / "r", "damaged")
    assert entry["step"] == 3 and name in entry["reason"]


def test_a_damaged_sample_in_a_batch_of_one_is_replaced(tiny_copy: Path, tmp_path: Path) -> None:
    """A batch of one has no other sample to use instead."""
    name = spoil(tiny_copy, samples_of_step(tiny_copy, 1, 3)[0])
    result = trainer("--shards", tiny_copy, "--out", tmp_path, *TINY, "--batch-size", 1, "--steps", 6, "--run", "r")
    assert result.code == 0, result.err
    assert name in result.err and saved_step(tmp_path / "r") == 6


def test_too_many_damaged_samples_stop_the_run(tiny_copy: Path, tmp_path: Path) -> None:
    names = [spoil(tiny_copy, samples_of_step(tiny_copy, 4, step)[0], image) for step, image in ((2, "hr"), (5, "lr"))]
    result = trainer("--shards", tiny_copy, "--out", tmp_path, *TINY, "--steps", 9, "--val-every", 1, "--run", "r")
    assert result.code == 1
    assert all(f"replaced by another one: {name}" in result.err for name in names)
    assert "Error: 2 of 1,0" in result.err and "samples are damaged, more than 0.1%: " in result.err
    assert (
        f"run `python -m shardgen verify {tiny_copy} --fix`, then the same `generate` or `pack` command again"
        in result.err
    )
    assert len(events(tmp_path / "r", "damaged")) == 2 and len(events(tmp_path / "r", "error")) == 1
    assert saved_step(tmp_path / "r") == 4


def test_damaged_samples_are_counted_across_resumes(
    tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (spoil(tiny_copy, samples_of_step(tiny_copy, 4, step)[0]) for step in (2, 5))
    with monkeypatch.context() as patch:
        on_step(patch, 3, terminate)
        result = trainer("--shards", tiny_copy, "--out", tmp_path, *TINY, "--steps", 9, "--run", "r")
    assert result.code == 143 and f"replaced by another one: {first}" in result.err, result.err
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 1 and first not in result.err
    assert "Error: 2 of 1,0" in result.err and f"samples are damaged, more than 0.1%: {second}" in result.err


def test_a_run_resumes_after_its_shards_were_repaired(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "shards", "-s", 2)
    folder = tmp_path / "shards" / "scale_2x"
    args = ("--shards", folder, "--out", tmp_path, *SMALL, "--steps", 9, "--val-every", 2)
    assert trainer(*args, "--run", "sound").code == 0
    name = spoil(folder, samples_of_step(folder, 4, 7)[3])
    result = trainer(*args, "--run", "r")
    assert result.code == 1 and f"Error: 1 of 39 samples are damaged, more than 0.1%: {name}" in result.err
    assert saved_step(tmp_path / "r") == 6
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 1, "still damaged"
    assert run_cli("verify", folder, "--fix").returncode == 1
    assert "generation did not finish" in trainer("--out", tmp_path, "--run", "r", "--resume").err
    generate(photos, tmp_path / "shards", "-s", 2)
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 0 and "resumed at step 6" in result.err
    assert events(tmp_path / "r", "train", "val") == journal(tmp_path / "sound")
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_a_damaged_validation_image_does_not_lose_the_state(shards_copy: Path, tmp_path: Path) -> None:
    member = load_index(shards_copy / "val-000000.idx")[0][0]
    overwrite(shards_copy / "val-000000.tar", member.offset, bytes(20))
    result = trainer("--shards", shards_copy, "--out", tmp_path, *SMALL, "--steps", 3, "--run", "r")
    assert result.code == 1 and f"{member.name}: expected 64 x 64 x 3" in result.err and "--fix`" in result.err
    assert saved_step(tmp_path / "r") == 3


def missing_line(index: Path) -> None:
    index.write_text("\n".join(index.read_text().splitlines()[:-1]) + "\n")


def empty(index: Path) -> None:
    index.write_bytes(b"")


def one_sample_fewer(index: Path) -> None:
    header, *lines = index.read_text().splitlines()
    version, count = header.split()
    index.write_text("\n".join([f"{version} {int(count) - 1}", *lines[:-1], ""]))


@pytest.mark.parametrize("damage", [missing_line, empty, one_sample_fewer])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_index_is_reported(
    damage: Callable[[Path], None], split: str, shards_copy: Path, tmp_path: Path
) -> None:
    damage(shards_copy / f"{split}-000000.idx")
    result = trainer("--shards", shards_copy, "--out", tmp_path, *SMALL, "--steps", 12)
    assert result.code in (1, 2)
    assert f"{split}-000000.idx" in result.err and f"shardgen verify {shards_copy} --fix`" in result.err


# ---- non-finite losses


def poison(learner: Learner) -> None:
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.fill_(float("nan"))


def test_a_non_finite_loss_stops_the_run_and_keeps_the_state(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--val-every", 2)
    assert trainer(*args, "--run", "sound").code == 0
    with monkeypatch.context() as patch:
        on_step(patch, 5, poison)
        result = trainer(*args, "--run", "r")
    assert result.code == 1 and "the loss of step 6 is not finite (nan)" in result.err
    assert "--lr" in result.err, "advice"
    assert [line["message"] for line in events(tmp_path / "r", "error")] == [result.err.split("Error: ")[1].strip()]
    assert saved_step(tmp_path / "r") == 4
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_non_finite_final_weights_are_not_saved(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overflowing gradient can break the weights although the loss was finite. There is no validation here."""
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    on_step(monkeypatch, 4, poison)
    args = ("--shards", tmp_path / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 4, "--val-every", 2)
    result = trainer(*args, "--run", "r")
    assert result.code == 1 and "not finite" in result.err
    assert saved_step(tmp_path / "r") == 2


def test_too_large_initial_weights_are_detected_in_the_first_step(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 3)
    assert trainer(*args, "--run", "sound").code == 0
    huge = {name: tensor * 1e6 for name, tensor in read_weights(tmp_path / "sound" / "model.pth").items()}
    save_weights(tmp_path / "huge.pth", huge, None)
    for extra in ((), ("--clip", 0, "--lr", 0.99, "--warmup", 0, "--amp", "off")):
        result = trainer(*args, "--init", tmp_path / "huge.pth", *extra, "--run", f"r{len(extra)}")
        assert result.code == 1 and "the loss of step 1 is not finite" in result.err
        assert not (tmp_path / f"r{len(extra)}" / "state.pt").exists()


# ---- memory


def test_out_of_memory_suggests_half_the_batch(shards: Path, tmp_path: Path) -> None:
    limit = (resource.RLIMIT_AS, (1_600_000_000, 1_600_000_000))
    size = ("--model", "lite", "--batch-size", 512, "--patch-size", 64, "--steps", 2)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size)
    result = run_warm("trainer", *args, prepare=(resource.setrlimit, limit))
    assert result.code == 2, result.err
    assert "out of memory in step 1 on cpu; try --batch-size 256 --grad-accum 2" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        (("--batch-size", 4), "try --batch-size 2 --grad-accum 2"),
        (("--batch-size", 3, "--grad-accum", 4), "try --batch-size 1 --grad-accum 8"),
        (("--batch-size", 1), "try --patch-size 12, or a smaller --model"),
    ],
)
def test_out_of_memory_advice_depends_on_the_settings(
    size: tuple[object, ...], advice: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Learner, "_update", fail)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1)
    assert result.code == 2 and f"out of memory in step 1 on cpu; {advice}" in result.err


@pytest.mark.parametrize("batch", [10**13, 10**20])
def test_a_batch_larger_than_memory_is_refused(batch: int, shards: Path, tmp_path: Path) -> None:
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--batch-size", batch, "--steps", 1)
    assert result.code == 2 and "memory" in result.err and f"--batch-size {batch // 2}" in result.err


IN_MOUNT_NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]

SMALL_SHM = """
    import subprocess, sys
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"], check=True)
    sys.exit(subprocess.run([sys.executable, "-m", "trainer", *sys.argv[1:]]).returncode)
"""


def test_training_works_with_little_shared_memory(shards: Path, tmp_path: Path) -> None:
    """Docker provides 64 MB by default, too little for many data loaders."""
    size = ("--workers", 2, "--prefetch", 4, "--patch-size", 64, "--batch-size", 32)
    args = map(str, ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1))
    program = [*IN_MOUNT_NAMESPACE, sys.executable, "-c", textwrap.dedent(SMALL_SHM), *args]
    result = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert re.search(r"2 data workers, [45]\.\d MB shared memory", result.stderr)


def test_prefetched_batches_larger_than_memory_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 3_000_000)
    size = ("--workers", 2, "--prefetch", 60, "--patch-size", 64)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1)
    assert result.code == 2
    assert "--workers 2 and --prefetch 60 need " in result.err
    assert " MB of memory for batches, but 3.0 MB are free" in result.err
    assert (
        "use fewer --workers, or a smaller --prefetch, --batch-size, --grad-accum or --patches-per-sample" in result.err
    )


# ---- disks

FULL_DISK = """
    import multiprocessing, os, signal, subprocess, sys, time
    from pathlib import Path

    import trainer.commands.train  # once for both runs
    from trainer.cli import main

    def train(args, errors):
        os.setsid()
        os.dup2(errors, 2)
        main(args)

    def fill_during_training(disk, steps, val_every, args):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
        run = Path(disk) / "r"
        args = [*args, "--out", disk, "--run", "r", "--steps", steps, "--val-every", val_every]
        errors = open(f"{disk}_errors", "w+")
        process = multiprocessing.get_context("fork").Process(target=train, args=(args, errors.fileno()))
        process.start()
        path = run / ("state.pt" if val_every != steps else "journal.jsonl")
        while not path.exists() or not (run / "journal.jsonl").read_text().count("train"):
            assert process.is_alive(), Path(errors.name).read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGSTOP)
        before = path.read_bytes()
        with open(f"{disk}/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(1 << 12))
            except OSError:
                pass
        os.killpg(process.pid, signal.SIGCONT)
        process.join()
        print(Path(errors.name).read_text(), "exit", process.exitcode)
        print("unchanged", path.read_bytes() == before, "left", [str(path) for path in Path(disk).rglob("*.tmp")])
        Path(f"{disk}/filler").unlink()
        subprocess.run(["cp", "-r", run, f"{disk}_copy"], check=True)

    for val_every in ("8", "80"):
        fill_during_training(f"{sys.argv[1]}/{val_every}", "80", val_every, sys.argv[2:])
        print("----", flush=True)
"""


def test_a_full_disk_stops_the_run_and_keeps_the_state(shards: Path, tmp_path: Path) -> None:
    """With few validations, the training log or TensorBoard fails first instead of the weights."""
    for val_every in (8, 80):
        (tmp_path / str(val_every)).mkdir()
    args = map(str, (tmp_path, "--shards", shards / "scale_2x", *SMALL))
    program = [*IN_MOUNT_NAMESPACE, sys.executable, "-c", textwrap.dedent(FULL_DISK), *args]
    result = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    frequent, rare, _ = result.stdout.split("----\n")
    for output in (frequent, rare):
        assert "Error: cannot write" in output and "No space left on device" in output
        assert "exit 1\n" in output and "Traceback" not in output and "left []" in output
    assert "unchanged True" in frequent
    assert saved_step(tmp_path / "8_copy") % 8 == 0


@pytest.mark.parametrize("where", ["out", "out/deeper"])
def test_a_file_as_output_folder_is_refused(where: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path / where, *SMALL, "--steps", 1)
    assert result.code in (1, 2)
    assert f"cannot write {tmp_path / where / 'ultra_lite-2x'}: Not a directory" in result.err


@pytest.mark.parametrize("name", ["journal.jsonl", "tensorboard", "previews", "model.pth"])
def test_unwritable_files_of_a_run_are_reported(name: str, shards: Path, tmp_path: Path) -> None:
    """A file instead of a folder or vice versa also stops root, who ignores permissions."""
    path = tmp_path / "r" / name
    path.parent.mkdir()
    if path.suffix:
        (path / "something").mkdir(parents=True)
    else:
        path.write_text("in the way")
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    assert result.code in (1, 2), result
    assert str(path) in result.err and "Error: " in result.err


@pytest.mark.parametrize("name", ["previews/step-000002.png", "best.pth"])
def test_a_validation_that_could_not_be_saved_is_repeated(name: str, shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 4, "--val-every", 2)
    assert trainer(*args, "--run", "sound").code == 0
    (tmp_path / "r" / name / "in the way").mkdir(parents=True)
    assert trainer(*args, "--run", "r").code == 1
    assert not (tmp_path / "r" / "state.pt").exists(), "a state that says that the validation is done"
    shutil.rmtree(tmp_path / "r" / name)
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert [path.name for path in sorted((tmp_path / "r" / "previews").iterdir())] == [
        "step-000002.png",
        "step-000004.png",
    ]
    assert [line["step"] for line in events(tmp_path / "r", "val")] == [2, 4]
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_temporary_files_of_a_killed_run_are_removed(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    assert trainer(*args).code == 0
    for left in (tmp_path / "r" / ".state.pt.1.tmp", tmp_path / "r" / "previews" / ".step-000001.png.1.tmp"):
        left.write_bytes(b"half")
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert not list(tmp_path.rglob("*.tmp"))


# ---- two processes


def hold_lock(run: Path, is_held: Event) -> None:
    with run_folder(run).locked():
        is_held.set()
        signal.pause()


def test_a_second_process_is_refused(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    fork = multiprocessing.get_context("fork")
    is_held = fork.Event()
    holder = fork.Process(target=hold_lock, args=(tmp_path / "r", is_held))
    holder.start()
    try:
        assert is_held.wait(TIMEOUT_S)
        result = trainer(*args)
        assert result.code == 2
        assert f"another process is training in {tmp_path / 'r'}; wait until it ends" in result.err
    finally:
        holder.kill()
        holder.join()
    assert trainer(*args).code == 0


# ---- stopping and resuming


@pytest.fixture(scope="module", params=["plain", "accumulated"])
def uninterrupted(
    request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[object, ...], Path]:
    """The arguments of a run of 12 steps with validations at 4, 8 and 12, and its folder without interruption."""
    out = tmp_path_factory.mktemp("uninterrupted")
    extra = () if request.param == "plain" else ("--grad-accum", 2, "--ema", 0)
    args = ("--shards", shards / "scale_2x", *SMALL, "--steps", 12, "--val-every", 4, *extra)
    assert trainer(*args, "--out", out, "--run", "r").code == 0
    return args, out / "r"


def terminate(*_: object) -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([("step", 1)], id="after the first step"),
        pytest.param([("step", 6)], id="between validations"),
        pytest.param([("step", 8)], id="exactly at a validation"),
        pytest.param([("validation", 2)], id="in a validation"),
        pytest.param([("step", 4), ("validation", 1), ("step", 5)], id="three times, twice at the same step"),
        pytest.param([("step", 3), ("step", 9)], id="twice"),
    ],
)
def test_stops_do_not_change_the_result(
    stops: list[tuple[str, int]],
    uninterrupted: tuple[tuple[object, ...], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args, run = uninterrupted
    for number, (what, when) in enumerate(stops):
        with monkeypatch.context() as patch:
            if what == "step":
                on_step(patch, when, terminate)
            else:
                on_validation(patch, when, terminate)
            result = trainer(*(args if number == 0 else ()), "--out", tmp_path, "--run", "r", *["--resume"][:number])
        assert result.code == 143, result.err
        assert f"everything is saved. Resume with: python -m trainer --out {tmp_path} --run r --resume" in result.err
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert journal(tmp_path / "r") == journal(run)
    assert weights(tmp_path / "r") == weights(run)


def test_a_stop_in_the_last_validation_can_be_resumed(
    uninterrupted: tuple[tuple[object, ...], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 would hide that the final weights were not validated."""
    args, run = uninterrupted
    with monkeypatch.context() as patch:
        on_validation(patch, 3, terminate)
        result = trainer(*args, "--out", tmp_path, "--run", "r")
    assert result.code == 143 and "--resume" in result.err, result
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert journal(tmp_path / "r") == journal(run)
    assert weights(tmp_path / "r") == weights(run)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM, signal.SIGINT), 143),
        ((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), 129),
        ((signal.SIGINT, signal.SIGTERM), 130),
    ],
)
def test_the_first_of_several_signals_decides_the_exit_code(
    numbers: tuple[signal.Signals, ...], code: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(learner: Learner) -> None:
        for number in numbers:
            signal.raise_signal(number)

    on_step(monkeypatch, 3, send)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--run", "r")
    assert result.code == code and "Stopped after step 3 of 9; everything is saved." in result.err, result.err


def test_a_second_interrupt_stops_a_long_step(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt_twice(learner: Learner) -> None:
        signal.raise_signal(signal.SIGINT)
        assert not (tmp_path / "r" / "model.pth").exists(), "the first one waits for the end of the step"
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one does not")

    on_step(monkeypatch, 3, interrupt_twice)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--run", "r")
    result = trainer(*args)
    assert result.code == 130 and result.err.rstrip().endswith("Interrupted.")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "handlers are restored"
    monkeypatch.undo()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0


# ---- signals to processes


Running = TypeVar("Running", Warm, "subprocess.Popen[str]")


@contextlib.contextmanager
def running(process: Running) -> Iterator[Running]:
    """Yield the leader of a process group, which must be empty at the end."""
    try:
        yield process
        wait_until(lambda: not group(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(program: str, *args: object) -> "subprocess.Popen[str]":
    """Start `python -m program` in a new process."""
    return commands.start(program, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait(process: Running) -> Result:
    return process.wait(TIMEOUT_S) if isinstance(process, Warm) else commands.wait(process, TIMEOUT_S)


def group(pid: int) -> list[psutil.Process]:
    """Return the living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_training(run: Path, process: Warm) -> bool:
    assert process.is_alive, process.wait()
    return has_trained(run)


def has_trained(run: Path) -> bool:
    path = run / "journal.jsonl"
    return path.exists() and '"train"' in path.read_text()


def long_run(shards: Path, out: Path) -> tuple[object, ...]:
    return ("--shards", shards / "scale_2x", "--out", out, *SMALL, "--workers", 2, *LONG, "--run", "r")


@pytest.mark.parametrize(
    ("number", "code", "starting"),
    [(signal.SIGINT, 130, Warm), (signal.SIGTERM, 143, start), (signal.SIGHUP, 129, Warm)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_to_the_whole_group_saves_and_stops(
    number: signal.Signals,
    code: int,
    starting: Callable[..., Any],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Terminals send SIGINT and SIGHUP to every process of the group; `timeout`, Slurm and systemd send SIGTERM."""
    run = tmp_path / "r"
    with running(starting("trainer", *long_run(shards, tmp_path))) as process:
        wait_until(lambda: has_trained(run) or process.poll() is not None)
        os.killpg(process.pid, number)
        result, _, stderr = wait(process)
    assert result == code, stderr
    assert "everything is saved" in stderr and not any(part in stderr for part in ("Traceback", "died", "leaked"))
    stopped = saved_step(run)
    assert 0 < stopped < 5000 and f"Stopped after step {stopped:,} of 5,000" in stderr
    assert not list(run.rglob("*.tmp"))
    on_step(monkeypatch, stopped + 3, terminate)
    (written,) = (run / "tensorboard").iterdir()  # TensorBoard orders files by the second of their start
    wait_until(lambda: time.time() >= int(written.name.split(".")[3]) + 1)
    assert trainer("--out", tmp_path, "--run", "r", "--resume", "--workers", 0).code == 143
    assert saved_step(run) == stopped + 3
    steps = [line["step"] for line in events(run, "train")]
    assert steps == sorted(set(steps)) and steps[-1] > stopped
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == steps
    assert [event.step for event in board.Scalars("val/psnr_y")] == [line["step"] for line in events(run, "val")]


def test_a_closed_terminal_saves_and_stops(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    command = trainer_command(*long_run(shards, tmp_path))
    assert close_terminal_when(command, functools.partial(has_trained, run)) == 129
    assert 0 < saved_step(run) < 5000 and not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_hangups_save_and_stop_unless_they_are_ignored(
    handler: signal.Handlers, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel and the shell send one each; nohup ignores both."""

    def hang_up_twice(_: Learner) -> None:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)

    signal.signal(signal.SIGHUP, handler)
    on_step(monkeypatch, 2, hang_up_twice)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 3, "--run", "r")
    is_ignored = handler is signal.SIG_IGN
    assert (result.code, saved_step(tmp_path / "r")) == ((0, 3) if is_ignored else (129, 2)), result.err
    assert ("Stopped after step 2 of 3; everything is saved. Resume with: " in result.err) is not is_ignored
    if not is_ignored:
        signal.raise_signal(signal.SIGHUP)  # arrives while the interpreter exits


def test_repeated_interrupts_print_no_traceback(shards: Path, tmp_path: Path) -> None:
    with running(start("trainer", *long_run(shards, tmp_path))) as process:
        wait_until(lambda: has_trained(tmp_path / "r"))

        def has_ended() -> bool:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            return process.poll() is not None

        wait_until(has_ended)
        _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "Exception ignored" not in stderr


def test_a_killed_worker_stops_the_run_and_all_processes(shards: Path, tmp_path: Path) -> None:
    with running(Warm("trainer", *long_run(shards, tmp_path))) as process:
        wait_until(lambda: is_training(tmp_path / "r", process))
        worker = next(child for child in group(process.pid) if child.name() == "srshards_worker")
        worker.kill()
        code, _, stderr = process.wait(TIMEOUT_S)  # long before the end of the run
    assert code == 1
    assert "Error: a data worker died" in stderr and "use fewer --workers or a smaller --prefetch" in stderr
    assert "Traceback" not in stderr
    assert len(events(tmp_path / "r", "error")) == 1


def test_an_interrupt_during_start_prints_no_traceback(shards: Path, tmp_path: Path) -> None:
    """PyTorch takes seconds to load, long enough to notice a mistake."""
    with running(start("trainer", *long_run(shards, tmp_path))) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "libtorch" in maps.read_text())
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "Interrupted" in stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--steps", 4), [1, 2, 3, 4]), (("--steps", 7, "--val-every", 5, "--save-every", 3), [3, 5, 6, 7])],
)
def test_saves_between_validations(
    options: tuple[object, ...], expected: list[int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.loop._SAVE_EVERY_S", 0.0)
    saved: list[int] = []
    real = TrainingLoop._save

    def save(loop: TrainingLoop) -> None:
        real(loop)
        loop._record.flush()
        saved.append(saved_step(tmp_path / "r"))

    monkeypatch.setattr(TrainingLoop, "_save", save)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--run", "r")
    assert trainer(*args, *options).code == 0
    assert saved == expected
    assert "--save-every 0: expected 1 or more" in trainer(*args, "--save-every", 0).err


# ---- compiler


# PyTorch reads the variable CXX only when it is imported.
WITHOUT_COMPILER = "from torch._inductor import config; config.cpp.cxx = (None, '/nonexistent')"


def test_compile_without_a_compiler_is_refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--step", "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    result = run_warm("trainer", *args, prepare=(exec, (WITHOUT_COMPILER,)))
    assert result.code == 2, result.err
    assert "the step cannot be compiled (" in result.err and "); pass --step eager" in result.err
    assert "Traceback" not in result.err


# ---- failed starts


@pytest.mark.parametrize("name", [None, "r"])
def test_a_run_that_fails_before_its_first_step_leaves_no_files(
    name: str | None, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *SMALL, "--steps", 2)
    assert trainer(*args).code == 0
    (tmp_path / "runs" / "r").mkdir()
    (tmp_path / "runs" / "r" / "notes").write_text("mine")
    before = all_files(tmp_path)

    def fail(*_: Any) -> torch.Tensor:
        raise UsageError("no such step")

    monkeypatch.setattr(Learner, "step", fail)
    result = trainer(*args, *(("--run", name) if name else ()))
    assert result.code == 2 and "Error: no such step" in result.err
    assert all_files(tmp_path) - {"runs/r/.lock"} == before
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["r", "ultra_lite-2x"]
