"""The errors that end a command with a message instead of a traceback: what was expected, what came, what to do."""


class TrainerError(Exception):
    """Base of them all."""

    exit_code = 1


class UsageError(TrainerError):
    """What the user can mend: a wrong option, a missing folder, weights that do not fit, too little memory."""

    exit_code = 2


class RunError(TrainerError):
    """The command was right, but the work failed: a loss that is not finite, a dead worker, a full disk."""


class SaidElsewhere(TrainerError):
    """An error of all processes that train together; another one, rank 0, has the message."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code
