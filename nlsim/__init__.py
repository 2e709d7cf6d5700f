"""nlsim: learning as a continuous-time dynamical system.

The public names below are loaded when first used, so ``import nlsim`` is fast and reading a run never
imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlsim.record import open_run
    from nlsim.scenario.load import load_scenario
    from nlsim.simulation.run import run
    from nlsim.simulation.simulate import simulate
    from nlsim.theorems.verify import verify

__version__ = "0.1.0"

_HOME = {
    "load_scenario": "nlsim.scenario.load",
    "open_run": "nlsim.record",
    "run": "nlsim.simulation.run",
    "simulate": "nlsim.simulation.simulate",
    "verify": "nlsim.theorems.verify",
}

__all__ = ["__version__", "load_scenario", "open_run", "run", "simulate", "verify"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'nlsim' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *_HOME])
