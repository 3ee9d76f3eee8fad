"""Train with BasicSR on a CPU, and record what the model is fed and what it loses, as one JSON object per iteration.

    python recorded_run.py RECORD launcher|dataset OPTIONS...

The options are those of BasicSR. `launcher` is `python -m srshards.adapters.basicsr`, `dataset` a training script that
imports the adapter and keeps BasicSR's data loader. Under torchrun, ranks are those of gloo.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import basicsr.train
import torch
from basicsr.models.sr_model import SRModel

import srshards.adapters.basicsr
from srshards.adapters.basicsr.__main__ import run


def record(path: Path) -> None:
    """Append what each call of the model's training methods does to a file."""
    feed, optimize = SRModel.feed_data, SRModel.optimize_parameters

    def feed_data(self: Any, data: dict[str, Any]) -> None:
        feed(self, data)
        self.fed = [digest(data[name]) for name in ("gt", "lq")]

    def optimize_parameters(self: Any, iteration: int) -> None:
        optimize(self, iteration)
        with open(path, "a") as file:
            print(json.dumps({"iteration": iteration, "fed": self.fed, "loss": self.log_dict["l_pix"]}), file=file)

    SRModel.feed_data, SRModel.optimize_parameters = feed_data, optimize_parameters


def digest(images: torch.Tensor) -> str:
    """Return a hash of N x 3 x H x W floats."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    target, mode = Path(sys.argv[1]), sys.argv[2]
    sys.argv[1:] = sys.argv[3:]
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
        target = target.with_suffix(f".{torch.distributed.get_rank()}")
    record(target)
    if mode == "launcher":
        run()
    else:
        assert srshards.adapters.basicsr.ShardsDataset
        basicsr.train.train_pipeline(str(Path.cwd()))
