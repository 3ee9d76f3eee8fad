"""Copies between host and device that do not hold up the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from srshards.imaging.pixels import Pixels


def upload(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Return H x W x 3 uint8 images of equal size as N x 3 x H x W in channels_last layout, still being copied."""
    shape = (len(images), *images[0].shape)
    batch = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")  # only page-locked copies overlap
    np.stack(images, out=batch.numpy())
    return batch.to(device, non_blocking=True).permute(0, 3, 1, 2)


def download(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the tensors on the host, packed into one, so that the host waits for the device only once."""
    if not tensors:
        return []
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
    as_bytes = [tensor.to(device, non_blocking=True).contiguous().flatten().view(torch.uint8) for tensor in tensors]
    parts = torch.split(torch.cat(as_bytes).cpu(), [len(part) for part in as_bytes])
    # Cloned, because tensors of another dtype must be aligned.
    return [part.clone().view(like.dtype).view(like.shape) for part, like in zip(parts, tensors, strict=True)]
