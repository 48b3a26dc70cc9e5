"""Data-parallel training: several processes, the ranks of an MPI communicator, each with its share of every batch.

All ranks are given the same whole batches.  Each takes its own sequences, computes their loss and gradients, and one
sum over all ranks of one flat buffer, with gradients and loss, gives all of them those of the whole batch: so all make
the same step.  Files, progress and what a caller watches are those of rank 0.

Before every exchange the ranks meet: 32 bytes say what each of them is about to do.  Who fails, or is stopped, says
so there, whatever the others have come for, and all end together; nobody waits for a rank that will never come.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .arguments import NUMBERS, taken_apart
from .errors import InputError, MinigradError, dims
from .reverse import ancestors
from .scanning import flatten
from .tensor import Tensor

if TYPE_CHECKING:
    from .compiler import TrainingStep

# What ranks meet for.  The last two end the training of all.
STEP, FIRST, GATHER, COMPARE, DONE, STOPPED, FAILED = range(1, 8)
PATIENT = 2e-4  # seconds of waiting after which a rank leaves the processor to others
TOLERANCE = {4: 3e-5, 8: 1e-10}  # by bytes of a number: the loss of a batch, and what its shares sum up to
SIZES = (
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
)  # where MPICH and its kin, and Open MPI, say how many ranks there are
PMIX = "PMIX_RANK"  # set by launchers of batch systems, which do not


class Share(NamedTuple):
    """What a rank has of a batch."""

    arguments: list
    weight: float  # its part of the batch's loss: the losses of all ranks, each times this, sum up to that of the batch
    whole: frozenset[int] = frozenset()  # which leaves of the arguments are the same on all ranks


class Alone:
    """One process, which has all of every batch and nobody to agree with."""

    rank, size = 0, 1
    over = orderly = False
    steps: Callable[[], int] = staticmethod(lambda: 0)  # how many steps this rank has made

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        pass

    def own(self, name: str, batch, loss: Callable) -> Share:
        return Share(batch, 1.0)

    def own_state(self, state: tuple) -> tuple:
        return state

    def whole_state(self, state: tuple) -> tuple:
        return state

    def summed(self, step: TrainingStep, number: int, value: float, weight: float) -> float:
        return value

    def refuse_counts(self, name: str, step: TrainingStep, share: Share) -> None:
        pass

    def compare(
        self, name: str, step: TrainingStep, batch, state: tuple, value: float, weight: float
    ) -> None:
        pass

    def first(self, function: Callable, *arguments) -> Any:
        return function(*arguments)

    def each(self, function: Callable[[int], Any], count: int) -> list:
        return [function(k) for k in range(count)]

    def done(self, number: int = 0) -> None:
        pass

    def join(self, error: BaseException | None) -> None:
        pass

    def looks(self, number: int) -> bool:
        return False


class Ranks(Alone):
    """The processes of an MPI communicator that train together: ``mg.fit(…, comm=mg.Ranks(MPI.COMM_WORLD, …))``.

    comm : a communicator of mpi4py.  ``fit(…, comm=MPI.COMM_WORLD)`` is ``comm=Ranks(MPI.COMM_WORLD)``.
    axes : along which axis the sequences of a batch lie: one for all arrays, or one for each argument of the loss,
        None for an argument that all ranks get whole.  By default, and for arguments beyond those told, it is 1 for
        arrays of two or more axes (steps, sequences, …) and 0 for those of one; for carried states always 0.  Numbers
        are for all ranks, as are tensors that learn.  N sequences are shared out in order, the first N mod ranks
        getting one more; where there are fewer than ranks, the others count nothing in that batch.
    weigh : how much a part of a batch counts.  None: by its number of sequences, which is right for a loss that is
        a mean over sequences of equal length.  A function of the batch's arguments that returns the number that the
        loss is a mean over, e.g. ``lambda x, y, mask: mask.sum()``: for means over what a mask or lengths leave, or
        over weights.  "sum": for a loss that is a sum, whose parts are added.
    check : whether at steps 1, 2, 4, 8, … rank 0 also computes the loss of the whole batch, which the parts must sum
        up to, and whether all ranks were given the same batch and have the same parameters.

    Raises InputError for what is not a communicator, and for axes, a weight or a check that make no sense.
    """

    def __init__(
        self,
        comm,
        axes: int | Sequence[int | None] | None = None,
        weigh: Callable[..., float] | str | None = None,
        check: bool = True,
    ):
        if not callable(getattr(comm, "Iallreduce", None)):
            raise InputError(f"fit: comm is {type(comm).__name__}; give a communicator, e.g. MPI.COMM_WORLD")
        whole = (int, np.integer)
        given = [axes] if isinstance(axes, whole) else [] if axes is None else axes
        if not isinstance(given, (list, tuple)) or not all(
            a is None or (isinstance(a, whole) and not isinstance(a, bool) and a >= 0) for a in given
        ):
            raise InputError(
                f"Ranks: axes = {axes!r}; give 0, 1, …, or one for each argument of the loss, or None"
            )
        if not (weigh is None or weigh == "sum" or callable(weigh)):
            raise InputError(
                f'Ranks: weigh = {weigh!r}; give None, "sum", or a function of a batch\'s arguments'
            )
        self.given, self.axes, self.weigh, self.check = comm, axes, weigh, check
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.buffer = np.empty(0, np.float32)

    def __enter__(self) -> Ranks:
        from mpi4py import MPI  # pyright: ignore[reportMissingImports]

        self.MPI, self.comm = MPI, self.given.Dup()  # no message of the caller's is taken for one of ours
        self.over = False  # whether all ranks know that it has ended
        self.orderly = False  # whether they then stand at the same step, and can exchange once more
        self.error: BaseException | None = None  # why this rank ends
        self.stop, self.before = False, None  # whether it was asked to stop; what handled Ctrl-C before
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self.before = signal.signal(signal.SIGINT, self._asked_to_stop)
        _silence_what_others_say()
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.join(error)
        finally:
            if self.before is not None:
                signal.signal(signal.SIGINT, self.before)
        if error is None:
            self.comm.Free()
            if self.stop:
                raise KeyboardInterrupt

    def _asked_to_stop(self, number, frame) -> None:
        """Ctrl-C: all ranks stop where they meet next; a second one does not wait for that."""
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True

    # Meeting.

    def meet(self, what: int, detail: int = 0) -> None:
        """Wait for all ranks; raises where one has failed, was stopped, or is about to do something else."""
        what = STOPPED if self.stop and what < STOPPED else what
        told = np.array([what, -what, detail, -detail], np.int64)
        self._wait(self.comm.Iallreduce(self.MPI.IN_PLACE, told, self.MPI.MAX))
        most, least, most_detail, least_detail = told.tolist()
        if most >= STOPPED:
            self._end()
        elif (most, most_detail) != (-least, -least_detail):
            self.over = True
            raise InputError(
                f"fit: the ranks are not at the same place: rank {self.rank} of {self.size} has made {self.steps()} steps; "
                "give all the same arguments, and as many batches"
            )

    def _wait(self, request) -> None:
        """Not by MPI's own waiting, which takes a processor as long as it lasts and hears no signal."""
        began = time.perf_counter()
        while not request.Test():
            waited = time.perf_counter() - began
            if waited > PATIENT:
                time.sleep(min(1e-3, waited / 8))
            elif hasattr(os, "sched_yield"):
                os.sched_yield()

    def join(self, error: BaseException | None) -> None:
        """Tell all that this rank has failed; they end too.  Nothing happens where they know."""
        if error is not None and not self.over:
            self.error, self.stop = error, False
            self.meet(STOPPED if isinstance(error, KeyboardInterrupt) else FAILED)

    def _end(self) -> None:
        """All ranks hear who has failed: the first that has is the one that says why."""
        self.over, own = True, self.error
        text = None if own is None else f"{type(own).__name__}: {own}"
        told = self.comm.allgather((text, isinstance(own, KeyboardInterrupt), self.steps()))
        self.orderly = len({steps for *_, steps in told}) == 1
        failed = [k for k, (text, stopped, _) in enumerate(told) if text is not None and not stopped]
        speaker = failed[0] if failed else 0
        if own is None:
            own = MinigradError(f"rank {speaker}: {told[speaker][0]}") if failed else KeyboardInterrupt()
            own.__dict__["said_elsewhere"] = self.rank != speaker
            raise own
        own.__dict__["said_elsewhere"] = self.rank != speaker

    def done(self, number: int = 0) -> None:
        """Whether all ranks have come to the end."""
        self.meet(DONE, number)

    # What one rank does for all, and what each does for itself.

    def first(self, function: Callable, *arguments) -> Any:
        """What the function returns on rank 0, which alone calls it."""
        found = function(*arguments) if self.rank == 0 else None
        if self.over:
            return found
        self.meet(FIRST)
        return self.comm.bcast(found)

    def each(self, function: Callable[[int], Any], count: int) -> list:
        """What it returns for 0, 1, …, count − 1, shared out over the ranks."""
        own = [function(k) for k in range(self.rank, count, self.size)]
        self.meet(GATHER)
        found = self.comm.allgather(own)
        return [found[k % self.size][k // self.size] for k in range(count)]

    # Shares.

    def part(self, N: int) -> slice:
        """The sequences of this rank, out of N."""
        each, more = divmod(N, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def _axis(self, k: int, ndim: int) -> int | None:
        if isinstance(self.axes, (int, np.integer)):
            return int(self.axes)
        if self.axes is not None and k < len(self.axes):
            return self.axes[k]
        return min(1, ndim - 1)

    def own(self, name: str, batch, loss: Callable) -> Share:
        """This rank's sequences; raises InputError where arguments do not have as many."""
        arguments, N, first, whole, at = [], None, "", [], 0
        for k, argument in enumerate(batch):
            form, leaves = taken_apart((argument,), {})
            cut = []
            for place, leaf in enumerate(leaves):
                array = _array(leaf)
                axis = None if array is None else self._axis(k, array.ndim)
                if array is None or axis is None:
                    whole.append(at + place)
                    cut.append(leaf)
                    continue
                what = f"{_name(loss, batch, k, place)} {dims(array.shape)}"
                if axis >= array.ndim:
                    raise InputError(f"fit: {name}: {what} has no axis {axis}; {_AXES}")
                if N is None:
                    N, first = (
                        array.shape[axis],
                        f"{what} has {array.shape[axis]} sequences along axis {axis}",
                    )
                elif array.shape[axis] != N:
                    raise InputError(
                        f"fit: {name}: {first}, {what} has {array.shape[axis]} along axis {axis}; {_AXES}"
                    )
                cut.append(array[(slice(None),) * axis + (self._lent(N),)])
            at += len(leaves)
            arguments.append(form.call(lambda x: x, cut))
        if N is None:
            raise InputError(
                f"fit: {name} has no array, so there is nothing to share out over {self.size} ranks"
            )
        return Share(arguments, self._weight(name, batch, arguments, N), frozenset(whole))

    def _lent(self, N: int) -> slice:
        """The part of a rank; one that has none computes another's first sequence, which counts nothing here."""
        part = self.part(N)
        return part if part.start < part.stop else slice(0, 1)

    def _weight(self, name: str, batch, own: list, N: int) -> float:
        part = self.part(N)
        if part.start == part.stop:
            return 0.0
        if self.weigh is None:
            return (part.stop - part.start) / N
        if not callable(self.weigh):
            return 1.0
        here, all_of_it = (_counted(name, self.weigh(*arguments)) for arguments in (own, batch))
        return here / all_of_it if all_of_it else 0.0

    def own_state(self, state: tuple) -> tuple:
        """This rank's part of a carried state; raises InputError where arrays are not for as many sequences."""
        leaves, rebuild = flatten(state)
        arrays = [np.asarray(leaf.value if isinstance(leaf, Tensor) else leaf) for leaf in leaves]
        counts = {len(array) for array in arrays if array.ndim}
        if len(counts) > 1:
            raise InputError(
                f"fit: the carried states {', '.join(dims(a.shape) for a in arrays)} are for different numbers of sequences; "
                "give those along axis 0 of each"
            )
        self.streams = max(counts, default=0)
        return rebuild([a[self._lent(self.streams)] if a.ndim else a for a in arrays])

    streams = 0  # sequences of the carried state

    def whole_state(self, state: tuple) -> tuple:
        """On rank 0 the carried state of all sequences, in order; elsewhere this rank's."""
        leaves, rebuild = flatten(state)
        if not leaves:
            return state
        if not self.over:
            self.meet(GATHER)
        part = self.part(self.streams)
        found = self.comm.gather(
            [a[: part.stop - part.start] if a.ndim else a for a in map(np.asarray, leaves)]
        )
        if found is None:
            return state
        return rebuild(
            [np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*found, strict=True)]
        )

    # The sum over all ranks.

    def summed(self, step: TrainingStep, number: int, value: float, weight: float) -> float:
        """Add up the gradients of `step.compute` over all ranks, in place; returns the sum of the values."""
        pieces, kind = step.pieces()
        self.meet(STEP, (number << 32) + kind)
        ends = np.cumsum([0, *[piece.size for piece in pieces]]).tolist()
        dtype = np.result_type(np.float32, *[piece.dtype for piece in pieces])
        if (self.buffer.size, self.buffer.dtype) != (ends[-1] + 2, dtype):
            self.buffer = np.empty(ends[-1] + 2, dtype)
        parts = [self.buffer[a:b] for a, b in pairwise(ends)]
        for part, piece in zip(parts, pieces, strict=True):
            part[:] = piece.reshape(-1)
        self.buffer[-2:] = value, weight
        self.comm.Allreduce(self.MPI.IN_PLACE, self.buffer, self.MPI.SUM)
        for part, piece in zip(parts, pieces, strict=True):
            piece[...] = part.reshape(piece.shape)
        value, weight = map(float, self.buffer[-2:])
        if callable(self.weigh) and weight and not abs(weight - 1) < 1e-3:
            raise InputError(
                f"fit: in step {number} the parts of the batch count {weight:.6g} × the whole; give a `weigh` that adds up, "
                "e.g. a sum over a mask"
            )
        return value

    # Looking whether it is right.

    def refuse_counts(self, name: str, step: TrainingStep, share: Share) -> None:
        """Raise InputError for a mean over what the values of its arguments say, where no `weigh` says what counts."""
        program = step.loss.last
        if self.weigh is not None or program is None or program is self.known:
            return
        traced, (root, *_) = program.traced, program.stages_of["traced"]
        if _divided_by_values(
            root, {a.number for k, a in enumerate(traced.arguments) if k not in share.whole}
        ):
            raise InputError(
                f"fit: {name}: the loss is a mean over what its arguments say (a mask, classes with weights), so that parts "
                "of a batch count differently; give comm=mg.Ranks(comm, weigh=…), e.g. weigh=lambda x, y, mask: mask.sum()"
            )
        self.known = program

    known: Any = None  # the program that was looked at last

    def looks(self, number: int) -> bool:
        """Whether the ranks are compared at this step."""
        return self.check and number & (number - 1) == 0

    def compare(
        self, name: str, step: TrainingStep, batch, state: tuple, value: float, weight: float
    ) -> None:
        """Raise InputError where ranks differ, or the parts of a loss do not sum up to that of the whole batch."""
        whole = self.whole_state(state)
        learned = [p.value for p in step.optimiser.parameters]
        self.meet(COMPARE)
        told = self.comm.gather((weight * value, _checksum(taken_apart(batch, {})[1]), _checksum(learned)))
        self.first(self._compare, told, name, step, batch, whole)

    def _compare(self, told: list[tuple], name: str, step: TrainingStep, batch, state: tuple) -> None:
        values, batches, parameters = zip(*told, strict=True)
        for sums, what in (
            (batches, f"different data as {name}"),
            (parameters, f"different parameters at {name}"),
        ):
            if len({*sums}) > 1:
                other = next(k for k, s in enumerate(sums) if s != sums[0])
                raise InputError(
                    f"fit: rank {other} has {what} than rank 0; all ranks are given the same whole batches and options: "
                    "draw from a generator with the same seed, and give it as rng"
                )
        result = step.loss(*batch, *state)
        result = result[0] if isinstance(result, (tuple, list)) else result
        expected, found = float(result), sum(values)
        near = TOLERANCE.get(getattr(result, "dtype", np.dtype(np.float64)).itemsize, 1e-2)
        if not abs(found - expected) <= near * max(abs(expected), *map(abs, values)):
            raise InputError(
                f"fit: the parts of {name} on {self.size} ranks give a loss of {found:.9g}, all of it {expected:.9g}; a mean "
                "over what a mask or lengths leave needs comm=mg.Ranks(comm, weigh=…), a sum weigh='sum', and arrays whose "
                "sequences lie elsewhere axes=…; what mixes the sequences of a batch, or draws numbers inside of the loss, "
                "cannot be shared out"
            )


_AXES = "say along which axis the sequences lie, e.g. comm=mg.Ranks(comm, axes=(1, 0)) for the loss's two arguments"
ALONE = Alone()


def ranks_of(comm) -> Alone:
    """Those of a communicator, or of `Ranks`; one process is alone."""
    if comm is None:
        return ALONE
    ranks = comm if isinstance(comm, Alone) else Ranks(comm)
    return ALONE if ranks.size == 1 else ranks


def world():
    """The communicator of all processes that a launcher such as mpiexec has started together; None for a single one.

    Raises InputError where mpi4py is missing, or uses another MPI than that of the launcher.
    """
    count = next((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdigit()), None)
    if count == 1 or (count is None and PMIX not in os.environ):
        return None
    try:
        from mpi4py import MPI  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI behind it
        if count is None:  # one of a batch system, as far as anybody can tell
            return None
        raise InputError(f"{count} processes were started together, and mpi4py is not there ({error}): "
                         "pip install 'minigrad-rnn[mpi]'") from None  # fmt: skip
    if count not in (None, MPI.COMM_WORLD.Get_size()):
        raise InputError(
            f"{count} processes were started together, and mpi4py sees {MPI.COMM_WORLD.Get_size()}: start them with the "
            f"mpiexec of its own MPI, {MPI.Get_library_version().splitlines()[0].strip()}"
        )
    return None if MPI.COMM_WORLD.Get_size() == 1 else MPI.COMM_WORLD


def said_elsewhere(error: BaseException) -> bool:
    """Whether another rank says what went wrong."""
    return error.__dict__.get("said_elsewhere", False)


def _silence_what_others_say() -> None:
    """Of all the ranks that an error ends, one prints it."""
    before = sys.excepthook
    if getattr(before, "for_ranks", False):
        return

    def hook(kind, error, trace) -> None:
        if not said_elsewhere(error):
            before(kind, error, trace)

    hook.for_ranks = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _array(leaf) -> np.ndarray | None:
    """What can be cut of an argument: an array, or a list that is one; no number, and nothing that learns."""
    if isinstance(leaf, NUMBERS) or (isinstance(leaf, Tensor) and leaf.requires_grad):
        return None
    array = np.asarray(leaf.value if isinstance(leaf, Tensor) else leaf)
    return array if array.ndim else None


def _name(loss: Callable, batch, k: int, place: int) -> str:
    """What the loss calls a leaf of its k-th argument."""
    before = len(taken_apart(batch[:k], {})[1])
    return taken_apart(batch, {})[0].names(loss)[before + place]


def _divided_by_values(root: Tensor, arguments: set[int]) -> bool:
    """Whether a number that the loss is divided by depends on values of these arguments, not only on their sizes."""
    todo = [root]
    while todo:
        node = todo.pop()
        if node.op is None or node.shape:
            continue
        inverse = node.op.name == "power" and node.params[0] < 0
        below = node.inputs[-1:] if node.op.name == "div" or inverse else ()
        if any(n.number in arguments for n in ancestors(*below)):
            return True
        todo += node.inputs
    return False


def _counted(name: str, weight) -> float:
    number = float(weight.value if isinstance(weight, Tensor) else weight)
    if not 0 <= number < np.inf:
        raise InputError(
            f"fit: weigh returned {number} for {name}; give how much counts, a number of at least 0"
        )
    return number


def _checksum(arrays: Iterable) -> int:
    found = 0
    for array in arrays:
        found = zlib.crc32(np.asarray(array.value if isinstance(array, Tensor) else array).tobytes(), found)
    return found
