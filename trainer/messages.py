"""Text for messages: option names in place of the library's arguments, and durations."""

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
    return _ARGUMENT.sub(lambda match: _OPTIONS.get(match[1], option_name(match[1])), message)


def option_name(setting: str) -> str:
    """Return the command-line option of a setting: `--batch-size` for `batch_size`."""
    return "--" + setting.replace("_", "-")


def format_duration(seconds: float) -> str:
    """Return e.g. `1 h 5 min`, `5 min 3 s` or `3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
