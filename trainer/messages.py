"""The library's messages, which name arguments of its functions, in the words of the command line."""

import re

# Of all others, the option has the name of the argument.
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
    """`` `cache` /disk: cannot write there`` becomes `--cache /disk: cannot write there`."""
    return _ARGUMENT.sub(lambda found: _OPTIONS.get(found[1], "--" + found[1].replace("_", "-")), message)
