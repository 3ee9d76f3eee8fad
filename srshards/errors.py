"""Exceptions with messages for the user: what was expected, what was found, and what to do."""


class ReportedError(Exception):
    """Base class of errors that end a command with a message instead of a traceback."""

    exit_code = 1


class UsageError(ReportedError):
    """An error that the user can fix: an invalid setting, a missing folder, wrong weights, too little memory.

    Examples:
        >>> import srshards
        >>> try:
        ...     srshards.open("missing")
        ... except srshards.UsageError as error:
        ...     print(error)
        `path` missing: expected a folder of shards, but it does not exist; to generate shards, run ...
    """

    exit_code = 2


class RunError(ReportedError):
    """A valid request that failed: a full disk, a dead worker, damaged shards.

    Examples:
        >>> import srshards
        >>> next(iter(srshards.webdataset("missing.tar", patch_size=16)))
        Traceback (most recent call last):
            ...
        srshards.errors.RunError: missing.tar: ...
    """


class PhotoError(Exception):
    """A photo that cannot become a sample. The message is the reason recorded in the manifest."""


class ArgumentError(UsageError, ValueError):
    """An invalid argument. The message says what to pass instead.

    Argument names are in backticks in the message, so that a command can replace them with its option names.

    Examples:
        >>> import srshards
        >>> srshards.PatchDataset(shards, patch_size=15)
        Traceback (most recent call last):
            ...
        srshards.errors.ArgumentError: `patch_size` 15 is not divisible by the scale 2; try 14 or 16
    """


class WorkerDiedError(RunError):
    """A data worker process died, possibly killed for lack of memory. Iterating again resumes at the same batch.

    Argument names are in backticks in the message.

    Examples:
        >>> import srshards
        >>> loader = srshards.PatchLoader(shards, patch_size=16, batch_size=4, workers=0)
        >>> try:
        ...     batch = next(iter(loader))
        ... except srshards.WorkerDiedError:
        ...     batch = next(iter(loader))
    """
