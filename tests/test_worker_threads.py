"""Data workers that are threads: the batches of every kind of worker, and the end of threads and all that they hold."""

import hashlib
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import TIMEOUT_S
from test_trainer_stream import contents, worker_threads
from test_trainer_variants import HR_PX, NUM_SAMPLES, SCALE, make_folder

import srshards
from srshards import native
from srshards.errors import RunError
from srshards.loader.batches import BatchReader, DamagedRow, Patches
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.patch_loader import PatchLoader

pytestmark = pytest.mark.skipif(not native.is_available(), reason="the compiled core was not built")

STEPS = 30
NOT_AN_IMAGE = {1: ["hr"], 4: ["lr"], 5: ["lr1"], 6: ["hr", "lr"], 7: ["hr"], 20: ["lr1"]}
TOO_SHORT = {9: ["hr"], 10: ["lr"]}
MISSING = {12: ["lr1"], 13: ["hr"]}


def damage(number: int, members: dict[str, list[Any]]) -> None:
    """Damage some images, two of them in consecutive samples."""
    for name in NOT_AN_IMAGE.get(number, []):
        content = b"".join(map(bytes, members[f"{name}.npy"]))
        members[f"{name}.npy"] = [b"?" + content[1:]]
    for name in TOO_SHORT.get(number, []):
        members[f"{name}.npy"] = [b"".join(map(bytes, members[f"{name}.npy"]))[:-1]]
    for name in MISSING.get(number, []):
        del members[f"{name}.npy"]


# The variants, options of the folder, and arguments of the loader.
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "LR": (1, {}, {}),
    "up": (1, {}, {"input": "up"}),
    "computed up": (1, {"has_up": False}, {"input": "up"}),
    "variants": (3, {}, {}),
    "several patches": (3, {}, {"patches_per_sample": 4}),
    "not augmented": (1, {}, {"augment": False}),
    "micro-batches": (2, {}, {"micro_batches": 2}),
    "ranks": (1, {}, {"rank": 1, "world_size": 2}),
    "damaged": (2, {"edit": damage}, {}),
    "damaged, several patches": (2, {"edit": damage}, {"patches_per_sample": 4}),
    "damaged, computed up": (2, {"edit": damage, "has_up": False}, {"input": "up", "patches_per_sample": 4}),
    **{f"{px} px": (1, {}, {"patch_size": px}) for px in (SCALE, 14, 22, HR_PX)},
    **{f"{px} px, computed up": (1, {"has_up": False}, {"input": "up", "patch_size": px}) for px in (SCALE, 14, HR_PX)},
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the shards of a case."""
    root, known = tmp_path_factory.mktemp("cases"), dict[str, Path]()

    def make(case: str) -> Path:
        variants, options, _ = CASES[case]
        name = "-".join(map(str, (variants, *options)))
        if name not in known:
            known[name] = make_folder(root / name, variants, **options)
        return known[name]

    return make


def make(folder: Path, workers: int, cache: Path | None = None, **arguments: Any) -> PatchLoader:
    shards = srshards.open(folder, cache=cache, cache_bytes=10**8 if cache else None)
    return PatchLoader(shards, **{"patch_size": 16, "batch_size": 6, "workers": workers, "prefetch": 4, **arguments})


def digests(batches: Iterable[PatchBatch]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return a hash of each batch, and its replaced samples with their reasons."""
    found = []
    for batch in batches:
        pixels = (images.numpy().tobytes() for images in (batch.hr, batch.input))
        found.append((hashlib.sha256(b"".join(pixels)).hexdigest(), tuple(map(tuple, batch.damaged))))
    return found


