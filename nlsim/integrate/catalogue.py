"""Every stepper by name: the only list of them."""

from __future__ import annotations

from nlsim.integrate.conformal import CONFORMAL_MIDPOINT, CONFORMAL_VERLET
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.exponential import ETDRK2, ETDRK4
from nlsim.integrate.gauss import GAUSS4, IMPLICIT_MIDPOINT
from nlsim.integrate.implicit import SDIRK2
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.integrate.stepper import Stepper
from nlsim.integrate.symplectic import STORMER_VERLET, SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT

STEPPERS: dict[str, Stepper] = {
    each.name: each
    for each in (
        EXPLICIT_EULER,
        HEUN,
        RK4,
        IMPLICIT_SWEEP,
        EXPONENTIAL_SWEEP,
        EXPONENTIAL_EULER,
        ETDRK2,
        ETDRK4,
        SDIRK2,
        IMPLICIT_MIDPOINT,
        GAUSS4,
        SYMPLECTIC_EULER,
        SYMPLECTIC_EULER_ADJOINT,
        STORMER_VERLET,
        CONFORMAL_MIDPOINT,
        CONFORMAL_VERLET,
        ORDERED_EULER,
        ORDERED_EULER_OLD,
    )
}
"""Steppers of fixed step."""

ADAPTIVE = "adaptive"
"""Name of the adaptive Runge–Kutta control (:class:`~nlsim.integrate.adapter.AdaptiveRungeKutta`)."""
