"""What explicit Euler makes of a sign flip: the averaged equation of flipping at every step.

Two Euler steps of length τ with opposite signs take Y to Y − τ² (DF·F + ∂F/∂t) + O(τ³), F being the
un-flipped field. So the flipped run follows, slowly,

    dY/dt = −(τ/2) (DF·F + ∂F/∂t),

which rests where F does and is stable there when every eigenvalue μ of DF has Re μ² > 0. The right-hand
side is proportional to τ: it is the numerical dissipation of Euler's method, and a flow has none of it.

For linear-quadratic tracking DF = A with A² = μ² I: two steps multiply Y by 1 − τ²μ² exactly, and a
target of angular frequency ω is followed with relative error about ω/√(ω² + (τμ²/2)²).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Inputs, Piece, System
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic

S = TypeVar("S")


@dataclass(frozen=True)
class AveragedFlip(Generic[S]):
    """The averaged equation of a system that explicit Euler flips at every step.

    Parameters
    ----------
    system : System
        The un-flipped system F, its field written in torch operations.
    piece : callable
        The smooth inputs that drive it, computed from time by torch operations: they are differentiated.
    step : float
        The step τ of the Euler run it stands for, > 0.
    """

    system: System[S]
    piece: Piece
    step: float

    def vector_field(self, t: float, state: S, inputs: Inputs) -> S:
        """Return −(τ/2)(DF·F + ∂F/∂t) by one forward-mode derivative along (1, F).

        ``inputs`` must be those of ``piece`` at t, and are not looked at. Cost: about three vector fields.
        """
        flat = leaves(state)
        now = torch.as_tensor(t, dtype=flat[0].dtype, device=flat[0].device)

        def field(time: Any, *point: Tensor) -> tuple[Tensor, ...]:
            velocity = self.system.vector_field(time, rebuild(state, list(point)), self.piece(time))
            return tuple(leaves(velocity))

        directions = (torch.ones_like(now), *field(now, *flat))
        with warnings.catch_warnings():
            # torch's forward mode loads, on first use, parts of torch that torch itself deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            change = torch.func.jvp(field, (now, *flat), directions)[1]
        return rebuild(state, [(-0.5 * self.step) * each for each in change])


def flip_factor(rate: float, step: float) -> float:
    """Return 1 − τ²μ², by which two flipped Euler steps multiply the homogeneous state.

    Parameters
    ----------
    rate : float
        μ, in 1/time.
    step : float
        τ.
    """
    return 1.0 - (step * rate) ** 2


def largest_flip_step(rate: float) -> float:
    """Return √2/μ, the step from which flipped Euler diverges (|1 − τ²μ²| = 1)."""
    return math.sqrt(2.0) / rate


def tracking_ratio(problem: ScalarLinearQuadratic, frequency: float, step: float) -> float:
    """Return rms(x − z)/rms(z) = √(ω² + (τa²/2)²)/√(ω² + (τμ²/2)²) for a sinusoidal target.

    The averaged x relaxes at rate τμ²/2 towards (s q/μ²) z, so it lags and falls short by a²/μ². Corrections
    are of relative order τμ.

    Parameters
    ----------
    problem : ScalarLinearQuadratic
        a, s, q; without dissipation.
    frequency : float
        ω of the target, in 1/time.
    step : float
        τ. While τμ²/2 ≫ ω the ratio falls as τ grows: halving τ about doubles the error.
    """
    shortfall, relaxation = step * problem.drift**2 / 2, step * problem.rate**2 / 2
    return math.hypot(frequency, shortfall) / math.hypot(frequency, relaxation)
