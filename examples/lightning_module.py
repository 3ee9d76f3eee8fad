"""Trains a network with Lightning, whose checkpoints hold where the loader was: a run goes on at the very next batch.

pip install lightning
python examples/lightning_module.py shards/scale_4x --steps 1000
"""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import srshards


class SuperResolution(lightning.LightningModule):
    """Any network that enlarges N x 3 x h x w images in [0, 1] by the scale of the shards."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.shards = srshards.open(folder)
        last = nn.Conv2d(32, 3 * self.shards.scale**2, 3, padding=1)
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.GELU(), last, nn.PixelShuffle(self.shards.scale)
        )

    def train_dataloader(self) -> srshards.PatchLoader:
        """By now Lightning has started its processes: each makes a loader for its own rank and device."""
        return srshards.PatchLoader(self.shards, min(192, self.shards.hr_size), batch_size=16, device=self.device)

    def training_step(self, batch: srshards.PatchBatch, number: int) -> torch.Tensor:
        """The L1 loss of a batch of N x H x W x 3 uint8 images."""
        hr, small = (images.permute(0, 3, 1, 2).float() / 255 for images in (batch.hr, batch.input))
        loss = nn.functional.l1_loss(self.network(small), hr)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW for all parameters."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(folder: str, steps: int, out: Path) -> None:
    """Train up to a step, from the last checkpoint if there is one."""
    saving = ModelCheckpoint(out, save_last=True, every_n_train_steps=min(steps, 500), enable_version_counter=False)
    trainer = lightning.Trainer(max_steps=steps, default_root_dir=out, callbacks=[saving], log_every_n_steps=50)
    last = out / "last.ckpt"
    trainer.fit(SuperResolution(folder), ckpt_path=last if last.exists() else None)


if __name__ == "__main__":  # data workers import this file too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder of shards, or s3://...")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("lightning"))
    train(**vars(parser.parse_args()))
