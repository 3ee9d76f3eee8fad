"""Too many open files, too little memory, a deleted working directory: said as such, and no file counts as damaged."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import PATIENCE_S, SMALL, all_files, contract_files, generate, make_photo, make_photos, run_cli, trainer
from PIL import Image

from shardgen.engines.base import run_job
from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from shardgen.report.survey import survey
from srshards.errors import RunError
from srshards.format import MAX_SIZE_PX, load_manifest
from srshards.imaging.codec import decode_image
from srshards.process.shortages import signals_ignored_by_children

FILES = "too many open files: the limit of this process is"
MEMORY = "out of memory: use fewer workers, smaller images or batches, or raise the limit (`ulimit -v`"
GONE = "The working directory has been deleted: change to another, or pass absolute paths only"


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """This process may open so many files more than it has open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    limit = next(limit for limit in count() if limit - sum(number < limit for number in taken) == more)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def out_of_files(*args: object, **options: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def out_of_memory(*args: object, **options: object) -> NoReturn:
    raise MemoryError


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 6)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    out = tmp_path_factory.mktemp("trained")
    assert trainer("--shards", shards / "scale_2x", "--out", out, "--run", "r", *SMALL, "--steps", 1).code == 0
    return out / "r"


# ---- open files


def test_no_photo_fails_because_too_many_files_are_open(few_photos: Path, tmp_path: Path) -> None:
    generate(few_photos, tmp_path / "undisturbed", "-s", 2, 3)
    refused = 0
    for more in range(1, 12):
        with few_files(more):
            done = run_cli(
                "generate", "-i", few_photos, "-o", tmp_path / "out", "--size", 64, "--auto", "-s", 2, 3, "--workers", 0
            )
        if done.returncode:
            refused += 1
            assert "oo many open files" in done.stderr.lower() and "`ulimit -n`" in done.stderr, more
            assert "Traceback" not in done.stderr and not list(tmp_path.glob("out/**/*.tmp")), more
    assert 0 < refused < 11, "some were enough, and some were not"
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "undisturbed")


