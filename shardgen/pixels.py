"""What an image is in this project."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # H x W x 3, RGB, C order, grey levels 0-255
