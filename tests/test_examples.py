"""The examples run as they are, stop, and go on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import PATIENCE_S

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *args: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_own_training_loop_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    """39 samples in batches of 16 are two steps to an epoch: it stops in the middle of one."""
    words = (shards / "scale_2x", "--checkpoint", tmp_path / "halves.pt", "--steps")
    for steps, said in ((3, [2, 3]), (5, [4, 5])):
        lines = run("own_training_loop.py", *words, steps).splitlines()
        assert [line.partition(":")[0] for line in lines] == [f"step {step}" for step in said]
    halves = torch.load(tmp_path / "halves.pt")
    assert halves["loader"]["step"] == 5
    assert halves["optimizer"]["state"][0]["step"] == 5
    assert len((EXAMPLES / "own_training_loop.py").read_text().splitlines()) < 60


def test_a_lightning_run_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="the dev extra brings it, and this test is of nothing else")
    for steps in (3, 4):
        run("lightning_module.py", shards / "scale_2x", "--out", tmp_path, "--steps", steps)
        state = torch.load(tmp_path / "last.ckpt", weights_only=False)
        (loader,) = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        assert state["global_step"] == loader["step"] == steps
