"""Batches do not depend on the compiled core: neither their patches, nor the replacements of damaged samples."""

import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import TIMEOUT_S
from test_trainer_variants import HR_PX, SCALE, make_folder

import srshards
from srshards import native
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
    "tlc": (3, {"codec": "tlc"}, {}),
    "tlc, up, several patches": (2, {"codec": "tlc"}, {"input": "up", "patches_per_sample": 4}),
    "tlc, computed up": (1, {"codec": "tlc", "has_up": False}, {"input": "up"}),
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


@pytest.mark.parametrize(
    ("case", "is_cached"), [*((case, False) for case in CASES), ("variants", True), ("damaged, several patches", True)]
)
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
    from test_core_batches import CASES, case_digests, native
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
