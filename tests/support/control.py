"""Random control problems and states in float64."""

from __future__ import annotations

from typing import Any

import torch

from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadratic, LinearQuadraticState
from nlsim.systems.hamiltonian.tracking import TrackingProblem, TrackingState
from nlsim.systems.signals import Sinusoid
from support.learning import draw


def positive(seed: int, n: int, ensemble: tuple[int, ...] = ()) -> torch.Tensor:
    """Return a symmetric matrix with eigenvalues of at least ½."""
    factor = draw(seed, *ensemble, n, n)
    return 0.5 * torch.eye(n, dtype=torch.float64) + factor @ factor.mT


def make_quadratic(
    n: int = 3, seed: int = 1, dissipation: Any = 0.0, ensemble: tuple[int, ...] = ()
) -> LinearQuadratic:
    return LinearQuadratic(
        draw(seed, *ensemble, n, n), positive(seed + 1, n, ensemble), positive(seed + 2, n, ensemble), dissipation
    )


def make_quadratic_state(n: int = 3, samples: int = 2, seed: int = 5, ensemble: tuple[int, ...] = ()) -> Any:
    return LinearQuadraticState(draw(seed, *ensemble, samples, n), draw(seed + 1, *ensemble, samples, n))


def make_tracking(**constants: Any) -> TrackingProblem:
    return TrackingProblem(
        **{
            "tracking_weight": 1.7,
            "control_weight": 0.6,
            "regularisation": 0.4,
            "speed": 1.3,
            "dissipation": 0.2,
            **constants,
        }
    )


def make_tracking_state(n: int = 4, samples: int = 2, seed: int = 9, ensemble: tuple[int, ...] = ()) -> Any:
    return TrackingState(
        draw(seed, *ensemble, samples, n),
        draw(seed + 1, *ensemble, n, n),
        draw(seed + 2, *ensemble, samples, n),
        draw(seed + 3, *ensemble, n, n),
    )


def target(outputs: int, samples: int = 2, seed: int = 13) -> Inputs:
    return Inputs(None, draw(seed, samples, outputs))


def sinusoid(frequency: float = 1.0, amplitude: float = 1.0, outputs: int = 1) -> Sinusoid:
    """Return z = A sin ωt in every output of one sample; the input is 0."""

    def each(value: float) -> Inputs:
        return Inputs(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, outputs), value, dtype=torch.float64))

    return Sinusoid(each(0.0), each(amplitude), each(frequency), each(0.0))
