"""Train with BasicSR from shards: `python -m srshards.adapters.basicsr -opt FILE`, with BasicSR's own options."""

from pathlib import Path

import torch
from basicsr import train
from basicsr.utils import get_root_logger

from srshards.adapters.basicsr.resume import load_resume_state
from srshards.adapters.launch import launch


def run() -> None:
    """Train. `experiments/` is created in the current folder, where `--auto_resume` of BasicSR looks for it."""
    if not torch.cuda.is_available():
        train.load_resume_state = load_resume_state
    launch(train, str(Path.cwd()), get_root_logger)


if __name__ == "__main__":
    run()
