"""Resource shortages: too many open files, out of memory and a deleted working directory are not reported as damage."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import SMALL, TIMEOUT_S, all_files, contract_files, generate, make_photo, make_photos, run_cli, trainer
from PIL import Image

from shardgen.engines.base import run_job
from shardgen.generate.inputs import list_inputs
from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from shardgen.report.survey import survey
from srshards.errors import RunError
from srshards.format import MAX_SIZE_PX, load_manifest
from srshards.imaging.codec import decode_image
from srshards.process.shortages import signals_ignored_by_children

FILES = "too many open files for this process's limit of"
MEMORY = "out of memory; use fewer workers, smaller images or batches, or raise the limit (`ulimit -v`"
GONE = "The working directory has been deleted; change to another, or pass absolute paths only"


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """Lower the limit so that this process can open only `more` additional files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    limit = next(limit for limit in count() if limit - sum(number < limit for number in used) == more)
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
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("trained")
    assert trainer("--shards", shards / "scale_2x", "--out", out, "--run", "r", *SMALL, "--steps", 1).code == 0
    return out / "r"


# ---- open files


def test_generate_fails_no_photo_when_out_of_files(few_photos: Path, tmp_path: Path) -> None:
    generate(few_photos, tmp_path / "expected", "-s", 2, 3)
    failures = 0
    for more in range(1, 12):
        with few_files(more):
            result = run_cli(
                "generate", "-i", few_photos, "-o", tmp_path / "out", "--size", 64, "--auto", "-s", 2, 3, "--workers", 0
            )
        if result.returncode:
            failures += 1
            assert "oo many open files" in result.stderr.lower() and "`ulimit -n`" in result.stderr, more
            assert "Traceback" not in result.stderr and not list(tmp_path.glob("out/**/*.tmp")), more
    assert 0 < failures < 11, "some limits are sufficient and some are not"
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "expected")


