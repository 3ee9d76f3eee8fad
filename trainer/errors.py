"""The errors that end a command with a message instead of a traceback: what was expected, what came, what to do."""


class TrainerError(Exception):
    """Base of them all."""

    exit_code = 1


class UsageError(TrainerError):
    """What the user can mend: a wrong option, a missing folder, weights that do not fit, too little memory."""

    exit_code = 2


class RunError(TrainerError):
    """The command was right, but the work failed: a loss that is not finite, a dead worker, a full disk."""
