"""Bad luck while training: damage, signals, dead workers, full disks. It ends with a message, and nothing is lost."""

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
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from helpers import (
    PATIENCE_S,
    SMALL,
    all_files,
    close_terminal_under,
    events,
    generate,
    journal,
    make_photo,
    overwrite,
    run_cli,
    run_trainer,
    trainer,
    trainer_command,
    until,
    weights,
)
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srshards.errors import UsageError
from srshards.sampling.schedule import Schedule
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from tests.drill.warm import Warm
from trainer.models.weights import read_weights, save_weights
from trainer.runs.lookup import run_folder
from trainer.training.learner import Learner
from trainer.training.loop import TrainingLoop
from trainer.training.validation import Validation

LONG = ("--steps", 5000, "--val-every", 2)
TINY = (*SMALL, "--patch-size", 16, "--patches-per-sample", 1)
Step = Callable[..., torch.Tensor]


def saved_step(run: Path) -> int:
    """The step of a state that can be read and holds finite numbers only."""
    state = torch.load(run / "state.pt", weights_only=True)
    for name in ("params", "params_ema"):
        assert all(bool(tensor.isfinite().all()) for tensor in (state[name] or {}).values()), name
    return int(state["progress"]["step"])


def on_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[Learner], object]) -> None:
    """Let something happen at the end of a run's `number`-th step."""
    real = Learner.step

    def step(learner: Learner, index: int, batches: Iterator[Any]) -> torch.Tensor:
        loss = real(learner, index, batches)
        if index + 1 == number:
            act(learner)
        return loss

    monkeypatch.setattr(Learner, "step", step)


