"""Run commands as a user without the permissions that they need: they must report it and change nothing."""

import os
import shutil
from pathlib import Path

from tests.drill.commands import Command
from tests.drill.folders import make_photos, sha256, temporary_files
from tests.drill.session import LAST_CASE, Session
from tests.drill.training import SMALL, stop_after
from tests.drill.warm import run_warm

_NOBODY = 65534


def drop_root() -> None:
    """Change from root, which ignores permissions, to another user."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def forbid(session: Session) -> None:
    """Run each command in turn."""
    root = session.scratch
    photos, shards, runs = make_photos(root / "photos", 12), root / "shards", root / "runs"
    generate = ("shardgen", "generate", "-i", photos, "-s", 2, "--size", 64, "--workers", 0, "--auto", "-o")
    scale, closed, stopped = shards / "scale_2x", root / "closed", root / "stopped"
    training = ("trainer", "--shards", scale, *SMALL, "--steps", 2, "--workers", 0, "--out")
    run_warm(*generate, shards).check()
    run_warm(*training, runs).check()
    assert run_warm(*training, stopped, prepare=(stop_after, (1,))).code == 143
    closed.mkdir()
    shutil.copytree(shards, root / "broken")
    (root / "broken" / "scale_2x" / "train-000000.idx").unlink()
    _give_to_nobody(root)
    resume = ("trainer", "--out", stopped, "--run", "r", "--resume")
    weights = runs / "r" / "best.pth"
    photo = next(photos.rglob("*.jpg"))
    os.utime(photo, ns=(10**18, 10**17))  # its shard must be rebuilt
    read_only, unreadable = 0o555, 0
    cases: list[tuple[Command, Path, int]] = [
        ((*generate, closed / "new"), closed, read_only),
        ((*generate, closed), closed, read_only),
        ((*generate, shards), scale, read_only),
        (("shardgen", "verify", root / "broken", "--fix"), root / "broken" / "scale_2x", read_only),
        (("shardgen", "verify", shards), scale / "train-000000.tar", unreadable),
        (("shardgen", "inspect", scale), scale / "manifest.json", unreadable),
        (("shardgen", "preview", scale, "-o", closed / "x.png"), closed, read_only),
        (("shardgen", "unpack", scale, "-o", closed / "x"), closed, read_only),
        ((*generate, root / "new"), photos, unreadable),
        ((*training, closed), closed, read_only),
        ((*training, root / "new"), scale, unreadable),
        ((*training, root / "new"), scale / "train-000000.tar", unreadable),
        (resume, stopped / "r", read_only),
        (resume, stopped / "r" / "state.pt", unreadable),
        ((*training, root / "new", "--init", weights), weights, unreadable),
        ((*training, root / "new", "--cache", closed / "cache"), closed, read_only),
        (("trainer", "evaluate", "--weights", weights, "--shards", scale), scale / "manifest.json", unreadable),
        (("trainer", "upscale", "--weights", weights, photo, "-o", closed), closed, read_only),
        (("trainer", "export", "--weights", weights, "-o", closed / "m.onnx"), closed, read_only),
    ]
    for number in session.cases():
        command, path, mode = cases[number % len(cases)]
        session.describe(f"case {number}: {' '.join(map(str, command))}, {path} with mode {mode:o}")
        before, former_mode = _content(root), path.stat().st_mode
        path.chmod(mode)
        result = run_warm(*command, prepare=(drop_root, ()))
        path.chmod(former_mode)
        problems = temporary_files(root) + result.problems_unless_reported()
        after = _content(root)
        if any(after.get(name) != digest for name, digest in before.items()):
            problems.append(("samples_lost", "a file was changed or deleted"))
        session.finish("named", problems)
    session.tally.note = f"{len(cases)} commands, run as user {_NOBODY} if the drill is run by root"


def _give_to_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)


def _content(root: Path) -> dict[Path, str]:
    """Return the hash of every file except lock files."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: sha256(path) for path in files if path.name != LAST_CASE}
