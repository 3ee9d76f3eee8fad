"""The usual training loop: a `Dataset` of PNG pairs, a `DataLoader`, float32, Adam, `.item()` in every step.

The network is this project's, in PyTorch's default memory layout. The loop has the usual features: workers, pinned
batches, cuDNN autotuning, TF32 convolutions (PyTorch's default for float32). It has no EMA and no gradient clipping, so
it does less per step than the trainer.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.gpu.window import Timed, measure_steps, window_for
from benchmarks.peers.pictures import encode_png
from srshards.shards.stored_samples import open_manifest, stored_samples
from trainer.models import network_spec
from trainer.training.device import choose_device, limit_threads

_MAX_PAIRS = 128
_ENDLESS_SAMPLES = 10**9
_LR = 2e-4


def write_pairs(shards: Path, folder: Path) -> int:
    """Write `000000_hr.png`, `000000_lr.png`, ... of the first training samples; return the number of pairs."""
    folder.mkdir(parents=True)
    manifest = open_manifest(shards)
    names = [record.name for record in manifest.shards if record.split == "train" and record.samples]
    samples = [sample for name in names for sample in stored_samples(shards, name)][:_MAX_PAIRS]
    for number, sample in enumerate(samples):
        for name in ("hr", "lr"):
            (folder / f"{number:06d}_{name}.png").write_bytes(encode_png(sample.image(name)))
    return len(samples)


class PngPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """3 x p x p HR and 3 x q x q LR patches, float32 RGB in [0, 1], of the PNG files in a folder."""

    def __init__(self, folder: Path, patch: int) -> None:
        self._hr = sorted(folder.glob("*_hr.png"))
        self._patch = patch

    def __len__(self) -> int:
        return len(self._hr)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self._hr[index]
        hr, lr = (_read(path.with_name(path.name.replace("_hr", name))) for name in ("_hr", "_lr"))
        scale = hr.shape[0] // lr.shape[0]
        size = self._patch // scale
        top, left = random.randint(0, lr.shape[0] - size), random.randint(0, lr.shape[1] - size)
        lr = lr[top : top + size, left : left + size]
        hr = hr[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
        if random.random() < 0.5:
            hr, lr = hr[:, ::-1], lr[:, ::-1]
        if random.random() < 0.5:
            hr, lr = hr[::-1], lr[::-1]
        return _to_tensor(hr), _to_tensor(lr)


def measure_plain(
    model: str, batch: int, patch: int, shards: str, pairs: str, device: str, workers: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield the rate and, as shares of the time, that in the `DataLoader` and that of taking batches to the device."""
    limit_threads()
    torch.backends.cudnn.benchmark = True
    on = choose_device(device)
    network = network_spec(model, open_manifest(Path(shards)).scale).build().to(on)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LR)
    loaded = Timed(iter(_loader(PngPairs(Path(pairs), patch), batch, workers, on)))
    batches = Timed(_on(on, loaded))

    def step() -> torch.Tensor:
        hr, lr = next(batches)
        optimizer.zero_grad()
        loss = functional.l1_loss(network(lr), hr)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # as for a log or a progress bar
        return loss

    shares = {"data_wait": lambda: loaded.seconds, "taking_batches": lambda: batches.seconds}
    found = measure_steps(step, batch, window_for(on, seconds, 2 * workers), on, shares)
    yield {"precision": "float32", **found}


def _loader(
    pairs: PngPairs, batch: int, workers: int, device: torch.device
) -> "DataLoader[tuple[torch.Tensor, torch.Tensor]]":
    """Return an endless loader, because short epochs would often restart its workers."""
    return DataLoader(
        pairs,
        batch_size=batch,
        sampler=RandomSampler(pairs, replacement=True, num_samples=_ENDLESS_SAMPLES),
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )


def _on(
    device: torch.device, loaded: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for hr, lr in loaded:
        yield hr.to(device), lr.to(device)


def _read(path: Path) -> Any:
    image = cv2.imread(str(path))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _to_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255)
