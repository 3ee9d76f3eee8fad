"""What an image is."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # H x W x 3 (or H x W), RGB, grey levels 0-255
