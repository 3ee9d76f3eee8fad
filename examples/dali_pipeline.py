"""Read batches of random patches from shards with NVIDIA DALI, each pair cropped at the same place of HR and LR.

python examples/dali_pipeline.py shards/scale_4x --patch-size 192

It needs DALI (`pip install nvidia-dali-cuda120`; tested without a GPU), but neither sr-shards nor PyTorch.

Time: seconds. Hardware: a CPU, or with `--device-id 0` a GPU for the batches. Output: two lines, the shapes of HR, LR
and the number of pairs, then the photo of the first one and the position of its patch.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nvidia.dali import Pipeline, fn, pipeline_def, types


@pipeline_def
def patches(
    folder: Path, patch_size: int, split: str = "train", shuffle: int = 1000, rank: int = 0, world_size: int = 1
) -> Any:
    """Return patches of HR (p x p x 3, uint8) and LR, their positions (y, x) in LR px, and the samples' JSON.

    `shuffle` is the number of samples in the shuffle buffer; 0 keeps the order of the shards. With `device_id`, the
    patches are on that GPU.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    scale, hr_size, codec = (manifest["settings"][name] for name in ("scale", "hr_size", "codec"))
    if patch_size % scale or patch_size > hr_size:
        raise ValueError(f"patch size {patch_size}: expected a multiple of {scale}, at most {hr_size}")
    shards = [folder / shard["name"] for shard in manifest["shards"] if shard["split"] == split]
    hr_file, lr_file, described = fn.readers.webdataset(
        paths=[f"{shard}.tar" for shard in shards],
        index_paths=[f"{shard}.idx" for shard in shards],
        ext=[f"hr.{codec}", f"lr.{codec}", "json"],
        missing_component_behavior="error",
        random_shuffle=shuffle > 0,
        initial_fill=max(shuffle, 1),
        shard_id=rank,
        num_shards=world_size,
        name="reader",
    )
    decode = fn.decoders.numpy if codec == "npy" else fn.decoders.image
    lr_patch_size = patch_size // scale
    num_positions = hr_size // scale - lr_patch_size + 1
    at = fn.random.uniform(values=list(range(num_positions)), shape=2, dtype=types.INT32)
    hr = fn.slice(decode(hr_file), start=at * scale, shape=[patch_size] * 2, axes=[0, 1])
    lr = fn.slice(decode(lr_file), start=at, shape=[lr_patch_size] * 2, axes=[0, 1])
    return *((hr, lr) if Pipeline.current().device_id is None else (hr.gpu(), lr.gpu())), at, described


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="a folder of shards of one scale")
    parser.add_argument("--patch-size", type=int, default=192, help="edge of the HR patches in px")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device-id", type=int, help="GPU for the batches; by default, they stay on the CPU")
    args = parser.parse_args()
    pipeline = patches(
        args.folder, args.patch_size, batch_size=args.batch_size, num_threads=4, device_id=args.device_id, seed=0
    )
    pipeline.build()
    hr, lr, at, described = pipeline.run()
    print(f"HR {hr.shape()[0]}, LR {lr.shape()[0]}, {len(hr)} pairs of {pipeline.reader_meta('reader')['epoch_size']}")
    print("first:", json.loads(bytes(described.at(0)))["source"], "at", at.at(0).tolist())


if __name__ == "__main__":
    main()
