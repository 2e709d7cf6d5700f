"""Writing a run file, so that it can be watched while it grows and survives a kill at any instant."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.attribute import printable, root_attributes, stored_attributes
from nlsim.record.checkpoint import Checkpoint, CheckpointWriter, storable
from nlsim.record.definition import begin, create, exchange, frames_per_block, netcdf, refuse_if_gone
from nlsim.record.format import ChannelSpec
from nlsim.record.layout import CoordinateSpec
from nlsim.record.recovery import Glance, refuse_other_channel, reopen
from nlsim.record.room import SHARED_BYTES, array_room, give_back, take_room
from nlsim.record.trajectory import open_hdf5


class RunWriter:
    """A run file being written: a context manager that takes frames.

    Frames are buffered and written a block at a time. A frame is in the file once its time is: the block of
    every channel is flushed before its times, so a reader never sees half a frame, and a process killed at
    any instant loses the frames that were not flushed and nothing else. One writer a file: it is claimed by a
    lock that the system takes back when the process is gone.

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
    checkpoint : Checkpoint, optional
        Where the run stands before its first frame; without it the file has no checkpoints.
    force : bool, optional
        Whether a file that is there is replaced; never one that is being written.
    compression : int, optional
        How hard arrays are packed, from 0 (not at all, but channels with times of their own lightly) to 9.

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
        checkpoint: Checkpoint | None = None,
        force: bool = False,
        compression: int = 0,
    ) -> None:
        specs = tuple(channels)
        block = frames_per_block(specs) if block_frames is None else block_frames
        if block < 1:
            raise RunFileError("A block holds at least one frame.", where="block_frames", given=block_frames)
        path = Path(path)
        descriptor = create(
            path,
            specs,
            coordinates,
            root_attributes(attributes),
            time_units=time_units,
            block=block,
            checkpoint=checkpoint,
            force=force,
            compression=compression,
        )
        self._begin(path, specs, descriptor, block)

    @classmethod
    def reopen(
        cls,
        path: str | Path,
        channels: Iterable[ChannelSpec],
        attributes: Mapping[str, Any],
        *,
        seen: Glance | None = None,
        force: bool = False,
    ) -> RunWriter:
        """Go on writing a file whose run has stopped; its frames stay as they are.

        Parameters
        ----------
        path : str or Path
            The file.
        channels : iterable of ChannelSpec
            Those of the file.
        attributes : mapping
            Root attributes that change, as for a new file.
        seen : Glance, optional
            The file as :func:`~nlsim.record.recovery.glance` saw it before the caller read it; it must be so still.
        force : bool
            Whether a file that was begun on another machine, where its run may be going on, is taken all the same.

        Raises
        ------
        RunFileError
            Another run is writing the file, or has written it since, or its channels are others.
        """
        specs, path = tuple(channels), Path(path)
        with open_hdf5(path) as file:
            for spec in specs:
                refuse_other_channel(file, spec, path)
        descriptor = reopen(path, root_attributes(attributes), seen=seen, force=force)
        writer = cls.__new__(cls)
        writer._begin(path, specs, descriptor, frames_per_block(specs))
        return writer

    def _begin(self, path: Path, specs: tuple[ChannelSpec, ...], descriptor: int, block: int) -> None:
        self.path, self._claim, self._block = path, descriptor, block
        self._specs = {spec.name: spec for spec in specs}
        try:
            self._file = begin(path)
        except OSError as error:
            os.close(descriptor)
            raise RunFileError(f"The run file cannot be written: {error}", where=str(path)) from error
        self._checkpoints = CheckpointWriter(self._file) if fmt.CHECKPOINT in self._file else None
        self._buffers = {s.name: np.empty((self._block, *s.shape), s.dtype) for s in specs}
        self._times = np.empty(self._block)
        self._written = len(self._file[fmt.TIME])
        self._last = float(self._file[fmt.TIME][-1]) if self._written else -math.inf
        self._waiting = 0
        self._closed = False

    @property
    def frames(self) -> int:
        """Number of frames taken so far, written or waiting."""
        return self._written + self._waiting

    @property
    def waiting(self) -> int:
        """Number of frames that are not written yet."""
        return self._waiting

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
            is_alike = value.dtype == spec.dtype or np.can_cast(value.dtype, spec.dtype, "same_kind")
            if value.shape != spec.shape or not is_alike:
                raise RunFileError(
                    "This value does not fit its channel.",
                    where=f"channel {name}, frame at time {time}",
                    given=f"{value.dtype} of shape {value.shape}",
                    allowed=f"{spec.dtype} of shape {spec.shape}",
                )
            if value.dtype == spec.dtype:
                self._buffers[name][self._waiting] = value
            else:
                with np.errstate(over="ignore"):  # what float32 cannot hold is stored as infinity
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
        first, end = self._written, self.frames
        arrays = [self._file[name] for name in (fmt.TIME, *(spec.variable for spec in self._specs.values()))]
        room = sum(array_room(each.shape[1:], each.chunks, each.dtype.itemsize, first, end) for each in arrays)
        with self._writing(room + SHARED_BYTES):
            for name, spec in self._specs.items():
                self._extend(spec.variable, first, end, self._buffers[name])
            self._file.flush()
            self._extend(fmt.TIME, first, end, self._times)  # only now do the frames exist for a reader
            self._file.flush()
        self._written, self._waiting = end, 0

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write the waiting frames, and then where the run stands; a kill loses neither.

        Parameters
        ----------
        checkpoint : Checkpoint
            The state after the last frame taken, before any that is to come; of the kind given at first.

        Raises
        ------
        RunFileError
            The file has no checkpoints or other tensors, cannot be written, or was taken away.
        """
        self.flush()
        self._write_checkpoint(checkpoint)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        if self._checkpoints is None:
            raise RunFileError(
                "This run file has no place for checkpoints.",
                where=str(self.path),
                advice="Give the first one when the file is made.",
            )
        with self._writing(SHARED_BYTES):
            self._checkpoints.write(checkpoint)

    @contextmanager
    def _writing(self, room: int) -> Iterator[None]:
        refuse_if_gone(self.path, self._claim)
        try:
            take_room(self._claim, room)
            yield
            give_back(self._claim, self._file.id.get_filesize())
        except (OSError, RuntimeError) as error:
            raise RunFileError(
                f"The run file cannot be written: {error}",
                where=str(self.path),
                advice=f"Is the disk full? The first {self._written} frames are in the file.",
            ) from error

    def close(
        self,
        ending: str,
        detail: str = "",
        attributes: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
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
        checkpoint : Checkpoint, optional
            The state in which the run ended.

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
        self._refuse_if_closed()
        if not ending:
            raise RunFileError("A run needs an ending.", where="ending", given=ending)
        final = root_attributes(attributes) | stored_attributes(
            {
                fmt.STATE: fmt.INTERRUPTED if ending == fmt.INTERRUPTED else fmt.COMPLETE,
                fmt.ENDING: ending,
                fmt.ENDING_DETAIL: detail,
            }
        )
        if checkpoint is not None:
            storable(checkpoint.tensors)  # what cannot be kept is refused while the file is still open

        def end(file: h5py.File) -> None:
            with netcdf(file) as root:
                for name in (fmt.WRITER_HOST, fmt.WRITER_PID):
                    del root.attrs[name]
                root.attrs.update(final)

        try:
            self.flush()
            if checkpoint is not None:
                self._write_checkpoint(checkpoint)
        except BaseException:
            self._let_go()
            raise
        self._closed = True
        try:
            self._file.close()
            self._claim = exchange(self.path, self._claim, end)
            os.close(self._claim)
        except (OSError, RuntimeError) as error:
            raise RunFileError(
                f"The ending of the run cannot be written: {error}",
                where=str(self.path),
                advice="Every frame and the last state are in the file; nlsim resume writes the ending.",
            ) from error

    def _let_go(self) -> None:
        """Close the file as it stands; what HDF5 could not write it will not write now either."""
        self._closed = True
        try:
            self._file.close()
        except (OSError, RuntimeError):
            pass
        finally:
            os.close(self._claim)

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