def case_digests(case: str, folder: Path, workers: int, cache: Path | None = None) -> Any:
    with make(folder, workers, cache, **CASES[case][2]) as loader:
        return digests(loader.steps(3, 3 + STEPS))


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_batches_and_messages_do_not_depend_on_the_core(
    case: str, is_cached: bool, folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = folder_of(case), tmp_path / "cache" if is_cached else None
    found = [case_digests(case, folder, workers, cache) for workers in (0, 1, 3)]
    monkeypatch.setattr(native, "_core", None)
    expected = case_digests(case, folder, 0)
    assert found == [expected] * 3
    assert len({batch for batch, _ in expected}) == len(expected)
    assert any(damaged for _, damaged in expected) == case.startswith("damaged")


WITHOUT_CORE = """
    import sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
    from test_worker_threads import CASES, case_digests, native
    if __name__ == "__main__":
        assert not native.is_available()
        for case, folder in zip(CASES, sys.argv[2:], strict=True):
            print(repr(case_digests(case, Path(folder), 2)), flush=True)
"""


@pytest.mark.slow
def test_worker_processes_without_the_core_give_the_same_batches(folder_of: Callable[[str], Path]) -> None:
    expected = [repr(case_digests(case, folder_of(case), 2)) for case in CASES]
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_CORE), str(Path(__file__).parent)]
    environment = {**os.environ, "SRSHARDS_NATIVE": "0"}
    result = subprocess.run(
        [*command, *map(str, map(folder_of, CASES))], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.stdout.splitlines() == expected, result.stderr


# ---- errors


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_one_worker_ends_the_iteration_once(
    workers: int, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iterating again continues with the batch that could not be read."""
    folder, failing = folder_of("LR"), iter([True])
    real = BatchReader.read

    def read(self: BatchReader, steps: range, *args: Any) -> tuple[DamagedRow, ...]:
        if 6 in steps and next(failing, False):
            raise OSError("the disk failed")
        return real(self, steps, *args)

    with make(folder, 0) as loader:
        expected = contents(loader.steps(0, 12))
    monkeypatch.setattr(BatchReader, "read", read)
    with make(folder, workers) as loader:
        found = []
        with pytest.raises(RunError, match=r"^the disk failed; run `python -m shardgen verify .* --fix`"):
            for batch in itertools.chain(loader, loader, loader):
                found += contents([batch])
        assert not worker_threads()
        assert len(found) == int(loader.state_dict()["step"]) == 6  # two steps are read at a time
        for _ in range(3):
            found += contents(loader)
    assert found[:12] == expected


def test_an_error_of_the_consumer_stops_the_threads(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(ZeroDivisionError), make(folder_of("LR"), 2) as loader:
        for _ in loader:
            assert worker_threads()
            raise ZeroDivisionError
    assert not worker_threads()


# ---- the end of threads


class Gated(BatchReader):
    """Waits before each chunk but the first until the gate opens."""

    opened = threading.Event()
    waiting = threading.Event()
    num_started = 0

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        Gated.num_started += 1
        if steps.start:
            self.waiting.set()
            assert self.opened.wait(TIMEOUT_S)
        return super().read(steps, rows, to, next_steps)


def test_closing_waits_for_the_chunk_being_read_and_drops_the_others(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be killed: it would write to memory that is in use for something else by then."""
    monkeypatch.setattr(srshards.loader.sources, "BatchReader", Gated)
    loader = make(folder_of("LR"), 1, prefetch=64)
    kept = next(iter(loader))
    copy = kept.hr.clone()
    assert Gated.waiting.wait(TIMEOUT_S)
    (thread,) = worker_threads()
    closing = threading.Thread(target=loader.close)
    closing.start()
    assert thread.is_alive()
    Gated.opened.set()
    closing.join()
    assert not thread.is_alive() and not worker_threads()
    assert (kept.hr == copy).all()


def test_closed_loaders_leave_nothing_behind(folder_of: Callable[[str], Path]) -> None:
    """No threads, descriptors or mappings, whether or not they were used up."""
    folder, process = folder_of("damaged"), psutil.Process()

    def use(number: int) -> None:
        with make(folder, number % 4, patches_per_sample=1 + number % 2) as loader:
            for _ in itertools.islice(loader, number):
                pass

    use(3)  # what is allocated once
    before = process.num_fds(), threading.active_count()
    for number in range(12):
        use(number)
        assert (process.num_fds(), threading.active_count()) == before, number
        maps = Path("/proc/self/maps").read_text()
        assert str(folder) not in maps and "memfd:batches" not in maps


EXIT = """
    import os, sys
    import srshards
    loader = srshards.PatchLoader(srshards.open(sys.argv[1]), 16, 6, workers=2, prefetch=64)
    batches = iter(loader)
    next(batches)
    {end}
"""
FORK = """child = os.fork()
    if child:  # else the child ends here, with all that it inherited
        assert os.waitpid(child, 0)[1] == 0
        assert sum(1 for _ in batches) == len(loader) - 1"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "native_core"),
    [("", "1"), ("", "0"), ("next(batches); sys.exit()", "1"), (FORK, "1")],
    ids=["threads", "processes", "threads-sys.exit", "threads-fork"],
)
def test_the_interpreter_exits_silently_while_workers_run(
    end: str, native_core: str, folder_of: Callable[[str], Path]
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(EXIT.format(end=end)), str(folder_of("LR"))]
    environment = {**os.environ, "SRSHARDS_NATIVE": native_core}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_an_epoch_has_several_steps() -> None:
    """Else the tests above would show little."""
    assert NUM_SAMPLES // 6 >= 3
