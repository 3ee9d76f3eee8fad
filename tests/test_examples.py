"""The examples run unchanged, stop and resume."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent / "examples"

# Runs the script and arguments of each line on stdin, in a process forked after the slow imports. Uses one CPU, because
# by default there is one worker per CPU.
RUN_EACH_LINE = """
import contextlib, importlib, json, os, runpy, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("torch._dynamo", "srshards", "lightning"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for line in sys.stdin:
    if (child := os.fork()) == 0:
        sys.argv = json.loads(line)
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., list[str]]]:
    """A function that runs an example with its arguments and returns the lines which it prints."""
    command = [sys.executable, "-c", RUN_EACH_LINE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def run(name: str, *args: object) -> list[str]:
            print(json.dumps([*map(str, (EXAMPLES / name, *args))]), file=process.stdin, flush=True)
            lines = []
            for line in process.stdout:
                if line.startswith("exit code"):
                    assert line == "exit code 0\n", lines
                    return lines
                lines.append(line.rstrip())
            raise AssertionError(f"the process has ended: {lines}")

        yield run


def test_own_training_loop_resumes(run: Callable[..., list[str]], shards: Path, tmp_path: Path) -> None:
    """39 samples in batches of 16 give two steps per epoch: the first run stops within an epoch."""
    args = (shards / "scale_2x", "--checkpoint", tmp_path / "halves.pt", "--steps")
    for steps, printed in ((3, [2, 3]), (5, [4, 5])):
        lines = run("own_training_loop.py", *args, steps)
        assert [line.partition(":")[0] for line in lines] == [f"step {step}" for step in printed]
    halves = torch.load(tmp_path / "halves.pt")
    assert halves["loader"]["step"] == 5
    assert halves["optimizer"]["state"][0]["step"] == 5
    assert len((EXAMPLES / "own_training_loop.py").read_text().splitlines()) < 60


def test_lightning_module_resumes(run: Callable[..., list[str]], shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is in the dev extra")
    for steps in (3, 4):
        run("lightning_module.py", shards / "scale_2x", "--out", tmp_path, "--steps", steps)
        state = torch.load(tmp_path / "last.ckpt", weights_only=False)
        (loader,) = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        assert state["global_step"] == loader["step"] == steps
