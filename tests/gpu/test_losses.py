"""Losses on a GPU: as accurate as on a CPU, also in flat areas, where TF32 would not do, and within a CUDA graph."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from trainer.loss_table import LOSSES
from trainer.losses import Loss, build_loss
from trainer.training.captured import NUM_WARM_UPS, Captured, ImagePair

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAMES = [name for name in LOSSES if not LOSSES[name].weights]


def pair(seed: int, device: torch.device) -> ImagePair:
    """Return a bright flat target, and an output with little noise, in the layout of batches."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.full((2, 3, 192, 192), 0.97)
    output = target + 1e-3 * torch.randn(target.shape, generator=generator)
    target, output = (one.to(device, memory_format=torch.channels_last) for one in (target, output))
    return target, output


def loss_and_gradient(name: str, loss: Loss, images: ImagePair) -> Tensor:
    """Return both as one vector."""
    target, output = images[0], images[1].detach().requires_grad_()
    value = loss(output, target, target + 2e-3) if LOSSES[name].uses_ema else loss(output, target)
    return torch.cat([value.view(1), torch.autograd.grad(value, output)[0].flatten()])


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_the_cpu(name: str) -> None:
    found = loss_and_gradient(name, build_loss(name, GPU), pair(1, GPU)).cpu()
    expected = loss_and_gradient(name, build_loss(name, CPU), pair(1, CPU))
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-3)
    assert (found[1:] - expected[1:]).norm() < 0.01 * expected[1:].norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_cuda_graph_computes_the_losses(name: str) -> None:
    loss = build_loss(name, GPU)

    def work(images: Sequence[ImagePair]) -> Tensor:
        return loss_and_gradient(name, loss, images[0])

    captured = Captured(work, GPU)
    for seed in range(NUM_WARM_UPS + 3):
        captured.load(0, pair(seed, GPU))
        torch.testing.assert_close(captured(), work([pair(seed, GPU)]))
