"""Train with neosr from shards: `python -m srshards.adapters.neosr -opt FILE`, with neosr's own options."""

from pathlib import Path

import neosr
from neosr.utils import get_root_logger

from srshards.adapters.frameworks import script_beside
from srshards.adapters.launch import launch


def run() -> None:
    """Train as neosr's `train.py` does, with `experiments/` in the clone."""
    train = script_beside(neosr)
    launch(train, str(Path(str(train.__file__)).parent), get_root_logger)


if __name__ == "__main__":
    run()
