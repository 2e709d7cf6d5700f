"""Damage done on purpose: a check of a theorem that does not see it has no teeth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nlsim.theorems.evidence import Evidence, Finding
from nlsim.theorems.statement import Effort

Patch = pytest.MonkeyPatch
Damage = Callable[[Patch], None]
Check = Callable[[Effort], Evidence]


def assert_seen(damage: Damage, check: Check, patch: Patch, examples: int) -> None:
    """Damage the running code and demand that the check, with so many examples, fails."""
    damage(patch)
    with torch.no_grad():
        assert check(Effort(examples)).finding is Finding.FAILED
