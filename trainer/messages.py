"""Translate the library's messages from function arguments to command-line options."""

import re

# All other options have the argument's name.
_OPTIONS = {"path": "--shards", "decode": "--cache-decoded", "micro_batches": "--grad-accum"}
_ARGUMENTS = (
    "path",
    "cache",
    "cache_bytes",
    "decode",
    "device",
    "input",
    "patch_size",
    "batch_size",
    "micro_batches",
    "patches_per_sample",
    "prefetch",
    "resident",
    "seed",
    "workers",
)
_ARGUMENT = re.compile(f"`({'|'.join(_ARGUMENTS)})`")


def with_options(message: str) -> str:
    """Replace arguments by options: `` `cache` /disk: cannot write`` becomes `--cache /disk: cannot write`."""
    return _ARGUMENT.sub(lambda found: _OPTIONS.get(found[1], "--" + found[1].replace("_", "-")), message)