def on_validation(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Let something happen at the beginning of the `number`-th validation."""
    real, count = Validation.run, itertools.count(1)

    def run(*args: Any) -> Any:
        if next(count) == number:
            act()
        return real(*args)

    monkeypatch.setattr(Validation, "run", run)


# ---- damaged samples


@pytest.fixture(scope="module")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,110 photos of 16 px: one damaged sample is less than 0.1 % of them."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(1110):
        Image.fromarray(make_photo(16, 16, number)).save(folder / f"{number}.png", compress_level=0)
    return folder


@pytest.fixture(scope="module", params=["png", "npy"])
def many(request: pytest.FixtureRequest, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `tiny_photos`."""
    root = tmp_path_factory.mktemp("many")
    generate(tiny_photos, root, "-s", 2, "--size", 16, "--codec", request.param)
    return root / "scale_2x"


def drawn(folder: Path, batch: int, step: int) -> list[int]:
    """The numbers of the samples of a step that is the `step`-th of the run, with seed 0."""
    train = open_shards(folder).train.records
    schedule = Schedule([r.samples for r in train], [r.bytes for r in train], 0, batch)
    return [int(number) for number in schedule.batch(step - 1).numbers]


def spoil(folder: Path, number: int, image: str = "hr") -> str:
    """Overwrite the first bytes of an image of a training sample, and return the image's name."""
    for record in open_shards(folder).train.records:
        if number < record.samples:
            break
        number -= record.samples
    tar = folder / f"{record.name}.tar"
    sample = load_index(tar.with_suffix(".idx"))[number]
    member = next(member for member in sample if member.extension.startswith(image))
    overwrite(tar, member.offset, bytes(20))
    return f"{tar.name}: {member.name}"


def test_a_damaged_sample_is_named_counted_and_skipped(many: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(many, tmp_path / "mine"))
    name = spoil(mine, drawn(mine, 4, 3)[2])
    done = trainer("--shards", mine, "--out", tmp_path, *TINY, "--steps", 6, "--run", "r")
    assert done.code == 0, done.err
    assert done.err.count(f"Damaged sample replaced by another one: {name}: expected 16x16x3 px, found other") == 1
    (noted,) = events(tmp_path / "r", "damaged")
    assert noted["step"] == 3 and name in noted["reason"]


def test_a_damaged_sample_of_a_batch_of_one_is_skipped_too(many: Path, tmp_path: Path) -> None:
    """--batch-size 1 is where the advice for too little memory ends: there is no other sample in such a batch."""
    mine = Path(shutil.copytree(many, tmp_path / "mine"))
    name = spoil(mine, drawn(mine, 1, 3)[0])
    done = trainer("--shards", mine, "--out", tmp_path, *TINY, "--batch-size", 1, "--steps", 6, "--run", "r")
    assert done.code == 0, done.err
    assert name in done.err and saved_step(tmp_path / "r") == 6


def test_too_many_damaged_samples_end_the_run(many: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(many, tmp_path / "mine"))
    names = [spoil(mine, drawn(mine, 4, step)[0], image) for step, image in ((2, "hr"), (5, "lr"))]
    done = trainer("--shards", mine, "--out", tmp_path, *TINY, "--steps", 9, "--val-every", 1, "--run", "r")
    assert done.code == 1
    assert all(f"replaced by another one: {name}" in done.err for name in names)
    assert "Error: 2 of 1,0" in done.err and "samples are damaged, more than 0.1%: " in done.err
    assert (
        f"run `python -m shardgen verify {mine} --fix`, then the same `python -m shardgen generate` command again"
        in done.err
    )
    assert len(events(tmp_path / "r", "damaged")) == 2 and len(events(tmp_path / "r", "error")) == 1
    assert saved_step(tmp_path / "r") == 4


def test_damaged_samples_are_counted_across_resumes(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(many, tmp_path / "mine"))
    first, second = (spoil(mine, drawn(mine, 4, step)[0]) for step in (2, 5))
    with monkeypatch.context() as patch:
        on_step(patch, 3, terminate)
        done = trainer("--shards", mine, "--out", tmp_path, *TINY, "--steps", 9, "--run", "r")
    assert done.code == 143 and f"takes its place: {first}" in done.err, done.err
    done = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert done.code == 1 and first not in done.err
    assert "Error: 2 of 1,0" in done.err and f"samples are damaged, more than 0.1%: {second}" in done.err


def test_a_repaired_folder_is_gone_on_with(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "shards", "-s", 2)
    folder = tmp_path / "shards" / "scale_2x"
    words = ("--shards", folder, "--out", tmp_path, *SMALL, "--steps", 9, "--val-every", 2)
    assert trainer(*words, "--run", "sound").code == 0
    name = spoil(folder, drawn(folder, 4, 7)[3])
    done = trainer(*words, "--run", "r")
    assert done.code == 1 and f"Error: 1 of 39 samples are damaged, more than 0.1%: {name}" in done.err
    assert saved_step(tmp_path / "r") == 6
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 1, "it is still damaged"
    assert run_cli("verify", folder, "--fix").returncode == 1
    assert "was not finished" in trainer("--out", tmp_path, "--run", "r", "--resume").err
    generate(photos, tmp_path / "shards", "-s", 2)
    done = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert done.code == 0 and "resumed at step 6" in done.err
    assert events(tmp_path / "r", "train", "val") == journal(tmp_path / "sound")
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_a_damaged_validation_image_loses_no_steps(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))
    member = load_index(mine / "val-000000.idx")[0][0]
    overwrite(mine / "val-000000.tar", member.offset, bytes(20))
    done = trainer("--shards", mine, "--out", tmp_path, *SMALL, "--steps", 3, "--run", "r")
    assert done.code == 1 and f"{member.name}: expected 64x64x3 px" in done.err and "--fix`" in done.err
    assert saved_step(tmp_path / "r") == 3


def lines_cut_off(index: Path) -> None:
    index.write_text("\n".join(index.read_text().splitlines()[:-1]) + "\n")


def emptied(index: Path) -> None:
    index.write_bytes(b"")


def one_sample_less(index: Path) -> None:
    header, *lines = index.read_text().splitlines()
    version, count = header.split()
    index.write_text("\n".join([f"{version} {int(count) - 1}", *lines[:-1], ""]))


@pytest.mark.parametrize("harm", [lines_cut_off, emptied, one_sample_less])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_index_is_named_with_the_way_out(
    harm: Callable[[Path], None], split: str, shards: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))
    harm(mine / f"{split}-000000.idx")
    done = trainer("--shards", mine, "--out", tmp_path, *SMALL, "--steps", 12)
    assert done.code in (1, 2)
    assert f"{split}-000000.idx" in done.err and f"shardgen verify {mine} --fix`" in done.err


# ---- losses that are not finite


def poison(learner: Learner) -> None:
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.fill_(float("nan"))


