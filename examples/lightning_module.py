"""Train a network with Lightning. Checkpoints include the loader's state, so a run resumes at exactly the next batch.

pip install lightning
python examples/lightning_module.py shards/scale_4x --steps 1000

Time: 20 steps take 8 s of CPU time, 4 s of them for the start. Hardware: a CPU with 2 cores, or any number of GPUs.
Output: Lightning's table of the network, its progress bar with the loss, and at the end

    `Trainer.fit` stopped: `max_steps=20` reached.

Checkpoints are in `lightning/`; the same command with more steps continues from `last.ckpt`.
"""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import srshards


class SuperResolution(lightning.LightningModule):
    """A network that upscales N x 3 x h x w images in [0, 1] by the scale of the shards. Replace it with your own."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.shards = srshards.open(folder)
        last = nn.Conv2d(32, 3 * self.shards.scale**2, 3, padding=1)
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.GELU(), last, nn.PixelShuffle(self.shards.scale)
        )

    def train_dataloader(self) -> srshards.PatchLoader:
        """Create the loader. Lightning calls this in each of its processes, with the rank and device already set."""
        return srshards.PatchLoader(self.shards, min(192, self.shards.hr_size), batch_size=16, device=self.device)

    def training_step(self, batch: srshards.PatchBatch, number: int) -> torch.Tensor:
        """Return the L1 loss of a batch of N x H x W x 3 uint8 images."""
        hr, lr = (images.permute(0, 3, 1, 2).float() / 255 for images in (batch.hr, batch.input))
        loss = nn.functional.l1_loss(self.network(lr), hr)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW for all parameters."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(folder: str, steps: int, out: Path) -> None:
    """Train up to step `steps`, resuming from the last checkpoint if there is one."""
    saving = ModelCheckpoint(out, save_last=True, every_n_train_steps=min(steps, 500), enable_version_counter=False)
    trainer = lightning.Trainer(max_steps=steps, default_root_dir=out, callbacks=[saving], log_every_n_steps=50)
    last = out / "last.ckpt"
    trainer.fit(SuperResolution(folder), ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder of shards, or s3://...")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("lightning"))
    train(**vars(parser.parse_args()))
