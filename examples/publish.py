"""Publish a folder of shards on the Hugging Face Hub with its dataset card, and read it back from there.

hf auth login
python examples/publish.py shards USER/NAME --license cc-by-4.0

The data set is private unless `--public` is passed. Generate the shards with `--codec png` or `webp`, which the Hub
shows as images.

Time: that of the upload. Hardware: any; an account with a token for writing is needed. Output, here from an imitation
of the Hub (tests/fake_hub.py), with 60 photos:

    datasets: 000000000000, {'hr.png': (256, 256, 3), 'lr.png': (64, 64, 3)}
    srshards: <Shards 4x: 59 train, 1 val samples, HR 256 px, png>
"""

import argparse
import re
from pathlib import Path

import numpy as np
from datasets import load_dataset
from huggingface_hub import HfApi

import srshards


def fill_in_license(folder: Path, name: str) -> None:
    """Write the license into the dataset cards: that of the complete folder and that of each scale."""
    for card in (folder / "README.md", *folder.glob("scale_*/README.md")):
        card.write_text(re.sub(r"(?<=^license: ).*", name, card.read_text(), count=1, flags=re.MULTILINE))


def upload(folder: Path, repository: str, private: bool) -> None:
    """Create the repository if it does not exist, and upload all files that are not hidden."""
    api = HfApi()
    api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
    api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder, ignore_patterns=".*")


def read_back(repository: str, scale: str) -> None:
    """Print what `datasets` and srshards read from the Hub, without a local copy of the data set."""
    row = next(iter(load_dataset(repository, scale, split="train", streaming=True)))
    shapes = {name: np.asarray(image).shape for name, image in row.items() if re.match(r"hr\.|lr\.", name)}
    print(f"datasets: {row['__key__']}, {shapes}")
    print(f"srshards: {srshards.open(f'hf://datasets/{repository}/{scale}')}")


def publish(folder: Path, repository: str, license_name: str, public: bool) -> None:
    """Fill in the license, upload the folder, and read each scale back."""
    fill_in_license(folder, license_name)
    upload(folder, repository, private=not public)
    for scale in sorted(folder.glob("scale_*")):
        read_back(repository, scale.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the output folder of `shardgen generate` or `pack`")
    parser.add_argument("repository", help="USER/NAME")
    parser.add_argument("--license", dest="license_name", required=True, help="license of the photos, e.g. cc-by-4.0")
    parser.add_argument("--public", action="store_true", help="visible for everyone")
    publish(**vars(parser.parse_args()))