def test_a_loss_that_is_not_finite_ends_the_run_and_the_state_before_stays(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--val-every", 2)
    assert trainer(*words, "--run", "sound").code == 0
    with monkeypatch.context() as patch:
        on_step(patch, 5, poison)
        done = trainer(*words, "--run", "r")
    assert done.code == 1 and "the loss of step 6 is not finite (nan)" in done.err
    assert "--lr" in done.err, "what can be done about it"
    assert [line["message"] for line in events(tmp_path / "r", "error")] == [done.err.split("Error: ")[1].strip()]
    assert saved_step(tmp_path / "r") == 4
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_weights_that_the_last_step_broke_are_not_saved(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that overflows breaks the weights behind a loss that was finite; no validation sees it here."""
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    on_step(monkeypatch, 4, poison)
    words = ("--shards", tmp_path / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 4, "--val-every", 2)
    done = trainer(*words, "--run", "r")
    assert done.code == 1 and "not finite" in done.err
    assert saved_step(tmp_path / "r") == 2


def test_weights_that_are_too_large_are_found_in_the_first_step(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 3)
    assert trainer(*words, "--run", "sound").code == 0
    huge = {name: tensor * 1e6 for name, tensor in read_weights(tmp_path / "sound" / "model.pth").items()}
    save_weights(tmp_path / "huge.pth", huge, None)
    for extra in ((), ("--clip", 0, "--lr", 0.99, "--warmup", 0, "--amp", "off")):
        done = trainer(*words, "--init", tmp_path / "huge.pth", *extra, "--run", f"r{len(extra)}")
        assert done.code == 1 and "the loss of step 1 is not finite" in done.err
        assert not (tmp_path / f"r{len(extra)}" / "state.pt").exists()


# ---- memory


@pytest.mark.slow
def test_too_little_memory_is_answered_with_a_batch_that_takes_half(shards: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1_200_000_000, 1_200_000_000))

    size = ("--model", "lite", "--batch-size", 512, "--patch-size", 64, "--steps", 2)
    done = run_trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "out of memory in step 1 on cpu; try --batch-size 256 --grad-accum 2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        (("--batch-size", 4), "try --batch-size 2 --grad-accum 2"),
        (("--batch-size", 3, "--grad-accum", 4), "try --batch-size 1 --grad-accum 8"),
        (("--batch-size", 1), "try --patch-size 12, or a smaller --model"),
    ],
)
def test_the_advice_fits_what_was_asked_for(
    size: tuple[object, ...], advice: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Learner, "_loss", fail)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1)
    assert done.code == 2 and f"out of memory in step 1 on cpu; {advice}" in done.err


@pytest.mark.parametrize("batch", [10**13, 10**20])
def test_a_batch_that_no_memory_holds_is_refused(batch: int, shards: Path, tmp_path: Path) -> None:
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--batch-size", batch, "--steps", 1)
    assert done.code == 2 and "memory" in done.err and f"--batch-size {batch // 2}" in done.err


IN_A_NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]

SMALL_SHM = """
    import subprocess, sys
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"], check=True)
    sys.exit(subprocess.run([sys.executable, "-m", "trainer", *sys.argv[1:]]).returncode)
"""


@pytest.mark.slow
def test_a_container_with_next_to_no_shared_memory_trains(shards: Path, tmp_path: Path) -> None:
    """Docker gives 64 MB, which is what data loaders are known to die of."""
    size = ("--workers", 2, "--prefetch", 4, "--patch-size", 64, "--batch-size", 32)
    words = map(str, ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1))
    program = [*IN_A_NAMESPACE, sys.executable, "-c", textwrap.dedent(SMALL_SHM), *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 data workers, [45]\.\d MB shared memory", done.stderr)


def test_batches_that_do_not_fit_into_memory_are_refused_with_what_is_needed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 3_000_000)
    size = ("--workers", 2, "--prefetch", 60, "--patch-size", 64)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *size, "--steps", 1)
    assert done.code == 2
    assert "2 workers with --prefetch 60 need " in done.err
    assert " MB of memory for batches, but 3.0 MB are free" in done.err
    assert (
        "use fewer --workers, or a smaller --prefetch, --batch-size, --grad-accum or --patches-per-sample" in done.err
    )


def test_samples_that_do_not_fit_into_the_devices_memory_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 100_000)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--resident", "--steps", 1)
    assert done.code == 2 and "--resident: the images of " in done.err and "omit --resident" in done.err


# ---- disks

FULL_DISK = """
    import os, signal, subprocess, sys, time
    from pathlib import Path

    disk, steps, val_every, *words = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
    run = Path(disk) / "r"
    words += ["--out", disk, "--run", "r", "--steps", steps, "--val-every", val_every]
    command = [sys.executable, "-m", "trainer", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wanted = run / ("state.pt" if val_every != steps else "journal.jsonl")
    while not wanted.exists() or not (run / "journal.jsonl").read_text().count("train"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    before = wanted.read_bytes()
    with open(f"{disk}/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 12))
        except OSError:
            pass
    os.killpg(process.pid, signal.SIGCONT)
    print(process.communicate()[1], "exit", process.returncode)
    print("whole", wanted.read_bytes() == before, "left", [str(path) for path in Path(disk).rglob("*.tmp")])
    Path(f"{disk}/filler").unlink()
    subprocess.run(["cp", "-r", run, f"{disk}_copy"], check=True)
"""


@pytest.mark.parametrize("val_every", [8, 80])
@pytest.mark.slow
def test_a_disk_that_fills_up_is_an_error_and_the_former_state_stays(
    val_every: int, shards: Path, tmp_path: Path
) -> None:
    """With few validations it is not the weights that do not fit, but a line of the journal or of TensorBoard."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = map(str, (disk, 80, val_every, "--shards", shards / "scale_2x", *SMALL))
    program = [*IN_A_NAMESPACE, sys.executable, "-c", textwrap.dedent(FULL_DISK), *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Error: cannot write" in done.stdout and "No space left on device" in done.stdout
    assert "exit 1\n" in done.stdout and "Traceback" not in done.stdout and "left []" in done.stdout
    if val_every == 8:
        assert "whole True" in done.stdout
        assert saved_step(tmp_path / "disk_copy") % 8 == 0


@pytest.mark.parametrize("where", ["out", "out/deeper"])
def test_an_out_that_is_a_file_is_named(where: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path / where, *SMALL, "--steps", 1)
    assert done.code in (1, 2)
    assert f"cannot write {tmp_path / where / 'ultra_lite-2x'}: Not a directory" in done.err


@pytest.mark.parametrize("name", ["journal.jsonl", "tensorboard", "previews", "model.pth"])
def test_a_part_of_the_run_that_cannot_be_written_is_named(name: str, shards: Path, tmp_path: Path) -> None:
    """What root may write to all the same is no folder; what it may not is a folder where a file is to be."""
    path = tmp_path / "r" / name
    path.parent.mkdir()
    if path.suffix:
        (path / "something").mkdir(parents=True)
    else:
        path.write_text("in the way")
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    assert done.code in (1, 2), done
    assert str(path) in done.err and "Error: " in done.err


def test_a_validation_that_could_not_be_written_down_is_done_again(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 4, "--val-every", 2)
    assert trainer(*words, "--run", "sound").code == 0
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "previews").write_text("in the way")
    assert trainer(*words, "--run", "r").code == 1
    (tmp_path / "r" / "previews").unlink()
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert [path.name for path in sorted((tmp_path / "r" / "previews").iterdir())] == [
        "step-000002.png",
        "step-000004.png",
    ]
    assert [line["step"] for line in events(tmp_path / "r", "val")] == [2, 4]
    assert weights(tmp_path / "r") == weights(tmp_path / "sound")


def test_what_a_killed_run_left_half_written_is_removed_everywhere(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    assert trainer(*words).code == 0
    for left in (tmp_path / "r" / ".state.pt.1.tmp", tmp_path / "r" / "previews" / ".step-000001.png.1.tmp"):
        left.write_bytes(b"half")
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert not list(tmp_path.rglob("*.tmp"))


# ---- two processes


def hold_lock(run: Path, is_held: Event) -> None:
    with run_folder(run).locked():
        is_held.set()
        signal.pause()


def test_a_second_process_is_refused_while_the_first_lives(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    fork = multiprocessing.get_context("fork")
    is_held = fork.Event()
    holder = fork.Process(target=hold_lock, args=(tmp_path / "r", is_held))
    holder.start()
    try:
        assert is_held.wait(PATIENCE_S)
        done = trainer(*words)
        assert done.code == 2
        assert f"another process is training in {tmp_path / 'r'}; wait until it has finished" in done.err
    finally:
        holder.kill()
        holder.join()
    assert trainer(*words).code == 0


def test_a_lock_is_let_go_when_a_run_ends_badly(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--run", "r")
    assert trainer(*words, "--init", tmp_path / "none.pth").code == 2
    with run_folder(tmp_path / "r").locked():
        pass


# ---- stopped and gone on with


@pytest.fixture(scope="module", params=["plain", "accumulated"])
def unbroken(
    request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[object, ...], Path]:
    """The words of a run of 12 steps with validations at 4, 8 and 12, and the run as it is undisturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    extra = () if request.param == "plain" else ("--grad-accum", 2, "--ema", 0)
    words = ("--shards", shards / "scale_2x", *SMALL, "--steps", 12, "--val-every", 4, *extra)
    assert trainer(*words, "--out", out, "--run", "r").code == 0
    return words, out / "r"


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
def test_stops_change_nothing(
    stops: list[tuple[str, int]],
    unbroken: tuple[tuple[object, ...], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, whole = unbroken
    for number, (what, when) in enumerate(stops):
        with monkeypatch.context() as patch:
            if what == "step":
                on_step(patch, when, terminate)
            else:
                on_validation(patch, when, terminate)
            done = trainer(*(words if number == 0 else ()), "--out", tmp_path, "--run", "r", *["--resume"][:number])
        assert done.code == 143, done.err
        assert "everything is saved. Resume with: python -m trainer --out" in done.err
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert journal(tmp_path / "r") == journal(whole)
    assert weights(tmp_path / "r") == weights(whole)


def test_a_stop_in_the_last_validation_is_a_stop(
    unbroken: tuple[tuple[object, ...], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 would say that all is done, but the last weights were not looked at."""
    words, whole = unbroken
    with monkeypatch.context() as patch:
        on_validation(patch, 3, terminate)
        done = trainer(*words, "--out", tmp_path, "--run", "r")
    assert done.code == 143 and "--resume" in done.err, done
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert journal(tmp_path / "r") == journal(whole)
    assert weights(tmp_path / "r") == weights(whole)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM, signal.SIGINT), 143),
        ((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), 129),
        ((signal.SIGINT, signal.SIGTERM), 130),
    ],
)
def test_the_first_of_several_signals_counts_and_all_is_saved(
    numbers: tuple[signal.Signals, ...], code: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(learner: Learner) -> None:
        for number in numbers:
            signal.raise_signal(number)

    on_step(monkeypatch, 3, send)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--run", "r")
    assert done.code == code and "Stopped after step 3 of 9; everything is saved." in done.err, done.err


def test_a_second_interrupt_ends_a_long_step(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt_twice(learner: Learner) -> None:
        signal.raise_signal(signal.SIGINT)
        assert not (tmp_path / "r" / "model.pth").exists(), "the first one waits for the step to end"
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one does not")

    on_step(monkeypatch, 3, interrupt_twice)
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 9, "--run", "r")
    done = trainer(*words)
    assert done.code == 130 and done.err.rstrip().endswith("Interrupted.")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "handlers are put back"
    monkeypatch.undo()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0


# ---- signals to whole processes


Running = TypeVar("Running", Warm, "subprocess.Popen[str]")


@contextlib.contextmanager
def running(process: Running) -> Iterator[Running]:
    """The leader of a process group, of which nothing is left at the end."""
    try:
        yield process
        until(lambda: not group(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def started(*args: object) -> "subprocess.Popen[str]":
    """`python -m trainer`, from its beginning."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(trainer_command(*args), **pipes, text=True, start_new_session=True)


def group(pid: int) -> list[psutil.Process]:
    """The living processes of a process group."""
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_and_stops(
    number: signal.Signals, code: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sends Ctrl-C to every process, and SIGHUP when it is closed; `timeout`, Slurm and systemd SIGTERM."""
    run = tmp_path / "r"
    with running(Warm("trainer", *long_run(shards, tmp_path))) as process:
        until(lambda: is_training(run, process))
        os.killpg(process.pid, number)
        found, _, said = process.wait(PATIENCE_S)
    assert found == code, said
    assert "everything is saved" in said and "Traceback" not in said and "died" not in said
    stopped = saved_step(run)
    assert 0 < stopped < 5000 and f"Stopped after step {stopped:,} of 5,000" in said
    assert not list(run.rglob("*.tmp"))
    on_step(monkeypatch, stopped + 3, terminate)
    assert trainer("--out", tmp_path, "--run", "r", "--resume", "--workers", 0).code == 143
    assert saved_step(run) == stopped + 3
    steps = [line["step"] for line in events(run, "train")]
    assert steps == sorted(set(steps)) and steps[-1] > stopped
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == steps
    assert [event.step for event in board.Scalars("val/psnr_y")] == [line["step"] for line in events(run, "val")]


@pytest.mark.slow
def test_a_closed_terminal_saves_and_stops(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    command = trainer_command(*long_run(shards, tmp_path))
    assert close_terminal_under(command, functools.partial(has_trained, run)) == 129
    assert 0 < saved_step(run) < 5000 and not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_hangups_save_and_stop_unless_they_are_ignored(
    handler: signal.Handlers, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sends one, the shell another; nohup has both ignored."""

    def hang_up_twice(_: Learner) -> None:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)

    signal.signal(signal.SIGHUP, handler)
    on_step(monkeypatch, 2, hang_up_twice)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 3, "--run", "r")
    is_ignored = handler is signal.SIG_IGN
    assert (done.code, saved_step(tmp_path / "r")) == ((0, 3) if is_ignored else (129, 2)), done.err
    assert ("Stopped after step 2 of 3; everything is saved. Resume with: " in done.err) is not is_ignored
    if not is_ignored:
        signal.raise_signal(signal.SIGHUP)  # while the interpreter ends


@pytest.mark.slow
def test_whoever_hammers_on_ctrl_c_sees_no_traceback(shards: Path, tmp_path: Path) -> None:
    with running(started(*long_run(shards, tmp_path))) as process:
        until(lambda: has_trained(tmp_path / "r"))

        def is_gone() -> bool:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            return process.poll() is not None

        until(is_gone)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said and "Exception ignored" not in said


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_leaves_no_process(shards: Path, tmp_path: Path) -> None:
    with running(Warm("trainer", *long_run(shards, tmp_path))) as process:
        until(lambda: is_training(tmp_path / "r", process))
        worker = next(child for child in group(process.pid) if child.name() == "pt_data_worker")
        worker.kill()
        code, _, said = process.wait(PATIENCE_S)  # far sooner than the run would end by itself
    assert code == 1
    assert "Error: a data worker died" in said and "use fewer --workers or a smaller --prefetch" in said
    assert "Traceback" not in said
    assert len(events(tmp_path / "r", "error")) == 1


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker(shards: Path, tmp_path: Path) -> None:
    with running(Warm("trainer", *long_run(shards, tmp_path))) as process:
        until(lambda: is_training(tmp_path / "r", process))
        names = [child.name() for child in group(process.pid)]
        assert names.count("pt_data_worker") == 2
        process.kill()


@pytest.mark.slow
def test_an_interrupt_while_it_starts_is_no_traceback(shards: Path, tmp_path: Path) -> None:
    """PyTorch takes seconds to load, long enough to see that a word was wrong."""
    with running(started(*long_run(shards, tmp_path))) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        until(lambda: "libtorch" in maps.read_text())
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "Interrupted" in said


def test_it_saves_now_and_then_between_validations(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.loop._SAVE_EVERY_S", 0.0)
    saved: list[int] = []
    real = TrainingLoop._save

    def save(loop: TrainingLoop) -> None:
        real(loop)
        saved.append(saved_step(tmp_path / "r"))

    monkeypatch.setattr(TrainingLoop, "_save", save)
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 4, "--run", "r")
    assert trainer(*words).code == 0
    assert saved == [1, 2, 3, 4]


# ---- tools


@pytest.mark.slow
def test_without_a_compiler_compile_is_refused(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--compile")
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = run_trainer(*words, env=environment)  # PyTorch looks at them when it is loaded
    assert done.returncode == 2, done.stderr
    assert "--compile" in done.stderr and "Traceback" not in done.stderr


# ---- a start that fails


@pytest.mark.parametrize("name", [None, "r"])
def test_a_run_that_fails_before_its_first_step_leaves_nothing(
    name: str | None, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *SMALL, "--steps", 2)
    assert trainer(*words).code == 0
    (tmp_path / "runs" / "r").mkdir()
    (tmp_path / "runs" / "r" / "notes").write_text("mine")
    before = all_files(tmp_path)

    def fail(*_: Any) -> torch.Tensor:
        raise UsageError("no such step")

    monkeypatch.setattr(Learner, "step", fail)
    done = trainer(*words, *(("--run", name) if name else ()))
    assert done.code == 2 and "Error: no such step" in done.err
    assert all_files(tmp_path) - {"runs/r/.lock"} == before
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["r", "ultra_lite-2x"]
