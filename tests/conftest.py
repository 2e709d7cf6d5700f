"""Shared by all tests: tests marked ``gpu`` run where there is one, and nothing writes into the checkout."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a CUDA device where there is none; it has been collected all the same."""
    if torch.cuda.is_available():
        return
    without = [item for item in items if "gpu" in item.keywords]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if "gpu" not in item.keywords]
