"""The short form for a vector field of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError

from nlsim.core.state import leaves, named_leaves
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError, unknown_name
from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.integrate.control import Control, FixedStep
from nlsim.integrate.loop import Loop
from nlsim.scenario.model import Adaptive
from nlsim.simulation.build import build_control
from nlsim.simulation.check import distinct, grid
from nlsim.systems.signals import Constant

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Flow:
    """A bare vector field ``f(t, y)`` as a system."""

    field: Callable[[float, Any], Any]

    def vector_field(self, t: float, state: Any, inputs: Inputs) -> Any:
        """Return f(t, y)."""
        return self.field(t, state)


def simulate(
    vector_field: Callable[[float, Any], Any],
    state: Any,
    *,
    until: float,
    dt: float | None = None,
    stepper: str = "rk4",
    every: float | None = None,
    start: float = 0.0,
    **tolerances: Any,
) -> xarray.Dataset:
    """Integrate dy/dt = f(t, y) and return the trajectory.

    Parameters
    ----------
    vector_field : callable
        ``f(t, y)``, returning a state like y.
    state : Tensor, or tuple, dict or state class of tensors
        y at ``start``; its dtype and device are those of the run.
    until, start : float
        Horizon, until > start [time].
    dt : float, optional
        Step of a fixed stepper [time]; required unless ``stepper="adaptive"``.
    stepper : str
        A name of ``nlsim list steppers``.
    every : float, optional
        Distance of record times [time]; by default about a hundredth of the horizon, in whole steps of dt.
    **tolerances
        ``method``, ``rtol``, ``atol``, ``min_step``, ``norm`` for ``stepper="adaptive"``.

    Returns
    -------
    xarray.Dataset
        One variable a tensor of the state (``state`` for a bare tensor) along ``time``, with the ending
        and its detail as attributes.

    Raises
    ------
    UnknownNameError, CapabilityError, NlsimError
        For a stepper that is unknown or needs more structure, or a step that is missing or not positive.

    Examples
    --------
    >>> import nlsim, torch
    >>> y = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> data = nlsim.simulate(lambda t, y: torch.stack([y[1], -y[0]]), y, until=10.0, dt=0.01)
    >>> data.attrs["ending"]
    'reached_end'
    """
    import xarray

    if not (until > start and math.isfinite(until - start)):
        raise NlsimError(
            "The horizon is empty or infinite.", where="until", given=until, allowed=f"finite, more than {start:g}"
        )
    if every is not None and not (every > 0 and math.isfinite(every)):
        raise NlsimError("The distance of record times is not valid.", where="every", given=every, allowed="every > 0")
    control = _control(stepper, dt, tolerances)
    if every is None:
        every = (until - start) / 100
        if dt is not None:  # a step never crosses a record time, so the default must not shorten it
            every = dt * max(1, round(every / dt))
    times = distinct([*grid(start, until, every), until])
    loop = Loop(Flow(vector_field), control, Constant(Inputs()), state, until=until, record_times=times, start=start)
    seen: list[float] = []
    frames: list[list[np.ndarray[Any, Any]]] = []
    with torch.no_grad():
        for tick in loop:
            if tick.is_record:
                seen.append(tick.t)
                frames.append([leaf.detach().cpu().numpy() for leaf in leaves(tick.state)])
    variables = {}
    for position, (name, leaf) in enumerate(named_leaves(state)):
        variable = name.replace("/", "_")
        dims = ("time", *(f"{variable}_{axis}" for axis in range(leaf.ndim)))
        variables[variable] = (dims, np.stack([frame[position] for frame in frames]))
    assert loop.ending is not None
    attributes = {"ending": loop.ending.value, "ending_detail": loop.detail, "steps": loop.steps}
    return xarray.Dataset(variables, coords={"time": seen}, attrs=attributes)


def _control(stepper: str, dt: float | None, tolerances: dict[str, Any]) -> Control:
    if stepper == ADAPTIVE:
        if dt is not None:
            raise NlsimError("An adaptive stepper chooses its steps.", where="dt", given=dt, advice="Leave dt out.")
        try:
            chosen = Adaptive(name="adaptive", **tolerances)
        except ValidationError as failure:
            first = failure.errors(include_url=False)[0]
            raise NlsimError(
                "A setting of the adaptive stepper is not valid.",
                where=".".join(str(part) for part in first["loc"]),
                given=first["input"],
                allowed=first["msg"],
            ) from None
        return build_control(chosen)
    if stepper not in STEPPERS:
        raise unknown_name("stepper", stepper, [*STEPPERS, ADAPTIVE], where="stepper")
    if tolerances:
        raise NlsimError(
            f"The stepper '{stepper}' has a fixed step and takes no tolerances.",
            given=", ".join(tolerances),
            advice="Pass dt only, or stepper='adaptive'.",
        )
    if dt is None or not (dt > 0 and math.isfinite(dt)):
        raise NlsimError(f"The stepper '{stepper}' needs a step.", where="dt", given=dt, allowed="dt > 0")
    return FixedStep(STEPPERS[stepper], dt)
