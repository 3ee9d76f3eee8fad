"""The discriminator and the adversarial losses of Real-ESRGAN 0.3.0 and BasicSR 1.4.2, compared with the trainer's."""

from pathlib import Path

import pytest
import torch
from basicsr.losses.gan_loss import GANLoss
from realesrgan.archs.discriminator_arch import UNetDiscriminatorSN
from torch import Tensor

from trainer.losses.adversarial import ADVERSARIAL_LOSSES
from trainer.models.discriminators import load_discriminator
from trainer.models.spectral_norm import Discriminator
from trainer.models.weights import save_weights
from trainer.training.adversary import Adversary, AdversarySettings
from trainer.training.device import Precision
from trainer.training.step_mode import StepMode


@pytest.fixture
def published() -> UNetDiscriminatorSN:
    """Real-ESRGAN's discriminator, with singular vectors that have converged."""
    torch.manual_seed(0)
    network = UNetDiscriminatorSN(3).train()
    for _ in range(50):
        network(torch.rand(1, 3, 8, 8))
    return network.eval()


@pytest.fixture
def ours(published: UNetDiscriminatorSN, tmp_path: Path) -> Discriminator:
    """The same, read from a file as BasicSR saves it."""
    torch.save({"params": published.state_dict()}, tmp_path / "net_d.pth")
    return load_discriminator("unet", tmp_path / "net_d.pth")


def test_unet_is_that_of_realesrgan(published: UNetDiscriminatorSN, ours: Discriminator, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 40, 56)
    torch.testing.assert_close(ours(images), published(images))
    expected = published.train()(images)  # after a power iteration
    ours.iterate()
    torch.testing.assert_close(ours(images), expected)
    save_weights(tmp_path / "ours.pth", ours.state_dict(), None)
    UNetDiscriminatorSN(3).load_state_dict(torch.load(tmp_path / "ours.pth")["params"], strict=True)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge"])
def test_losses_are_those_of_basicsr(kind: str) -> None:
    loss, published = ADVERSARIAL_LOSSES[kind], GANLoss(kind)
    real, fake = 3 * torch.randn(2, 4, 1, 5, 6)
    judgement = loss.discriminator(real, fake)
    expected = published(real, True, is_disc=True) + published(fake, False, is_disc=True)
    torch.testing.assert_close(judgement.loss, expected)
    torch.testing.assert_close(loss.generator(fake), published(fake, True))


def test_relativistic_loss_is_that_of_esrgan() -> None:
    loss, published = ADVERSARIAL_LOSSES["relativistic"], GANLoss("vanilla")
    real, fake = 3 * torch.randn(2, 4, 1, 5, 6)

    def expected(real_is_real: bool) -> Tensor:
        of_real = published(real - fake.mean(), real_is_real, is_disc=True)
        return (of_real + published(fake - real.mean(), not real_is_real, is_disc=True)) / 2

    torch.testing.assert_close(loss.discriminator(real, fake).loss, expected(True))
    torch.testing.assert_close(loss.generator(fake, real), expected(False))


def test_step_is_that_of_realesrgan(published: UNetDiscriminatorSN, ours: Discriminator) -> None:
    """Up to the power iterations, which Real-ESRGAN does in every forward pass: here, none."""
    loss = GANLoss("vanilla")
    optimizer = torch.optim.Adam(published.parameters(), 1e-4, betas=(0.9, 0.99))
    target, output = torch.rand(2, 2, 3, 32, 32)
    for images, is_real in ((target, True), (output, False)):
        loss(published(images), is_real, is_disc=True).backward()
    optimizer.step()
    settings = AdversarySettings(ADVERSARIAL_LOSSES["vanilla"], Precision(None), StepMode(), 1e-4)
    Adversary(ours, settings).update(output, target)
    for one, other in zip(ours.parameters(), published.parameters(), strict=True):
        # Where a gradient is nearly zero, rounding decides on the sign of Adam's first step.
        assert ((one - other).abs() > 1e-6).float().mean() < 1e-3
