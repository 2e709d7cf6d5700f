"""Why a run stopped."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """The named ways in which a run can end; stored in the run file.

    Physics that goes wrong is an ending, not an exception: the file is complete up to the last
    good frame and says what happened.
    """

    REACHED_END = "reached_end"
    STEADY = "steady"
    DIVERGED = "diverged"
    STEP_TOO_SMALL = "step_too_small"
    NOT_CONVERGED = "not_converged"
    BUDGET_SPENT = "budget_spent"
    INTERRUPTED = "interrupted"

    @property
    def is_success(self) -> bool:
        """Whether the run did what it was asked to do."""
        return self in (Ending.REACHED_END, Ending.STEADY)

    @property
    def advice(self) -> str:
        """What to try next."""
        return _ADVICE[self]


_ADVICE = {
    Ending.REACHED_END: "The run covered the whole horizon.",
    Ending.STEADY: "The vector field fell below the tolerance; nothing moves any more.",
    Ending.DIVERGED: "Take smaller steps or a sweep stepper, or raise mass or dissipation.",
    Ending.STEP_TOO_SMALL: "The tolerances ask for steps below min_step: loosen them or use a sweep stepper.",
    Ending.NOT_CONVERGED: "The equations of an implicit step were not solved: halve dt or allow more iterations.",
    Ending.BUDGET_SPENT: "Raise max_steps, loosen the tolerances, or shorten the horizon.",
    Ending.INTERRUPTED: "Stopped from outside; every frame up to the last one is in the file.",
}
