"""Which folder a run has: that of a new one, of the one to resume, or of the one that a torchrun job trains in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count

from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.files import writing
from srshards.storage.store import file_size, list_folders, local_path, read_bytes, remove, storage_of
from trainer.runs.folder import CONFIG, JOB, RunFolder, TakenError
from trainer.runs.stored_run import StoredRunFolder


def run_folder(home: Address) -> RunFolder:
    """The folder of the run that lies there. On this machine a run works where it lies: its journal is appended to."""
    return RunFolder(home, local_path(home)) if storage_of(home).is_local else StoredRunFolder(home)


@contextmanager
def new_run(out: Address, name: str | None, default_name: str) -> Iterator[RunFolder]:
    """The folder of a new run, locked: `name`, which must be free, or the first free one of default, default-2, ...

    Of processes that begin at the same moment each gets a name of its own, or the UsageError that it is taken; in a
    store, those of one machine.
    """
    with ExitStack() as stack:
        if name is not None:
            run = run_folder(out / name)
            run.refuse_begun()  # before a lock is put there, and once more behind it
            yield stack.enter_context(run.locked(new=True))
        else:
            yield _first_free(stack, out, default_name)


def _first_free(stack: ExitStack, out: Address, default_name: str) -> RunFolder:
    for number in count(1):
        home = out / (default_name if number == 1 else f"{default_name}-{number}")
        with writing(home):
            is_free = storage_of(home).claim_folder(home)
        if is_free:
            with suppress(TakenError):  # by a process that was told this name, or, in a store, has not written yet
                return stack.enter_context(run_folder(home).locked(new=True))
    raise AssertionError("there is always a free number")


def existing_run(out: Address, name: str | None) -> RunFolder:
    """The folder of the run to resume. UsageError lists the runs that there are when it is none of them."""
    folders = list_folders(out)
    if name in folders and file_size(out / name / CONFIG) is not None:
        return run_folder(out / name)
    runs = [folder for folder in folders if file_size(out / folder / CONFIG) is not None]
    there = f"the runs in {out} are: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    if name is None:
        raise UsageError(f"--resume needs the run's name: --run NAME; {there}")
    raise UsageError(f"--run {name} --resume: there is no {out / name / CONFIG}; {there}")


def run_of_job(out: Address, name: str | None, job: str) -> RunFolder | None:
    """The folder that a torchrun job trains in, of that name if there is one; None before it has begun."""
    return next((run_folder(mark.parent) for mark in _marks(out, name, job)), None)


def forget_job(out: Address, name: str | None, job: str) -> None:
    """Whatever was begun by an earlier torchrun job of the same name is not this one's to go on with."""
    for mark in _marks(out, name, job):
        remove(mark)


def _marks(out: Address, name: str | None, job: str) -> Iterator[Address]:
    for folder in list_folders(out):
        mark = out / folder / JOB
        if name in (None, folder) and file_size(mark) is not None and read_bytes(mark).decode() == job:
            yield mark
