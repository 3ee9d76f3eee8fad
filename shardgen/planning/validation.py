"""Sizes of validation sets: which are too small, and the fraction of the photos that makes a larger one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shardgen.planning.config import Config
from shardgen.planning.plan import order_photos, take_sample
from shardgen.planning.sources import Source

_ENOUGH = 5
_MIN_PHOTOS = 20  # fewer have none to spare
_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5)


def is_small(train: int, val: int) -> bool:
    """Return whether so few of these photos are in `val` that single ones decide which weights are the best."""
    return 0 < val < _ENOUGH and train + val >= _MIN_PHOTOS


def larger_fraction(photos: Sequence[Source], config: Config) -> tuple[float, int] | None:
    """Return the least of some `--val-fraction` that reserves enough photos, and how many `plan_shards` then plans.

    None if that of `config` is larger already.
    """
    for fraction in _FRACTIONS:
        if fraction > (config.val_fraction or 0.0):
            order = order_photos(photos, replace(config, val_fraction=fraction))
            count = np.count_nonzero(take_sample(order, config).in_val)
            if count >= _ENOUGH:
                return fraction, int(count)
    return None
