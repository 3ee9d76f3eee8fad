"""BasicSR 1.4.2 trains from shards: through the dataset, and through the launcher."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FOLDER
from recorded_run import digest

import srshards
from tests.drill.folders import make_photos

EXAMPLE = FOLDER.parent.parent / "examples" / "basicsr.yml"
ITERATIONS, BATCH, PATCH_PX = 30, 4, 64
SEED = 0  # of the example
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x shards of 30 photos, HR of 96 px, one sample for validation."""
    photos = make_photos(tmp_path_factory.mktemp("photos"), 30, (96, 96), texture=12)
    output = tmp_path_factory.mktemp("shards")
    command = [sys.executable, "-m", "shardgen", "generate", "-i", photos, "-o", output, "-s", "4", "--auto"]
    subprocess.run([*command, "--size", "96"], check=True, capture_output=True)
    return output / "scale_4x"


def arguments(shards: Path, **forced: Any) -> list[str]:
    """Return the options of BasicSR: the example, with a tiny network, on a CPU, with one worker and short epochs."""
    settings = {
        "num_gpu": 0,
        "network_g:num_feat": 4,
        "network_g:num_conv": 1,
        "train:total_iter": ITERATIONS,
        "datasets:train:io_backend:path": shards,
        "datasets:val:io_backend:path": shards,
        "datasets:train:gt_size": PATCH_PX,
        "datasets:train:batch_size_per_gpu": BATCH,
        "datasets:train:num_worker_per_gpu": 1,
        "logger:print_freq": 1,
        "logger:save_checkpoint_freq": ITERATIONS // 2,
        "val:val_freq": ITERATIONS,
        **{name.replace("__", ":"): value for name, value in forced.items()},
    }
    return ["-opt", str(EXAMPLE), "--force_yml", *(f"{name}={value}" for name, value in settings.items())]


@pytest.fixture
def run(shards: Path, tmp_path: Path) -> Run:
    """A function that trains in a folder of this name, new or not, and returns the record of each iteration."""

    def run(name: str, mode: str, *options: str, **forced: Any) -> list[dict[str, Any]]:
        folder, target = tmp_path / name, tmp_path / f"{name}.jsonl"
        folder.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        command = [sys.executable, FOLDER / "recorded_run.py", target, mode, *arguments(shards, **forced), *options]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return records(target)

    return run


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a training saved at its end, of the EMA too."""
    saved = torch.load(folder / "experiments" / "compact_x4_shards" / "models" / "net_g_latest.pth")
    return {f"{part}.{name}": value for part, state in saved.items() for name, value in state.items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def expected(shards: Path, rows: slice = slice(None)) -> list[list[str]]:
    """Return the hashes of these rows of the batches of a plain `PatchLoader`, converted here."""
    fed = []
    with srshards.PatchLoader(srshards.open(shards), PATCH_PX, BATCH, seed=SEED, workers=0) as loader:
        for batch in loader.steps(0, ITERATIONS):
            fed.append([digest(images[rows].permute(0, 3, 1, 2).float() / 255) for images in (batch.hr, batch.input)])
    return fed


def test_versions() -> None:
    assert metadata.version("basicsr") == "1.4.2"


def test_command_trains_the_example_and_validates(shards: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "srshards.adapters.basicsr", *arguments(shards)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (log,) = (tmp_path / "experiments" / "compact_x4_shards").glob("train_*.log")
    text = log.read_text()
    losses = [float(loss) for loss in re.findall(r"l_pix: (\S+)", text)]
    assert len(losses) == ITERATIONS and losses[-1] < losses[0]
    assert re.search(
        r"Training batches come from srshards.PatchLoader: <Shards 4x: 29 train, 1 val samples.*step 0", text
    )
    assert re.search(r"Validation val\s+# psnr: \d+\.\d+", text)


def test_launcher_feeds_the_batches_of_patch_loader_twice_alike(run: Run, shards: Path, tmp_path: Path) -> None:
    first = run("first", "launcher")
    second = run("second", "launcher", datasets__train__num_worker_per_gpu=0)
    assert [entry["fed"] for entry in first] == expected(shards)
    assert second == first
    assert equal(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_dataset_gives_the_same_losses_twice(run: Run, tmp_path: Path) -> None:
    first, second = (run(name, "dataset") for name in ("first", "second"))
    assert second == first
    assert len(first) == ITERATIONS and len({entry["fed"][0] for entry in first}) == ITERATIONS
    assert equal(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_resumed_training_equals_an_undisturbed_one(run: Run, tmp_path: Path) -> None:
    """From the state after half of the iterations, in the middle of an epoch."""
    whole = run("run", "launcher")
    undisturbed = weights(tmp_path / "run")
    state = f"experiments/compact_x4_shards/training_states/{ITERATIONS // 2}.state"
    rest = run("run", "launcher", path__resume_state=state)
    assert rest == whole[ITERATIONS // 2 :]
    assert equal(weights(tmp_path / "run"), undisturbed)


def test_auto_resume_continues_after_the_last_state(run: Run, tmp_path: Path) -> None:
    """Also on a CPU, where BasicSR's own function fails. Without a state, a run begins."""
    whole = run("run", "launcher", "--auto_resume")
    assert [entry["iteration"] for entry in whole] == [*range(1, ITERATIONS + 1)]
    undisturbed = weights(tmp_path / "run")
    (tmp_path / f"run/experiments/compact_x4_shards/training_states/{ITERATIONS}.state").unlink()
    assert run("run", "launcher", "--auto_resume") == whole[ITERATIONS // 2 :]
    assert equal(weights(tmp_path / "run"), undisturbed)


def test_files_in_the_place_of_shards_end_with_a_sentence(shards: Path, tmp_path: Path) -> None:
    forced = {"datasets__train__type": "PairedImageDataset"}
    command = [sys.executable, "-m", "srshards.adapters.basicsr", *arguments(shards, **forced)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: io_backend `shards` needs `type: ShardsDataset`, not PairedImageDataset"
    )


def test_ranks_share_the_batches_of_one_process(shards: Path, tmp_path: Path) -> None:
    """Two processes with half of each batch, which torchrun starts."""
    target = tmp_path / "record.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [FOLDER / "recorded_run.py", target, "launcher"]
    half = BATCH // 2
    command += arguments(shards, datasets__train__batch_size_per_gpu=half)
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for rank, rows in enumerate((slice(half), slice(half, BATCH))):
        assert [entry["fed"] for entry in records(target.with_suffix(f".{rank}"))] == expected(shards, rows)
