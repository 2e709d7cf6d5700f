"""Every theorem by key: the only list of them."""

from __future__ import annotations

from nlsim.theorems.hamiltonian.backprop_limit import BACKPROP_LIMIT
from nlsim.theorems.hamiltonian.momentum_limit import MOMENTUM_LIMIT
from nlsim.theorems.hamiltonian.recurrent_backprop import RECURRENT_BACKPROP
from nlsim.theorems.hamiltonian.reversal_stability import REVERSAL_STABILITY
from nlsim.theorems.hamiltonian.static_exactness import STATIC_EXACTNESS
from nlsim.theorems.statement import Theorem

THEOREMS: dict[str, Theorem] = {
    each.key: each
    for each in (
        BACKPROP_LIMIT,
        MOMENTUM_LIMIT,
        STATIC_EXACTNESS,
        RECURRENT_BACKPROP,
        REVERSAL_STABILITY,
    )
}
"""Every theorem by its key."""
