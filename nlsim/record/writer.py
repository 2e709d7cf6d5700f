"""Writing a run file, so that it can be watched while it grows and survives a kill at any instant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.attribute import printable, root_attributes, stored_attributes
from nlsim.record.checkpoint import storable, write_checkpoint
from nlsim.record.definition import create, frames_per_block, replaced
from nlsim.record.format import ChannelSpec
from nlsim.record.layout import CoordinateSpec


class RunWriter:
    """A run file being written: a context manager that takes frames.

    Frames are buffered and written a block at a time. A frame is in the file once its time is: the block of
    every channel is flushed before its times, so a reader never sees half a frame, and a process killed at
    any instant loses the frames that were not flushed and nothing else.

    Parameters
    ----------
    path : str or Path
        File to create; its folder must exist and no file may be there.
    channels : iterable of ChannelSpec
        What a frame holds.
    attributes : mapping
        Root attributes: title, ``scenario`` (kept byte for byte), provenance.
    coordinates : sequence of CoordinateSpec, optional
        Values along axes that do not change in time, such as swept parameters.
    time_units : str, optional
        Unit of time.
    block_frames : int, optional
        Frames a block; by default as many as fill 1 MiB, between 1 and 256.

    Raises
    ------
    RunFileError
        The file cannot be created, or the channels do not fit together; no file is left behind.

    Notes
    -----
    Memory: one block. Leaving the context by an exception, or without :meth:`close`, ends the file as
    ``interrupted``. Not safe for threads.
    """

    def __init__(
        self,
        path: str | Path,
        channels: Iterable[ChannelSpec],
        attributes: Mapping[str, Any],
        *,
        coordinates: Sequence[CoordinateSpec] = (),
        time_units: str = "1",
        block_frames: int | None = None,
    ) -> None:
        specs = tuple(channels)
        self.path = Path(path)
        self._specs = {spec.name: spec for spec in specs}
        self._block = frames_per_block(specs) if block_frames is None else block_frames
        if self._block < 1:
            raise RunFileError("A block holds at least one frame.", where="block_frames", given=block_frames)
        self._file = create(
            self.path,
            specs,
            coordinates,
            root_attributes(attributes),
            time_units=time_units,
            block=self._block,
        )
        self._buffers = {s.name: np.empty((self._block, *s.shape), s.dtype) for s in specs}
        self._times = np.empty(self._block)
        self._last = -math.inf
        self._written = 0
        self._waiting = 0
        self._closed = False

    @property
    def frames(self) -> int:
        """Number of frames taken so far, written or waiting."""
        return self._written + self._waiting

    def append(self, time: float, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take one frame; its values are copied.

        Parameters
        ----------
        time : float
            Later than the last one, finite.
        values : mapping of str to array
            For every channel an array of its shape, of its kind of number or a narrower one.

        Raises
        ------
        RunFileError
            The frame does not fit (it is then not taken), or the block cannot be written.
        """
        self._refuse_if_closed()
        if not self._last < time < math.inf:
            raise RunFileError(
                "The time of a frame must be finite and later than the one before.",
                given=time,
                allowed=f"more than {self._last}",
            )
        if values.keys() != self._specs.keys():
            raise RunFileError(
                "A frame holds every channel of the file and no other.",
                where=f"frame at time {time}",
                given=f"missing: {sorted(self._specs.keys() - values.keys())}, "
                f"unknown: {sorted(values.keys() - self._specs.keys())}",
            )
        for name, spec in self._specs.items():
            value = np.asarray(values[name])
            if value.shape != spec.shape or not np.can_cast(value.dtype, spec.dtype, "same_kind"):
                raise RunFileError(
                    "This value does not fit its channel.",
                    where=f"channel {name}, frame at time {time}",
                    given=f"{value.dtype} of shape {value.shape}",
                    allowed=f"{spec.dtype} of shape {spec.shape}",
                )
            self._buffers[name][self._waiting] = value
        self._times[self._waiting] = self._last = float(time)
        self._waiting += 1
        if self.frames % self._block == 0:
            self.flush()

    def flush(self) -> None:
        """Write the waiting frames, so that readers see them and a kill does not lose them.

        Cost: one block is written; a block flushed before it is full is compressed again later, and the
        file does not get the old space back.
        """
        self._refuse_if_closed()
        if not self._waiting:
            return
        begin, end = self._written, self.frames
        try:
            for name, spec in self._specs.items():
                self._extend(spec.variable, begin, end, self._buffers[name])
            self._file.flush()
            self._extend(fmt.TIME, begin, end, self._times)  # only now do the frames exist for a reader
            self._file.flush()
        except OSError as error:
            raise RunFileError(
                f"The run file cannot be written: {error}",
                where=str(self.path),
                advice=f"Is the disk full? The first {begin} frames are in the file.",
            ) from error
        self._written, self._waiting = end, 0

    def close(
        self,
        ending: str,
        detail: str = "",
        attributes: Mapping[str, Any] | None = None,
        checkpoint: Mapping[str, npt.NDArray[Any]] | None = None,
        checkpoint_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the waiting frames, then how the run ended and the state it ended in.

        Parameters
        ----------
        ending : str
            Why the run stopped; ``interrupted`` makes the state of the file ``interrupted``, every other
            word ``complete``.
        detail : str, optional
            One sentence more.
        attributes : mapping, optional
            Further root attributes, such as the wall time.
        checkpoint : mapping of str to array, optional
            Every tensor of the state by its name, such as ``"activity/1"``; kept exactly.
        checkpoint_attributes : mapping, optional
            Attributes of the checkpoint, such as ``time`` and ``steps``.

        Raises
        ------
        RunFileError
            An attribute or tensor that cannot be stored (the file is then still open), or a file that
            cannot be written.

        Notes
        -----
        The ending is written to a copy that then takes the place of the file: at any instant the path
        holds a file that opens. Cost: one copy of the file, in time and for a moment in space.
        """
        if not ending:
            raise RunFileError("A run needs an ending.", where="ending", given=ending)
        tensors = None if checkpoint is None else storable(checkpoint)
        further = stored_attributes(checkpoint_attributes)
        final = root_attributes(attributes) | stored_attributes(
            {
                fmt.STATE: fmt.INTERRUPTED if ending == fmt.INTERRUPTED else fmt.COMPLETE,
                fmt.ENDING: ending,
                fmt.ENDING_DETAIL: detail,
            }
        )
        try:
            self.flush()
        finally:
            self._closed = True
            self._file.close()
        try:
            with replaced(self.path) as root:
                del root.attrs[fmt.WRITER_HOST], root.attrs[fmt.WRITER_PID]
                root.attrs.update(final)
                if tensors is not None:
                    write_checkpoint(root, tensors, further)
        except OSError as error:
            raise RunFileError(
                f"The ending of the run cannot be written: {error}",
                where=str(self.path),
                advice="Every frame is in the file; only its ending and checkpoint are missing.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        try:
            self.close(fmt.INTERRUPTED, printable(error) if error else "the writer was left without an ending")
        except Exception as second:
            if error is None:
                raise
            error.add_note(f"While the run file was closed: {second}")  # the first error is the one to see

    def _extend(self, variable: str, begin: int, end: int, buffer: npt.NDArray[Any]) -> None:
        dataset = self._file[variable]
        dataset.resize(end, axis=0)
        dataset[begin:end] = buffer[: end - begin]

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RunFileError("This run file is closed.", where=str(self.path))
