"""The run file: numpy in, netCDF-4 valid HDF5 out, and back as an xarray data set. No torch."""

from nlsim.record.checkpoint import Checkpoint, read_checkpoint
from nlsim.record.format import (
    COMPLETE,
    INTERRUPTED,
    RUNNING,
    SCHEMA,
    ChannelSpec,
    selected_dimension,
    variable_name,
)
from nlsim.record.layout import CoordinateSpec
from nlsim.record.recovery import Glance, glance, recover
from nlsim.record.trajectory import channels, open_run, scenario_text
from nlsim.record.writer import RunWriter

__all__ = [
    "COMPLETE",
    "INTERRUPTED",
    "RUNNING",
    "SCHEMA",
    "ChannelSpec",
    "Checkpoint",
    "CoordinateSpec",
    "Glance",
    "RunWriter",
    "channels",
    "glance",
    "open_run",
    "read_checkpoint",
    "recover",
    "scenario_text",
    "selected_dimension",
    "variable_name",
]