def test_no_shard_is_removed_because_too_many_files_are_open(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    before = all_files(mine) | {".shardgen.lock"}
    codes = []
    for more in range(6):
        with few_files(more):
            done = run_cli("verify", mine, "--fix")
        codes.append(done.returncode)
        assert done.returncode == 0 or "`ulimit -n`" in done.stderr, (more, done.stderr)
        assert "broken" not in done.stderr and "Traceback" not in done.stderr, more
        assert all_files(mine) | {".shardgen.lock"} == before, more
    assert codes[0] != 0 and codes[-1] == 0


def test_a_report_names_no_sample_as_damaged_because_too_many_files_are_open(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.shards.stored_samples.read_range", out_of_files)
    with pytest.raises(OSError, match="Too many open files"):
        survey(load_manifest(shards / "scale_2x"), 4, lambda progress: None)


@pytest.mark.parametrize("folder", ["photos", "scale_2x"])
def test_a_folder_that_cannot_be_listed_for_too_many_files_says_so(
    folder: str, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        listed = "photos" if isinstance(path, int) else Path(path).name
        return out_of_files() if listed == folder else real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = generate(few_photos, tmp_path, "-s", 2, expect=1)
    assert "Too many open files" in done.stderr or FILES in done.stderr
    assert "`ulimit -n`" in done.stderr and "permissions" not in done.stderr


def test_more_workers_than_can_be_talked_to_are_refused(few_photos: Path, shards: Path, tmp_path: Path) -> None:
    said = r"16 workers need more open files than this process's limit of {}: raise it (`ulimit -n`), or"
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--workers", 16)
    with few_files(30):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        done = trainer(*words)
    assert done.code == 2 and f"Error: {said.format(limit)} pass --workers " in done.err
    with few_files(12):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        options = ("-s", 2, "--shard-bytes", "100KB", "--workers", 16)
        refused = generate(few_photos, tmp_path / "out", *options, expect=2)
    assert f"workers need more open files than this process's limit of {limit}" in refused.stderr
    assert "Traceback" not in refused.stderr + done.err


@pytest.mark.parametrize("resident", [(), ("--resident",)])
def test_training_does_not_take_too_many_open_files_for_a_broken_shard(
    resident: tuple[str, ...], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.shards.mapped.load_index", out_of_files)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, "--run", "r", *SMALL, *resident, "--steps", 1)
    assert done.code == 1 and f"Error: {FILES}" in done.err and "--fix" not in done.err
    assert FILES in (tmp_path / "r" / "journal.jsonl").read_text()


def test_evaluation_does_not_take_too_many_open_files_for_damage(shards: Path, trained: Path) -> None:
    words = ("evaluate", "--weights", trained / "best.pth", "--shards", shards / "scale_2x", "--device", "cpu")
    assert trainer(*words).code == 0  # everything is imported afterwards
    codes = []
    for more in range(6):
        with few_files(more):
            done = trainer(*words)
        codes.append(done.code)
        assert done.code == 0 or "`ulimit -n`" in done.err, (more, done.err)
        assert "--fix" not in done.err and "damaged" not in done.err, more
    assert codes[0] != 0 and codes[-1] == 0


def test_resuming_does_not_take_too_many_open_files_for_a_state_of_another_program(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(trained, tmp_path / "r"))
    monkeypatch.setattr("trainer.runs.checkpoint.torch.load", out_of_files)
    done = trainer("--out", tmp_path, "--run", mine.name, "--resume")
    assert done.code == 1 and FILES in done.err and "start a new run" not in done.err


# ---- memory


def test_a_shard_that_memory_does_not_suffice_for_says_what_to_lower(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardgen.shard.job.make_triplet", out_of_memory)
    done = generate(few_photos, tmp_path, "-s", 2, expect=1)
    assert f"cannot build shard train-000000: {MEMORY}" in done.stderr
    assert "Run the same command again: finished shards are kept." in done.stderr and "Traceback" not in done.stderr


def test_a_worker_hands_back_that_memory_does_not_suffice(few_photos: Path, tmp_path: Path) -> None:
    (task, *_) = prepare(Config(few_photos, tmp_path, scales=(2,), size=64)).tasks
    error = run_job(task, out_of_memory, lambda progress: None, lambda: None)
    assert isinstance(error, RunError) and MEMORY in str(error) and "bug in the program" not in str(error)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_training_that_memory_does_not_suffice_for_says_so(
    error: Exception, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*args: object) -> NoReturn:
        raise error

    monkeypatch.setattr("trainer.training.run.make_learner", build)
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1)
    assert done.code == 1 and done.err.startswith(f"Error: {MEMORY}")


@pytest.mark.parametrize("codec", ["npy", "webp"])
def test_no_shard_is_removed_for_lack_of_memory(
    codec: str, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(few_photos, tmp_path, "-s", 2, "--codec", codec)
    before = all_files(tmp_path)
    for place in (
        "srshards.imaging.codec._decode_npy",
        "srshards.imaging.codec._decode_with_pillow",
        "srshards.shards.tar_index.tarfile.open",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, out_of_memory)
            done = run_cli("verify", tmp_path, "--fix")
        is_used = "tarfile" in place or ("npy" in place) == (codec == "npy")
        assert done.returncode == is_used and (MEMORY in done.stderr) == is_used, done.stderr
        assert all_files(tmp_path) == before


def test_an_image_that_memory_does_not_suffice_for_is_not_replaced_by_another(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(few_photos, tmp_path, "-s", 2, "--codec", "png")
    monkeypatch.setattr("srshards.imaging.codec.Image.open", out_of_memory)
    done = trainer("--shards", tmp_path / "scale_2x", "--out", tmp_path / "runs", *SMALL, "--steps", 1)
    assert done.code == 2 and "out of memory in step 1" in done.err and "Damaged" not in done.err


def test_an_image_that_is_larger_than_any_is_damaged(tmp_path: Path) -> None:
    Image.new("RGB", (MAX_SIZE_PX + 1, 1)).save(tmp_path / "wide.png")
    assert decode_image(memoryview((tmp_path / "wide.png").read_bytes())) is None


def test_a_photo_that_memory_does_not_suffice_for_is_not_damaged(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(make_photo(20, 30, 1)).save(tmp_path / "a.png")
    monkeypatch.setattr("srshards.imaging.photo._load", out_of_memory)
    words = ("--weights", trained / "best.pth", "-o", tmp_path / "b.png", "--device", "cpu")
    done = trainer("upscale", tmp_path / "a.png", *words)
    assert done.code == 2 and f"cannot read {tmp_path / 'a.png'}: not enough memory to decode" in done.err


@pytest.mark.parametrize("resident", [(), ("--resident",)])
def test_a_step_that_memory_does_not_suffice_for_is_refused(
    resident: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, *resident)
    for accumulated in (10**9, 10**400):
        done = trainer(*words, "--grad-accum", accumulated)
        assert done.code == 2 and "B of memory for batches, but " in done.err and "--grad-accum" in done.err
    assert not all_files(tmp_path)


def test_semaphores_that_cannot_be_made_are_no_lack_of_memory(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**options: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.synchronize.Lock", read_only)
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--workers")
    done = trainer(*words, 1)
    assert done.code == 2
    assert "workers need semaphores, which cannot be created in /dev/shm (Read-only file system)" in done.err
    assert "or pass --workers 0" in done.err and trainer(*words, 0).code == 0


# ---- the working directory


def in_a_deleted_folder(tmp_path: Path, *command: object) -> subprocess.CompletedProcess[str]:
    (tmp_path / "gone").mkdir()
    script = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"), sys.executable, "-m"]
    return subprocess.run([*script, *map(str, command)], capture_output=True, text=True, timeout=PATIENCE_S)


def test_generate_works_from_a_deleted_folder(few_photos: Path, tmp_path: Path) -> None:
    words = ("-s", 2, "--size", 64, "--auto", "--workers", 1)
    done = in_a_deleted_folder(tmp_path, "shardgen", "generate", "-i", few_photos, "-o", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    generate(few_photos, tmp_path / "undisturbed", "-s", 2)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (lambda photos: ("shardgen", "generate", "-i", photos, "-o", "out", "--auto"), 2),
        (lambda photos: ("shardgen", "inspect", "shards"), 2),
        (lambda photos: ("trainer", "report", "runs/r"), 2),
    ],
)
def test_relative_paths_from_a_deleted_folder_are_explained(
    command: Callable[[Path], tuple[object, ...]], code: int, few_photos: Path, tmp_path: Path
) -> None:
    done = in_a_deleted_folder(tmp_path, *command(few_photos))
    assert done.returncode == code and done.stderr.rstrip().endswith(GONE), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_training_works_from_a_deleted_folder(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, "--run", "r", *SMALL, "--steps", 1, "--workers", 1)
    done = in_a_deleted_folder(tmp_path, "trainer", *words)
    assert done.returncode == 0 and (tmp_path / "r" / "model.pth").is_file(), done.stderr


def test_a_signal_is_kept_while_children_that_ignore_it_are_started() -> None:
    got: list[int] = []
    former = signal.signal(signal.SIGHUP, lambda number, frame: got.append(number))
    try:
        with signals_ignored_by_children(signal.SIGHUP):
            signal.raise_signal(signal.SIGHUP)
            child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"]
            assert subprocess.run(child, capture_output=True, text=True).stdout == "True\n"
            assert got == []
        assert got == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, former)
