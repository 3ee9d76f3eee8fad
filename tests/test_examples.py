"""The examples run unchanged, stop and resume."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TIMEOUT_S

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *args: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_own_training_loop_resumes(shards: Path, tmp_path: Path) -> None:
    """39 samples in batches of 16 give two steps per epoch: the first run stops within an epoch."""
    args = (shards / "scale_2x", "--checkpoint", tmp_path / "halves.pt", "--steps")
    for steps, printed in ((3, [2, 3]), (5, [4, 5])):
        lines = run("own_training_loop.py", *args, steps).splitlines()
        assert [line.partition(":")[0] for line in lines] == [f"step {step}" for step in printed]
    halves = torch.load(tmp_path / "halves.pt")
    assert halves["loader"]["step"] == 5
    assert halves["optimizer"]["state"][0]["step"] == 5
    assert len((EXAMPLES / "own_training_loop.py").read_text().splitlines()) < 60


def test_lightning_module_resumes(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is in the dev extra")
    for steps in (3, 4):
        run("lightning_module.py", shards / "scale_2x", "--out", tmp_path, "--steps", steps)
        state = torch.load(tmp_path / "last.ckpt", weights_only=False)
        (loader,) = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        assert state["global_step"] == loader["step"] == steps
