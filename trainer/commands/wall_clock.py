"""Text about how the wall-clock time of a run divided."""

import math

from trainer.messages import format_duration
from trainer.training.account import PHASE_NAMES, Account

_MAX_DATA_WAIT = 0.02  # of the time after the start-up
_MIN_JUDGED_S = 60.0  # shorter runs are dominated by their first batches


def wall_clock(account: Account) -> str:
    """Return the shares of the wall-clock time in one line and, if waiting for data took long, advice in a second."""
    seconds = account.seconds()
    total_s = sum(seconds.values())
    before = f" ({format_duration(account.earlier_s)} of it before it was resumed)" if account.earlier_s else ""
    shares = ", ".join(f"{name} {seconds[key] / total_s:.1%}" for key, name in PHASE_NAMES.items())
    line = f"Wall clock {format_duration(total_s)}{before}: {shares}"
    if not math.isnan(account.steps_share):
        line += f"; from the first step to the last, steps {account.steps_share:.1%}"
    trained_s = total_s - seconds["start_up_s"]
    if trained_s > _MIN_JUDGED_S and seconds["data_wait_s"] > _MAX_DATA_WAIT * trained_s:
        line += "\nTo wait less for data, use shards with --codec npy, a local disk or --cache, or more --workers"
    return line
