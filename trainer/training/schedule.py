"""Learning rate schedules: pure functions of the step. Does not import PyTorch, which is too slow for help."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from srshards.errors import UsageError

# The share of the peak rate at a step >= warmup, from the step, the total of steps and the steps of the warm-up.
Decay: TypeAlias = Callable[[int, int, int], float]

# Shares of the run: those of SwinIR, HAT and DAT (250, 400, 450 and 475 of 500 thousand steps).
DEFAULT_MILESTONES = (0.5, 0.8, 0.9, 0.95)
_GAMMA = 0.5  # of BasicSR's and the authors' configurations
_FINAL_SHARE = 0.01
_DECAY_SHARE = 0.3


def cosine(step: int, total: int, warmup: int, floor: float = _FINAL_SHARE) -> float:
    """Half a period of a cosine, from 1 after the warm-up to `floor` at the last step."""
    progress = (step - warmup) / max(1, total - 1 - warmup)
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def constant(step: int, total: int, warmup: int) -> float:
    """1 at every step."""
    return 1.0


def wsd(step: int, total: int, warmup: int) -> float:
    """Warmup-stable-decay (Hu et al., MiniCPM, 2024): 1, then a linear decay to 0 in the last 30 % of the run.

    Also called a trapezoidal schedule.
    """
    return min(1.0, (total - step) / (_DECAY_SHARE * total))


def multistep(milestones: Sequence[int]) -> Decay:
    """Return a decay that halves from each of these steps on, counted from 0, as BasicSR's MultiStepLR with gamma 0.5.

    BasicSR counts from 1: its rate of iteration n is that of step n - 1 here.
    """
    return lambda step, total, warmup: _GAMMA ** sum(milestone <= step for milestone in milestones)


SCHEDULES = ("cosine", "multistep", "constant", "wsd")
_DECAYS: dict[str, Decay] = {"cosine": cosine, "constant": constant, "wsd": wsd}


def decay_of(name: str, milestones: Sequence[int]) -> Decay:
    """Return the decay called `name`, one of SCHEDULES. `milestones` are the steps of `multistep`."""
    return multistep(milestones) if name == "multistep" else _DECAYS[name]


def learning_rate(step: int, total: int, peak: float, warmup: int, decay: Decay) -> float:
    """Return the rate of step 0 .. total-1: linear warm-up for `warmup` steps, then `decay` from `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * decay(step, total, warmup)


def milestone_steps(milestones: Sequence[float], total: int) -> tuple[int, ...]:
    """Return milestones as steps: floats are shares of the run."""
    return tuple(min(total - 1, round(one * total)) if type(one) is float else int(one) for one in milestones)


def parse_milestones(text: str) -> tuple[float, ...]:
    """Parse steps or shares of the run, separated by commas: `5000,8000`, `0.5,0.8`. UsageError for anything else."""
    try:
        values = tuple(float(one) if set(one) & set(".eE") else int(one) for one in text.split(","))
    except ValueError:
        values = (math.nan,)
    check_milestones(values, text)
    return values


def check_milestones(milestones: Sequence[object], text: str | None = None) -> None:
    """Raise UsageError unless all are steps from 1 on, or floats between 0 and 1. `text` is how they were given."""
    if not milestones or not all(
        (type(one) is int and one >= 1) or (type(one) is float and 0 < one < 1) for one in milestones
    ):
        given = ",".join(map(str, milestones)) if text is None else text
        raise UsageError(f"{given!r}: expected steps or shares of the run, ascending, e.g. 250000,400000 or 0.5,0.8")


def check_warmup(warmup: int, total: int) -> None:
    """Raise UsageError if a run of `total` steps ends before its warm-up."""
    if warmup > total:
        raise UsageError(
            f"--warmup {warmup}: the run ends after step {total:,}, before it reaches the peak rate; pass at most "
            f"{total}"
        )


def check_milestone_steps(milestones: Sequence[float], warmup: int, total: int) -> None:
    """Raise UsageError unless milestones that `check_milestones` accepts ascend from the warm-up to the last step."""
    steps = milestone_steps(milestones, total)
    option = f"--milestones {','.join(map(str, milestones))}"
    if list(steps) != sorted(steps) or len(set(milestones)) < len(milestones):
        raise UsageError(f"{option}: expected ascending steps, but they are {', '.join(f'{one:,}' for one in steps)}")
    if steps and steps[-1] >= total:
        raise UsageError(
            f"{option}: the run ends after step {total:,}; pass smaller steps, or shares of the run, e.g. 0.5,0.8"
        )
    if steps and steps[0] < warmup - 1:  # the last step of the warm-up has the peak rate
        raise UsageError(
            f"{option}: step {steps[0]:,} is within the warm-up of {warmup:,} steps; pass a smaller --warmup, e.g. 0, "
            "or later milestones"
        )
