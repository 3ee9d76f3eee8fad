"""Fixtures of the tests that need a GPU. Nothing beyond the trainer's own requirements and pytest is imported."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# As in the trainer: threads that spin while waiting slow each other down on a busy CPU. Set before PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from tests.drill.folders import make_photos


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark and skip the tests of this folder; those that compile run last, because `make gpu` has a time limit."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    items.sort(key=lambda item: item in ours and "compiled" in item.name)
    for item in ours:
        item.add_marker("gpu")
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="this machine has no CUDA device"))


@pytest.fixture(autouse=True)
def forget_compiled_steps() -> Iterator[None]:
    """PyTorch limits the number of compiled versions of a function."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def gpu_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x shards of 30 photos, 256 px."""
    photos = make_photos(tmp_path_factory.mktemp("photos"), 30, (256, 256), texture=12)
    output = tmp_path_factory.mktemp("shards")
    command = [sys.executable, "-m", "shardgen", "generate", "-i", photos, "-o", output, "-s", "4", "--auto"]
    subprocess.run([*command, "--size", "256"], check=True, capture_output=True)
    return output / "scale_4x"