def test_verify_removes_no_shard_when_out_of_files(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    before = all_files(copy) | {".shardgen.lock"}
    codes = []
    for more in range(6):
        with few_files(more):
            result = run_cli("verify", copy, "--fix")
        codes.append(result.returncode)
        assert result.returncode == 0 or "`ulimit -n`" in result.stderr, (more, result.stderr)
        assert "broken" not in result.stderr and "Traceback" not in result.stderr, more
        assert all_files(copy) | {".shardgen.lock"} == before, more
    assert codes[0] != 0 and codes[-1] == 0


def test_report_counts_no_sample_as_damaged_when_out_of_files(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srshards.shards.stored_samples.read_range", out_of_files)
    with pytest.raises(OSError, match="Too many open files"):
        survey(load_manifest(shards / "scale_2x"), 4, lambda progress: None)


@pytest.mark.parametrize("folder", ["photos", "scale_2x"])
def test_listing_folders_reports_too_many_open_files(
    folder: str, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        name = "photos" if isinstance(path, int) else Path(path).name
        return out_of_files() if name == folder else real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = generate(few_photos, tmp_path, "-s", 2, expect=1)
    assert "Too many open files" in result.stderr or FILES in result.stderr
    assert "`ulimit -n`" in result.stderr and "permissions" not in result.stderr


def test_too_many_workers_for_the_file_limit_are_rejected(few_photos: Path, shards: Path, tmp_path: Path) -> None:
    message = r"16 workers need more open files than this process's limit of {}; raise it (`ulimit -n`), or"
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--workers", 16)
    with few_files(30):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        result = trainer(*args)
    assert result.code == 2 and f"Error: {message.format(limit)} pass --workers " in result.err
    with few_files(12):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        options = ("-s", 2, "--shard-bytes", "100KB", "--workers", 16)
        refused = generate(few_photos, tmp_path / "out", *options, expect=2)
    assert f"workers need more open files than this process's limit of {limit}" in refused.stderr
    assert "Traceback" not in refused.stderr + result.err


@pytest.mark.parametrize("resident", [(), ("--resident",)])
def test_training_reports_too_many_open_files(
    resident: tuple[str, ...], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.shards.mapped.load_index", out_of_files)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, "--run", "r", *SMALL, *resident, "--steps", 1)
    assert result.code == 1 and f"Error: {FILES}" in result.err and "--fix" not in result.err
    assert not (tmp_path / "r").exists()


def test_evaluate_reports_too_many_open_files(shards: Path, trained: Path) -> None:
    args = ("evaluate", "--weights", trained / "best.pth", "--shards", shards / "scale_2x", "--device", "cpu")
    assert trainer(*args).code == 0  # imports all modules before files become scarce
    codes = []
    for more in range(6):
        with few_files(more):
            result = trainer(*args)
        codes.append(result.code)
        assert result.code == 0 or "`ulimit -n`" in result.err, (more, result.err)
        assert "--fix" not in result.err and "damaged" not in result.err, more
    assert codes[0] != 0 and codes[-1] == 0


def test_resuming_reports_too_many_open_files(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path / "r")
    monkeypatch.setattr("trainer.models.tensor_file.torch.load", out_of_files)
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 1 and FILES in result.err and "start a new run" not in result.err


# ---- memory


def test_generate_reports_out_of_memory(few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardgen.shard.photo_source.make_triplet", out_of_memory)
    result = generate(few_photos, tmp_path, "-s", 2, expect=1)
    assert f"cannot build shard train-000000: {MEMORY}" in result.stderr
    assert "Run the same command again: finished shards are kept." in result.stderr and "Traceback" not in result.stderr


def test_workers_report_out_of_memory(few_photos: Path, tmp_path: Path) -> None:
    (task, *_) = prepare(list_inputs(Config(few_photos, tmp_path, scales=(2,), size=64))).tasks
    error = run_job(task, out_of_memory, lambda progress: None, lambda: None)
    assert isinstance(error, RunError) and MEMORY in str(error) and "bug in the program" not in str(error)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_training_reports_out_of_memory(
    error: Exception, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*args: object) -> NoReturn:
        raise error

    monkeypatch.setattr("trainer.training.run.make_learner", build)
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1)
    assert result.code == 1 and result.err.startswith(f"Error: {MEMORY}")


@pytest.mark.parametrize("codec", ["npy", "webp"])
def test_verify_removes_no_shard_when_out_of_memory(
    codec: str, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(few_photos, tmp_path, "-s", 2, "--codec", codec)
    before = all_files(tmp_path)
    for function in (
        "srshards.imaging.codec._decode_npy",
        "srshards.imaging.codec._decode_with_pillow",
        "srshards.shards.tar_index.tarfile.open",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(function, out_of_memory)
            result = run_cli("verify", tmp_path, "--fix")
        is_used = "tarfile" in function or ("npy" in function) == (codec == "npy")
        assert result.returncode == is_used and (MEMORY in result.stderr) == is_used, result.stderr
        assert all_files(tmp_path) == before


def test_training_substitutes_no_sample_when_out_of_memory(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(few_photos, tmp_path, "-s", 2, "--codec", "png")
    monkeypatch.setattr("srshards.imaging.codec.Image.open", out_of_memory)
    result = trainer("--shards", tmp_path / "scale_2x", "--out", tmp_path / "runs", *SMALL, "--steps", 1)
    assert result.code == 2 and "out of memory in step 1" in result.err and "Damaged" not in result.err


def test_images_above_the_maximum_size_are_damaged(tmp_path: Path) -> None:
    Image.new("RGB", (MAX_SIZE_PX + 1, 1)).save(tmp_path / "wide.png")
    assert decode_image(memoryview((tmp_path / "wide.png").read_bytes())) is None


def test_upscale_reports_out_of_memory(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(make_photo(20, 30, 1)).save(tmp_path / "a.png")
    monkeypatch.setattr("srshards.imaging.photo._load", out_of_memory)
    args = ("--weights", trained / "best.pth", "-o", tmp_path / "b.png", "--device", "cpu")
    result = trainer("upscale", tmp_path / "a.png", *args)
    assert result.code == 2 and f"cannot read {tmp_path / 'a.png'}: not enough memory to decode" in result.err


@pytest.mark.parametrize("resident", [(), ("--resident",)])
def test_steps_that_exceed_the_memory_are_rejected(resident: tuple[str, ...], shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, *resident)
    result = trainer(*args, "--grad-accum", 2**31 - 1)
    assert result.code == 2 and "B of memory for batches, but " in result.err and "--grad-accum" in result.err
    assert not all_files(tmp_path)


def test_workers_need_no_semaphores(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be in /dev/shm, which is read-only in some containers."""

    def read_only(*args: object, **options: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock", read_only)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 1, "--workers")
    assert trainer(*args, 1).code == 0


# ---- the working directory


def in_deleted_folder(tmp_path: Path, *command: object) -> subprocess.CompletedProcess[str]:
    (tmp_path / "gone").mkdir()
    script = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"), sys.executable, "-m"]
    return subprocess.run([*script, *map(str, command)], capture_output=True, text=True, timeout=TIMEOUT_S)


def test_generate_works_in_deleted_folder(few_photos: Path, tmp_path: Path) -> None:
    args = ("-s", 2, "--size", 64, "--auto", "--workers", 1)
    result = in_deleted_folder(tmp_path, "shardgen", "generate", "-i", few_photos, "-o", tmp_path / "out", *args)
    assert result.returncode == 0, result.stderr
    generate(few_photos, tmp_path / "expected", "-s", 2)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "expected")


@pytest.mark.parametrize(
    "command",
    ["shardgen generate -i {photos} -o out --auto", "shardgen inspect shards", "trainer report runs/r"],
)
def test_relative_paths_in_deleted_folder_are_rejected(command: str, few_photos: Path, tmp_path: Path) -> None:
    result = in_deleted_folder(tmp_path, *command.format(photos=few_photos).split())
    assert result.returncode == 2 and result.stderr.rstrip().endswith(GONE), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_training_works_in_deleted_folder(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, "--run", "r", *SMALL, "--steps", 1, "--workers", 1)
    result = in_deleted_folder(tmp_path, "trainer", *args)
    assert result.returncode == 0 and (tmp_path / "r" / "model.pth").is_file(), result.stderr


def test_signals_are_deferred_while_children_ignore_them() -> None:
    received: list[int] = []
    former = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
    try:
        with signals_ignored_by_children(signal.SIGHUP):
            signal.raise_signal(signal.SIGHUP)
            child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"]
            assert subprocess.run(child, capture_output=True, text=True).stdout == "True\n"
            assert received == []
        assert received == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, former)
