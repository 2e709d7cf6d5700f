"""Stateless randomness: every choice is a function of (seed, purpose, index).

No generator is ever advanced, so a resumed run, a member of an ensemble and a single run draw the
same numbers by construction, on every device.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator that belongs to one random choice.

    Parameters
    ----------
    seed : int
        The run's seed, at least 0.
    purpose : str
        What is drawn, for example ``"weight"`` or ``"order"``.
    index : int
        Which draw of this purpose, for example the layer or the epoch, at least 0.

    Returns
    -------
    numpy.random.Generator
        Philox counter generator; equal arguments give equal streams.
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), index])
    return np.random.Generator(np.random.Philox(entropy))
