"""Train with traiNNer-redux from shards: `python -m srshards.adapters.trainner_redux -opt FILE`, with its options."""

from pathlib import Path

import traiNNer
from traiNNer.utils import get_root_logger

from srshards.adapters.frameworks import script_beside
from srshards.adapters.launch import launch


def run() -> None:
    """Train as the `train.py` of traiNNer-redux does, with `experiments/` in the clone."""
    train = script_beside(traiNNer)
    launch(train, str(Path(str(train.__file__)).parent), get_root_logger)


if __name__ == "__main__":
    run()
