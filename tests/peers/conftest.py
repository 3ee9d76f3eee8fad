"""Fixtures of the tests with other frameworks: they run in an environment of their own (`make test-peers`)."""

import os
import sys
from pathlib import Path

# As in the trainer: threads that spin while waiting slow each other down on a busy CPU. Set before PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FOLDER = Path(__file__).parent
STAND_INS = FOLDER / "stand_ins"

sys.path.insert(0, str(STAND_INS))
# Of the processes that the tests start.
os.environ["PYTHONPATH"] = os.pathsep.join([str(STAND_INS), str(FOLDER.parent.parent)])
