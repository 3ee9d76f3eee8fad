"""The losses that networks can be trained on. Does not import PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LossRow:
    label: str
    source: str
    min_px: int = 1
    weights: tuple[str, ...] = ()
    uses_ema: bool = False


LOSSES = {"l1": LossRow("L1", ""), "charbonnier": LossRow("Charbonnier", "")}
