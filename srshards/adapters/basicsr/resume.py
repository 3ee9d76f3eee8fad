"""The state from which BasicSR resumes a run, on a CPU: its own function reads states onto a GPU."""

from pathlib import Path
from typing import Any

import torch
from basicsr.utils import check_resume


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state of `path: resume_state` or, with `--auto_resume`, the last one of the run; None for a new run.

    Sets the same options as BasicSR's function of this name.
    """
    paths = opt["path"]
    if opt["auto_resume"]:
        states = Path("experiments", opt["name"], "training_states").glob("*.state")
        if (last := max(states, key=lambda path: float(path.stem), default=None)) is None:
            return None
        paths["resume_state"] = str(last)
    if not paths.get("resume_state"):
        return None
    state: dict[str, Any] = torch.load(paths["resume_state"], map_location="cpu")
    check_resume(opt, state["iter"])
    return state
