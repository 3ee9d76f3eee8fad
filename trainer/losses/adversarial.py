"""Adversarial losses of a network and its discriminator, as functions of the discriminator's logits."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Pointwise = Callable[[Tensor], Tensor]


class DiscriminatorFigures(NamedTuple):
    """The discriminator's loss, and its mean scores of real and of generated images: float32 scalars.

    Scores are probabilities of being real, from 0 to 1, if the loss is that of a classifier (vanilla, relativistic);
    otherwise the logits themselves, which lsgan draws to 1 and 0, hinge beyond 1 and -1.
    """

    loss: Tensor
    real_score: Tensor
    fake_score: Tensor


SCORES = ("real", "generated")  # names of the scores in the journal


def of_one_process(values: Tensor) -> Tensor:
    """Return the values: their mean over the ranks if there is one."""
    return values


@dataclass(frozen=True)
class AdversarialLoss:
    """An adversarial loss: what a logit of a real or a generated (fake) image costs, averaged over all logits.

    With `is_relativistic`, the costs are of the logits relative to the mean logit of the other kind of images, of the
    whole batch: `over_ranks` must be differentiable and return the mean of its argument over all ranks. The
    discriminator's and the network's loss are then half the sums over both kinds. `guessing` is the least loss of a
    discriminator that tells nothing apart, i.e. with equal logits for all images.
    """

    real: Pointwise  # of the discriminator for real images
    fake: Pointwise  # of the discriminator for generated images
    fooling: Pointwise  # of the network for generated images
    score: Pointwise
    guessing: float
    is_relativistic: bool = False

    def discriminator(self, real: Tensor, fake: Tensor, over_ranks: Pointwise = of_one_process) -> DiscriminatorFigures:
        """Return the discriminator's loss and scores for logits of any shape and dtype."""
        real, fake = self._compared(real, fake, over_ranks)
        loss = self.real(real).mean() + self.fake(fake).mean()
        with torch.no_grad():
            scores = self.score(real).mean(), self.score(fake).mean()
        return DiscriminatorFigures(loss / 2 if self.is_relativistic else loss, *scores)

    def generator(self, fake: Tensor, real: Tensor | None = None, over_ranks: Pointwise = of_one_process) -> Tensor:
        """Return the network's loss as a float32 scalar: real and generated images change roles.

        ValueError without the `real` logits that `is_relativistic` needs.
        """
        if not self.is_relativistic:
            return self.fooling(fake.float()).mean()
        if real is None:
            raise ValueError("a relativistic loss needs the logits of real images, too")
        real, fake = self._compared(real, fake, over_ranks)
        return (self.fake(real).mean() + self.fooling(fake).mean()) / 2

    def _compared(self, real: Tensor, fake: Tensor, over_ranks: Pointwise) -> tuple[Tensor, Tensor]:
        """Return the logits in float32, relative to each other if the loss is."""
        real, fake = real.float(), fake.float()
        if not self.is_relativistic:
            return real, fake
        mean_real, mean_fake = over_ranks(torch.stack([real.mean(), fake.mean()])).unbind()
        return real - mean_fake, fake - mean_real


def _certainly_real(logits: Tensor) -> Tensor:
    """Return -log sigmoid(x): the binary cross-entropy of logits whose images should be real."""
    return functional.softplus(-logits)


# Goodfellow et al., Generative Adversarial Nets, 2014, with the non-saturating loss of the network, as in Real-ESRGAN.
_VANILLA = AdversarialLoss(
    real=_certainly_real,
    fake=functional.softplus,  # -log(1 - sigmoid(x))
    fooling=_certainly_real,
    score=torch.sigmoid,
    guessing=2 * math.log(2),
)
# Mao et al., Least Squares Generative Adversarial Networks, 2017, with the labels 0 and 1, without its factor 1/2.
_LSGAN = AdversarialLoss(
    real=lambda logits: (logits - 1).square(),
    fake=torch.square,
    fooling=lambda logits: (logits - 1).square(),
    score=lambda logits: logits,
    guessing=0.5,
)
# Lim and Ye, Geometric GAN, 2017; Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018.
_HINGE = AdversarialLoss(
    real=lambda logits: functional.relu(1 - logits),
    fake=lambda logits: functional.relu(1 + logits),
    fooling=torch.neg,
    score=lambda logits: logits,
    guessing=2.0,
)
# The relativistic average GAN of Jolicoeur-Martineau, The relativistic discriminator, 2018, as used in ESRGAN (Wang et
# al., 2018), whose code also halves the sums.
_RELATIVISTIC = AdversarialLoss(
    real=_certainly_real,
    fake=functional.softplus,
    fooling=_certainly_real,
    score=torch.sigmoid,
    guessing=math.log(2),
    is_relativistic=True,
)

ADVERSARIAL_LOSSES = {"vanilla": _VANILLA, "lsgan": _LSGAN, "hinge": _HINGE, "relativistic": _RELATIVISTIC}
