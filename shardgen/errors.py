"""The errors that a user can mend. Each message says what was expected, what came, and what to do."""


class ShardgenError(Exception):
    """Base of all errors that end a command with a message instead of a traceback."""

    exit_code = 1


class UsageError(ShardgenError):
    """The command cannot be carried out as it was typed: a missing folder, an impossible setting."""

    exit_code = 2


class RunError(ShardgenError):
    """The command was right, but the work failed: a full disk, a dead worker, broken shards."""


class PhotoError(Exception):
    """One photo cannot become a sample. The message is the reason that the manifest gives for it."""
