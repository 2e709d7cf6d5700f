"""Every stepper by name: the only list of them."""

from __future__ import annotations

from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.integrate.stepper import Stepper

STEPPERS: dict[str, Stepper] = {
    each.name: each for each in (EXPLICIT_EULER, HEUN, RK4, IMPLICIT_SWEEP, EXPONENTIAL_SWEEP, EXPONENTIAL_EULER)
}
"""Steppers of fixed step."""

ADAPTIVE = "adaptive"
"""Name of the adaptive Runge–Kutta control (:class:`~nlsim.integrate.adapter.AdaptiveRungeKutta`)."""
