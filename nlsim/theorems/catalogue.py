"""Every theorem by key: the only list of them."""

from __future__ import annotations

from nlsim.theorems.hamiltonian.backprop_limit import BACKPROP_LIMIT
from nlsim.theorems.hamiltonian.momentum_limit import MOMENTUM_LIMIT
from nlsim.theorems.statement import Theorem

THEOREMS: dict[str, Theorem] = {each.key: each for each in (BACKPROP_LIMIT, MOMENTUM_LIMIT)}
"""Every theorem by its key."""
