"""Shared by all tests: those marked ``gpu`` or ``browser`` run where there is one; nothing writes into the checkout."""

from __future__ import annotations

import pytest
import torch
from support import browser

torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a CUDA device or a browser where there is none; it has been collected all the same."""
    missing = {"gpu": not torch.cuda.is_available(), "browser": not browser.is_there()}
    without = [item for item in items if any(missing[name] and name in item.keywords for name in missing)]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
