"""Compare the patches of examples/dali_pipeline.py with those that srshards cuts: `python dali_patches.py SHARDS`.

Needs an environment with DALI and this repository on its path. Fails with AssertionError if a bit differs.
"""

import json
import sys
from pathlib import Path

import numpy as np

import srshards
from examples.dali_pipeline import patches

PATCH_PX = 48


def compare(folder: str, split: str) -> None:
    """Compare three passes over a split of the shards in `folder`."""
    samples = {(s.meta["source"], *s.meta["box"]): s for s in srshards.open(folder).split(split)}
    pipeline = patches(Path(folder), PATCH_PX, split, batch_size=8, num_threads=2, device_id=None, seed=0)
    pipeline.build()
    seen = set()
    for _ in range(3 * len(samples)):
        for tensors in zip(*pipeline.run(), strict=True):
            hr, lr, (y, x), described = map(np.array, tensors)
            meta = json.loads(bytes(described))
            sample = samples[(meta["source"], *meta["box"])]
            scale, size = meta["scale"], PATCH_PX // meta["scale"]
            assert np.array_equal(lr, sample.lr[y : y + size, x : x + size])
            assert np.array_equal(hr, sample.hr[y * scale :, x * scale :][:PATCH_PX, :PATCH_PX])
            seen.add(sample.key)
    assert len(seen) == len(samples)


if __name__ == "__main__":
    for name in ("train", "val"):
        compare(sys.argv[1], name)
