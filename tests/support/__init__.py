"""What the tests share: small random problems, oracles and comparisons.

All in float64 and from seeded generators, so a failure names everything needed to repeat it.
"""

import torch

# the states of the tests are small: more threads only wait for each other
torch.set_num_threads(1)
