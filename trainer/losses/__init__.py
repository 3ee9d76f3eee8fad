"""The losses as functions of tensors."""

from trainer.losses.pixel import LOSSES


def build_loss(name, device, weights):  # type: ignore
    return LOSSES[name]
