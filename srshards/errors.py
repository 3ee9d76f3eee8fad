"""Errors whose message is for the user: what was expected, what came, and what to do."""


class ReportedError(Exception):
    """Base of the errors that end a command with a message instead of a traceback."""

    exit_code = 1


class UsageError(ReportedError):
    """What the user can mend: an impossible setting, a missing folder, weights that do not fit, too little memory."""

    exit_code = 2


class RunError(ReportedError):
    """The request was right, but the work failed: a full disk, a dead worker, damaged shards."""


class PhotoError(Exception):
    """A photo cannot become a sample. The message is the reason that the manifest gives for it."""


class ArgumentError(UsageError, ValueError):
    """An argument that cannot be used, and what to give instead.

    Arguments stand in backticks in the message, so that a command can put the names of its options there.
    """


class WorkerDiedError(RunError):
    """A process that makes batches ended before its time. Arguments stand in backticks in the message."""
