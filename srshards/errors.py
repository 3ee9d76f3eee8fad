"""Errors whose message is for the user: what was expected, what came, and what to do."""


class ReportedError(Exception):
    """Base of the errors that end a command with a message instead of a traceback."""

    exit_code = 1


class UsageError(ReportedError):
    """An error that the user can fix: an impossible setting, a missing folder, wrong weights, too little memory.

    >>> import srshards
    >>> try:
    ...     srshards.open("missing")
    ... except srshards.UsageError as error:
    ...     print(error)
    `path` missing: expected a folder of shards, but it does not exist; make shards first: ...
    """

    exit_code = 2


class RunError(ReportedError):
    """The request was right, but the work failed: a full disk, a dead worker, damaged shards.

    >>> import srshards
    >>> next(iter(srshards.webdataset("missing.tar", patch_size=16)))
    Traceback (most recent call last):
        ...
    srshards.errors.RunError: missing.tar: ...
    """


class PhotoError(Exception):
    """A photo cannot become a sample. The message is the reason that the manifest gives for it."""


class ArgumentError(UsageError, ValueError):
    """An argument that cannot be used, and what to give instead.

    Arguments stand in backticks in the message, so that a command can put the names of its options there.

    >>> import srshards
    >>> srshards.PatchDataset(shards, patch_size=15)
    Traceback (most recent call last):
        ...
    srshards.errors.ArgumentError: `patch_size` 15 is not divisible by the scale 2; try 14 or 16
    """


class WorkerDiedError(RunError):
    """A worker process that makes batches was killed, perhaps for want of memory. Another loop goes on where it was.

    Arguments stand in backticks in the message.

    >>> import srshards
    >>> loader = srshards.PatchLoader(shards, patch_size=16, batch_size=4, workers=0)
    >>> try:
    ...     batch = next(iter(loader))
    ... except srshards.WorkerDiedError:
    ...     batch = next(iter(loader))
    """
