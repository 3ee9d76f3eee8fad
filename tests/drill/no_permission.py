"""Commands as a user who may not write, or not read, where they have to: a message, and nothing is changed."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.drill.folders import leftovers, make_photos
from tests.drill.kill_training import SMALL
from tests.drill.session import Session
from tests.drill.warm import run_warm

_NOBODY = 65534


class _Case(NamedTuple):
    """The words, and what the user may not: that path has this mode meanwhile."""

    what: str
    words: tuple[Any, ...]
    forbidden: Path
    mode: int
    spoil: Callable[[], object] = lambda: None


def be_nobody(user: int) -> None:
    """Permissions mean nothing to root: become somebody else. Whoever is not root stays who he is."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def forbid(session: Session) -> None:
    """Each case in turn."""
    root = session.scratch
    photos, shards, runs = make_photos(root / "photos", 12), root / "shards", root / "runs"
    generate = ("shardgen", "generate", "-i", photos, "-s", 2, "--size", 64, "--workers", 0, "--auto", "-o")
    scale, closed = shards / "scale_2x", root / "closed"
    training = ("trainer", "--shards", scale, *SMALL, "--steps", 2, "--workers", 0, "--out")
    assert run_warm(*generate, shards).code == 0
    assert run_warm(*training, runs).code == 0
    closed.mkdir()
    shutil.copytree(shards, root / "broken")
    (root / "broken" / "scale_2x" / "train-000000.idx").unlink()
    _give_to_nobody(root)
    resume = ("trainer", "--out", runs, "--run", "r", "--resume")
    weights = runs / "r" / "best.pth"
    touched = next(photos.rglob("*.jpg"))
    cases = [
        _Case("generate into a folder that is closed", (*generate, closed / "new"), closed, 0o555),
        _Case("generate into a folder that may not be written", (*generate, closed), closed, 0o555),
        _Case(
            "generate where a shard has to be made again",
            (*generate, shards),
            scale,
            0o555,
            lambda: os.utime(touched, ns=(10**18, 10**17)),
        ),
        _Case("verify --fix", ("shardgen", "verify", root / "broken", "--fix"), root / "broken" / "scale_2x", 0o555),
        _Case("verify of a shard that may not be read", ("shardgen", "verify", shards), scale / "train-000000.tar", 0),
        _Case("inspect of a manifest that may not be read", ("shardgen", "inspect", scale), scale / "manifest.json", 0),
        _Case("preview into a closed folder", ("shardgen", "preview", scale, "-o", closed / "x.png"), closed, 0o555),
        _Case("unpack into a closed folder", ("shardgen", "unpack", scale, "-o", closed / "x"), closed, 0o555),
        _Case("generate from photos that may not be listed", (*generate, root / "new"), photos, 0),
        _Case("training into a closed folder", (*training, closed), closed, 0o555),
        _Case("training on shards that may not be entered", (*training, root / "new"), scale, 0),
        _Case("training on a tar that may not be read", (*training, root / "new"), scale / "train-000000.tar", 0),
        _Case("resuming in a folder that may not be written", resume, runs / "r", 0o555),
        _Case("resuming from a state that may not be read", resume, runs / "r" / "state.pt", 0),
        _Case("weights that may not be read", (*training, root / "new", "--init", weights), weights, 0),
        _Case(
            "training with a cache that may not be written",
            (*training, root / "new", "--cache", closed / "cache"),
            closed,
            0o555,
        ),
        _Case("evaluate", ("trainer", "evaluate", "--weights", weights, "--shards", scale), scale / "manifest.json", 0),
        _Case("upscale", ("trainer", "upscale", "--weights", weights, touched, "-o", closed), closed, 0o555),
        _Case("export", ("trainer", "export", "--weights", weights, "-o", closed / "m.onnx"), closed, 0o555),
    ]
    for number in session.cases(lambda number: cases[number % len(cases)].what):
        case = cases[number % len(cases)]
        case.spoil()
        before, mode = _content(root), case.forbidden.stat().st_mode
        case.forbidden.chmod(case.mode)
        done = run_warm(*case.words, prepare=(be_nobody, (_NOBODY,)))
        case.forbidden.chmod(mode)
        problems = leftovers(root)
        if not done.is_named:
            problems.append(("crashed", f"expected a message: {done.crash or done}"))
        now = _content(root)
        if any(now.get(path) != digest for path, digest in before.items()):
            problems.append(("samples_lost", "something was changed or removed"))
        session.ended("named", problems)
    session.tally.note = f"{len(cases)} commands, run as user {_NOBODY} if the drill is run by root"


def _give_to_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)


def _content(root: Path) -> dict[Path, str]:
    """What must not be touched: all that was there, but locks."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != "last-case.txt"}
