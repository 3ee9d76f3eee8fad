"""The result of the benchmark: `gpu.json` and its page, written after every figure."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.common import REPOSITORY
from benchmarks.gpu.page import page
from benchmarks.gpu.parts import Part
from srshards.storage.files import write_atomically

COMPLETE, FAILED, INCOMPLETE, NOT_REACHED = "complete", "failed", "incomplete", "not reached"


class Results:
    """`runs` describes the runs of the benchmark: their command, date, commit, machine, device and settings.

    `parts` has, by name, the run, the status, its reason unless complete, the time taken, its limit, and the results. A
    part is `incomplete` from its beginning on, so that the file is true whenever the benchmark is killed.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], parts: Sequence[Part], earlier: Mapping[str, Any]) -> None:
        """`earlier` is the content whose other parts are kept."""
        self._path = path
        runs = list(earlier.get("runs", ()))
        kept = {name: part for name, part in earlier.get("parts", {}).items() if name not in {p.name for p in parts}}
        used = sorted({part["run"] for part in kept.values()})
        self._runs = [*(runs[number] for number in used), dict(run)]
        self._parts = {name: {**part, "run": used.index(part["run"])} for name, part in kept.items()}
        for part in parts:
            self._parts[part.name] = {
                "run": len(used),
                "status": NOT_REACHED,
                "reason": "",
                "seconds": 0.0,
                "limit_s": part.limit_s,
                "results": [],
            }
        self._current: dict[str, Any] | None = None
        self._start_s = monotonic()

    def begin(self, name: str) -> None:
        """Begin a part."""
        self._current, self._start_s = self._parts[name], monotonic()
        self._current |= {"status": INCOMPLETE, "reason": "the benchmark was ended in this part"}
        self.write()

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a result to the current part."""
        assert self._current is not None
        self._current["results"].append(dict(result))
        self._current["seconds"] = round(monotonic() - self._start_s, 1)
        self.write()

    def end(self, reason: str = "") -> str:
        """End the current part, and return its status in words. A `reason` says why it failed as a whole."""
        assert self._current is not None
        results = self._current["results"]
        failures = sum(map(_has_failed, results))
        left_out = [result["not_reached"] for result in results if "not_reached" in result]
        reasons = [reason] if reason else []
        if failures:
            reasons.append(f"{failures} of {len(results)} failed")
        if left_out:
            reasons.append(f"{len(left_out)} of {len(results)} not reached: {left_out[0]}")
        status = FAILED if failures or reason else INCOMPLETE if left_out else COMPLETE
        self._current |= {"status": status, "reason": "; ".join(reasons)}
        self._current["seconds"] = round(monotonic() - self._start_s, 1)
        self.write()
        return f"{status} ({'; '.join(reasons)})" if reasons else status

    def write(self) -> None:
        """Write both files."""
        content = {"runs": self._runs, "parts": self._parts}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, (json.dumps(content, indent=2) + "\n").encode())
        write_atomically(page_path(self._path), page(content).encode())

    @property
    def are_complete(self) -> bool:
        """Whether everything of this run was measured without a failure."""
        last = len(self._runs) - 1
        return all(part["status"] == COMPLETE for part in self._parts.values() if part["run"] == last)


def page_path(path: Path) -> Path:
    """Return the path of the page of figures that belongs to a result."""
    return path.with_suffix(".md")


def commit() -> str | None:
    """Return the commit of the working tree, marked if it has changes; None if it is not in a repository."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    return None


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _has_failed(result: Mapping[str, Any]) -> bool:
    return "failed" in result or result.get("outcome") == "failed" or bool(result.get("synchronisation"))
