"""Warm-up and the EMA of the weights."""

import copy
from itertools import repeat

import pytest
import torch

from srshards import PatchBatch
from trainer.loss_terms import LossTerm
from trainer.models import network_spec
from trainer.training.config import DEFAULT_EMA
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.plan import default_warmup
from trainer.training.step_mode import StepMode


@pytest.mark.parametrize(
    ("steps", "warmup"), [(1, 1), (2, 1), (150, 45), (300, 90), (1000, 300), (1667, 500), (5000, 500), (10**6, 500)]
)
def test_default_warmup(steps: int, warmup: int) -> None:
    assert default_warmup(steps) == warmup


def test_ema_of_a_short_run_is_not_dominated_by_the_initial_weights() -> None:
    """With a decay of 0.999 from the first step on, 97 % of the EMA after 30 steps would be the initial weights."""
    network = network_spec("ultra_lite", 2).build()
    settings = StepSettings(30, 1e-3, 5, Objective([LossTerm("l1")]), Precision(None), 1, 1.0, DEFAULT_EMA, StepMode())
    learner = Learner(network, copy.deepcopy(network), settings)
    initial = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    draw = torch.Generator().manual_seed(0)
    hr, lr = (torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=draw) for side in (16, 8))
    for step in range(30):
        learner.step(step, repeat(PatchBatch(hr, lr, ())))
    last, ema = (
        torch.nn.utils.parameters_to_vector(one.parameters()).detach() for one in (network, learner.evaluation_network)
    )
    assert (ema - last).norm() < 0.3 * (initial - last).norm()
