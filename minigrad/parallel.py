"""Data-parallel training: several processes, the ranks of an MPI communicator, each with its share of every batch.

All ranks are given the same whole batches, which are divided in parts, one for each rank or as many as the caller says.
A rank computes loss and gradients of its own parts, each into one flat row, and rows are added in a fixed order, that of
a binary tree over all parts, whoever has computed them: so all ranks make the same step, and as many parts give the
same bits on any number of ranks.  Files, progress and what a caller watches are those of rank 0.

Before every exchange the ranks meet: 32 bytes say what each of them is about to do.  Who fails, or is stopped, says
so there, whatever the others have come for, and all end together; nobody waits for a rank that will never come.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import zlib
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
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
    """A part of a batch."""

    arguments: Sequence
    weight: float  # the losses of all parts, each times this, sum up to that of the batch
    of_all: float = 1.0  # what the weights of all parts sum up to: 1, or 0 where nothing of the batch counts
    whole: frozenset[int] = frozenset()  # which leaves of the arguments all parts have whole


class Alone:
    """One process, which has all of every batch and nobody to agree with."""

    rank, size, parts = 0, 1, 1
    over = orderly = False
    steps: Callable[[], int] = staticmethod(lambda: 0)  # how many steps this rank has made

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        pass

    def own(self, name: str, batch, loss: Callable) -> list[Share]:
        return [Share(batch, 1.0)]

    def own_state(self, state: tuple) -> list[tuple]:
        return [state]

    def whole_state(self, states: list[tuple]) -> tuple:
        return states[0]

    def summed(self, step: TrainingStep, number: int, part: Callable[[int], list[float]]) -> float:
        return part(0)[0]

    def refuse_counts(self, name: str, step: TrainingStep, share: Share) -> None:
        pass

    def compare(self, name: str, step: TrainingStep, batch, states: list[tuple], value: float) -> None:
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

    comm : a communicator of mpi4py; None: this process alone.  ``fit(…, comm=MPI.COMM_WORLD)`` is
        ``comm=Ranks(MPI.COMM_WORLD)``.
    axes : along which axis the sequences of a batch lie: one for all arrays, or one for each argument of the loss,
        None for an argument that all parts get whole.  By default, and for arguments beyond those told, it is 1 for
        arrays of two or more axes (steps, sequences, …) and 0 for those of one; for carried states always 0.  Numbers
        are for all parts, as are tensors that learn.  N sequences are shared out in order, the first N mod parts
        getting one more; where there are fewer than parts, the others count nothing in that batch.
    weigh : how much a part of a batch counts.  None: by its number of sequences, which is right for a loss that is
        a mean over sequences of equal length.  A function of the batch's arguments that returns the number that the
        loss is a mean over, e.g. ``lambda x, y, mask: mask.sum()``: for means over what a mask or lengths leave, or
        over weights.  "sum": for a loss that is a sum, whose parts are added.
    parts : in how many parts each batch is divided, which are shared out in order; None: one for each rank.  As many
        parts give the same losses and parameters to the last bit on any number of ranks, one process included.
    check : whether at steps 1, 2, 4, 8, … rank 0 also computes the loss of the whole batch, which the parts must sum
        up to, and whether all ranks were given the same batch and have the same parameters.

    Raises InputError for what is not a communicator, for axes or a weight that make no sense, and for fewer parts than
    ranks.
    """

    def __init__(
        self,
        comm,
        axes: int | Sequence[int | None] | None = None,
        weigh: Callable[..., float] | str | None = None,
        check: bool = True,
        parts: int | None = None,
    ):
        comm = ONE if comm is None else comm
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
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        parts = self.size if parts is None else parts
        if not isinstance(parts, whole) or isinstance(parts, bool) or parts < self.size:
            raise InputError(
                f"Ranks: parts = {parts!r} on {self.size} ranks; give a whole number, and at least one part for each"
            )
        self.given: Any = comm
        self.axes, self.weigh, self.check, self.parts = axes, weigh, check, int(parts)
        self.ends = [0, *accumulate(len(range(k, self.parts, self.size)) for k in range(self.size))]
        self.here = range(*self.ends[self.rank : self.rank + 2])  # the parts of this rank
        self.free: list[np.ndarray] = []  # rows that can be written to

    def __enter__(self) -> Ranks:
        self.over = False  # whether all ranks know that it has ended
        self.orderly = False  # whether they then stand at the same step, and can exchange once more
        self.error: BaseException | None = None  # why this rank ends
        self.stop, self.before = False, None  # whether it was asked to stop; what handled Ctrl-C before
        self.together = False  # whether others wait for this rank to finish what they do together
        if self.size == 1:
            self.comm: Any = ONE
            return self
        from mpi4py import MPI  # pyright: ignore[reportMissingImports]

        self.MPI, self.comm = MPI, self.given.Dup()  # no message of the caller's is taken for one of ours
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
        """Ctrl-C: all ranks stop where they meet next; a second one does not wait for that, but for an exchange."""
        if self.stop and not self.together:
            raise KeyboardInterrupt
        self.stop = True

    # Meeting.

    def meet(self, what: int, detail: int = 0, exchange: Callable[[], Any] = lambda: None) -> Any:
        """Wait for all ranks, and do what they have met for; raises where one has failed, was stopped, or is about to do
        something else."""
        self.together = True  # from here on nobody can leave
        try:
            self._met(STOPPED if self.stop and what < STOPPED else what, detail)
            return exchange()
        finally:
            self.together = False

    def _met(self, what: int, detail: int) -> None:
        if self.size == 1:
            return
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
        if self.over or self.size == 1:
            return found
        # What cannot be sent fails here, before the others wait for it.
        packed = pickle.dumps(found) if self.rank == 0 else b""
        packed = self.meet(FIRST, exchange=lambda: self.comm.bcast(packed))
        return pickle.loads(packed) if self.rank else found

    def each(self, function: Callable[[int], Any], count: int) -> list:
        """What it returns for 0, 1, …, count − 1, shared out over the ranks."""
        own = [function(k) for k in range(self.rank, count, self.size)]
        found = self.meet(GATHER, exchange=lambda: self.comm.allgather(own))
        return [found[k % self.size][k // self.size] for k in range(count)]

    # Shares.

    def part(self, k: int, N: int) -> slice:
        """The sequences of the k-th part, out of N."""
        each, more = divmod(N, self.parts)
        start = k * each + min(k, more)
        return slice(start, start + each + (k < more))

    def _lent(self, k: int, N: int) -> slice:
        """The same; a part that has none computes another's first sequence, which counts nothing there."""
        part = self.part(k, N)
        return part if part.start < part.stop else slice(0, 1)

    def _axis(self, k: int, ndim: int) -> int | None:
        if isinstance(self.axes, (int, np.integer)):
            return int(self.axes)
        if self.axes is not None and k < len(self.axes):
            return self.axes[k]
        return min(1, ndim - 1)

    def own(self, name: str, batch, loss: Callable) -> list[Share]:
        """This rank's parts of a batch; raises InputError where arguments do not have as many sequences."""
        cut: list[Callable] = []  # for each leaf, what gives the part of it that some sequences are
        N, first, whole, at = None, "", [], 0
        for k, argument in enumerate(batch):
            leaves = taken_apart((argument,), {})[1]
            for place, leaf in enumerate(leaves):
                array = _array(leaf)
                axis = None if array is None else self._axis(k, array.ndim)
                if array is None or axis is None:
                    whole.append(at + place)
                    cut.append(lambda part, leaf=leaf: leaf)
                    continue
                what = f"{_name(loss, batch, k, place)} {dims(array.shape)}"
                if axis >= array.ndim:
                    raise InputError(f"fit: {name}: {what} has no axis {axis}; {_AXES}")
                found = array.shape[axis]
                if N is None:
                    N, first = found, f"{what} has {found} sequences along axis {axis}"
                elif found != N:
                    raise InputError(f"fit: {name}: {first}, {what} has {found} along axis {axis}; {_AXES}")
                cut.append(lambda part, array=array, before=(slice(None),) * axis: array[(*before, part)])
            at += len(leaves)
        if N is None:
            raise InputError(
                f"fit: {name} has no array, so there is nothing to share out over {self.parts} parts"
            )
        if self.streams not in (0, N):
            raise InputError(
                f"fit: {name}: {first}, and the carried states are for {self.streams}; give as many to all batches"
            )
        form, of_all = taken_apart(batch, {})[0], self._of_all(name, batch)
        shares = []
        for k in self.here:
            arguments = form.call(lambda *own: own, [leaf(self._lent(k, N)) for leaf in cut])
            shares.append(
                Share(arguments, self._weight(name, k, arguments, N, of_all), of_all > 0, frozenset(whole))
            )
        return shares

    def _of_all(self, name: str, batch) -> float:
        """What the whole batch counts."""
        return _counted(name, self.weigh(*batch)) if callable(self.weigh) else 1.0

    def _weight(self, name: str, k: int, own: Sequence, N: int, of_all: float) -> float:
        part = self.part(k, N)
        if part.start == part.stop:
            return 0.0
        if self.weigh is None:
            return (part.stop - part.start) / N
        if not callable(self.weigh):
            return 1.0
        return _counted(name, self.weigh(*own)) / of_all if of_all else 0.0

    def own_state(self, state: tuple) -> list[tuple]:
        """A carried state for each part of this rank; raises InputError where arrays are for different numbers of
        sequences."""
        leaves, rebuild = flatten(state)
        arrays = [np.asarray(leaf.value if isinstance(leaf, Tensor) else leaf) for leaf in leaves]
        counts = {len(array) for array in arrays if array.ndim}
        if len(counts) > 1:
            raise InputError(
                f"fit: the carried states {', '.join(dims(a.shape) for a in arrays)} are for different numbers of sequences; "
                "give those along axis 0 of each"
            )
        self.streams = N = max(counts, default=0)
        return [rebuild([a[self._lent(k, N)] if a.ndim else a for a in arrays]) for k in self.here]

    streams = 0  # sequences of the carried state

    def whole_state(self, states: list[tuple]) -> tuple:
        """On rank 0 the carried state of all sequences, in order; elsewhere that of this rank's first part.

        Raises InputError, on rank 0, where a number that is carried differs from part to part.
        """
        if not flatten(states[0])[0]:
            return states[0]
        own = [[*map(np.asarray, flatten(state)[0])] for state in states]
        found = (
            self.comm.gather(own) if self.over else self.meet(GATHER, exchange=lambda: self.comm.gather(own))
        )
        if found is None:
            return states[0]
        arrays = []
        for of_parts in zip(*[part for rank in found for part in rank], strict=True):
            if of_parts[0].ndim:
                real = [self.part(k, self.streams) for k in range(self.parts)]
                of_parts = [a[: r.stop - r.start] for a, r in zip(of_parts, real, strict=True)]
            elif len(different := {a.tobytes(): a for a in of_parts}) > 1:
                one, other, *_ = different.values()
                raise InputError(
                    f"fit: a number that is carried is {one} after one part of a batch and {other} after another; "
                    "carry one for each sequence"
                )
            arrays.append(np.concatenate(of_parts) if of_parts[0].ndim else of_parts[0])
        return flatten(states[0])[1](arrays)

    # The sum over all ranks.

    def summed(self, step: TrainingStep, number: int, part: Callable[[int], list[float]]) -> float:
        """Let this rank's parts be computed and add up those of all ranks; returns the loss of the batch.

        part : computes one of this rank's parts, leaves its gradients as those of `step.compute`, and returns what is
            added up with them: its loss, its weight, and 1 or 0: whether the batch counts.
        The gradients of the whole batch are then those of `step.compute`.
        """
        nodes = [self._node(step, part, *node) for node in self._nodes(0, self.parts)]
        pieces, kind = step.pieces()
        kind ^= self.parts  # who divides a batch otherwise is not at the same place
        row = self.meet(STEP, (number << 32) + kind, lambda: self.added(nodes))
        self.free.append(row)
        for piece, own in zip(pieces, _like(pieces, row), strict=True):
            piece[...] = own
        value, weight, of_all = map(float, row[-3:])
        if callable(self.weigh) and not abs(weight - of_all / self.parts) < 1e-3 * max(1, weight):
            raise InputError(
                f"fit: in step {number} the parts of the batch count {weight:.6g} × the whole; give a `weigh` that adds up, "
                "e.g. a sum over a mask"
            )
        return value

    def _nodes(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of this rank, as the largest branches of the tree that they fill."""
        if self.here.start <= start and stop <= self.here.stop:
            return [(start, stop)]
        if stop <= self.here.start or self.here.stop <= start:
            return []
        middle = _middle(start, stop)
        return [*self._nodes(start, middle), *self._nodes(middle, stop)]

    def _node(self, step: TrainingStep, part: Callable, start: int, stop: int) -> np.ndarray:
        """The sum of some of this rank's parts."""
        if stop - start == 1:
            return self._row(part(start - self.here.start), step.pieces()[0])
        middle = _middle(start, stop)
        left, right = (self._node(step, part, *half) for half in ((start, middle), (middle, stop)))
        left += right
        self.free.append(right)
        return left

    def _row(self, told: list[float], pieces: list[np.ndarray]) -> np.ndarray:
        """Gradients and numbers in one."""
        size = sum(piece.size for piece in pieces) + len(told)
        dtype = np.result_type(np.float32, *[piece.dtype for piece in pieces])
        row = self._spare(size, dtype)
        for piece, own in zip(pieces, _like(pieces, row), strict=True):
            own[...] = piece
        row[-len(told) :] = told
        return row

    def _spare(self, size: int, dtype: np.dtype) -> np.ndarray:
        """A row that can be written to."""
        self.free = [row for row in self.free if (row.size, row.dtype) == (size, dtype)]
        return self.free.pop() if self.free else np.empty(size, dtype)

    def added(self, rows: list[np.ndarray]) -> np.ndarray:
        """The sum of all ranks' rows, of which this rank has those of its branches; they are written over."""
        if self.size == 1:
            return rows[0]
        even = self.parts % self.size == 0 and self.size & (self.size - 1) == 0
        return self._added_by_halves(rows[0]) if even else self._added_by_branches(rows)

    def _added_by_halves(self, row: np.ndarray) -> np.ndarray:
        """Where each rank has one branch of as many: log₂ of the ranks times each adds another half of what it still has
        to its neighbour's, and then gives back what it has added."""
        start, stop, bit, went = 0, row.size, 1, []
        other = self._spare(row.size, row.dtype)
        while bit < self.size:
            middle = (start + stop) // 2
            keep, give = slice(start, middle), slice(middle, stop)
            keep, give = (give, keep) if self.rank & bit else (keep, give)
            self._swapped(row[give], other[keep], self.rank ^ bit)
            row[keep] += other[keep]
            went.append((keep, give, self.rank ^ bit))
            start, stop, bit = keep.start, keep.stop, 2 * bit
        for keep, give, neighbour in reversed(went):
            self._swapped(row[keep], row[give], neighbour)
        self.free.append(other)
        return row

    def _swapped(self, given: np.ndarray, got: np.ndarray, neighbour: int) -> None:
        requests = self.comm.Irecv(got, source=neighbour), self.comm.Isend(given, dest=neighbour)
        for request in requests:
            self._wait(request)

    def _added_by_branches(self, rows: list[np.ndarray]) -> np.ndarray:
        """Any number of ranks and parts: who has the left branch of two gets the right one, and the first rank tells all."""
        own = dict(zip(self._nodes(0, self.parts), rows, strict=True))
        size, dtype = rows[0].size, rows[0].dtype

        def total(start: int, stop: int) -> Any:
            """Of these parts, on the rank that has the first of them; None elsewhere."""
            first, last = self._rank_of(start), self._rank_of(stop - 1)
            if first == last:
                return own.get((start, stop))
            middle = _middle(start, stop)
            left, right, other = total(start, middle), total(middle, stop), self._rank_of(middle)
            if self.rank == other != first:
                self._wait(self.comm.Isend(right, dest=first))
            elif self.rank == first and other != first:
                got = self._spare(size, dtype)
                self._wait(self.comm.Irecv(got, source=other))
                left += got
                self.free.append(got)
            elif self.rank == first:
                left += right
            return left

        total(0, self.parts)  # into the first row of rank 0
        self._wait(self.comm.Ibcast(rows[0]))
        self.free += rows[1:]
        return rows[0]

    def _rank_of(self, part: int) -> int:
        return bisect(self.ends, part) - 1

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

    def compare(self, name: str, step: TrainingStep, batch, states: list[tuple], value: float) -> None:
        """Raise InputError where ranks differ, or the parts of a loss do not sum up to that of the whole batch.

        value : what this rank's parts have added to it.
        """
        whole = self.whole_state(states)
        learned = [p.value for p in step.optimiser.parameters]
        own = value, _checksum(taken_apart(batch, {})[1]), _checksum(learned)
        told = self.meet(COMPARE, exchange=lambda: self.comm.gather(own))
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
                f"fit: the {self.parts} parts of {name} on {self.size} ranks give a loss of {found:.9g}, all of it "
                f"{expected:.9g}; a mean over what a mask or lengths leave needs comm=mg.Ranks(comm, weigh=…), a sum "
                "weigh='sum', and arrays whose sequences lie elsewhere axes=…; what mixes the sequences of a batch, or draws "
                "numbers inside of the loss, cannot be shared out"
            )


class _One:
    """The communicator of one process."""

    Get_rank, Get_size = staticmethod(lambda: 0), staticmethod(lambda: 1)
    bcast = staticmethod(lambda found: found)
    gather = allgather = staticmethod(lambda found: [found])
    Iallreduce = Free = staticmethod(lambda: None)


_AXES = "say along which axis the sequences lie, e.g. comm=mg.Ranks(comm, axes=(1, 0)) for the loss's two arguments"
ALONE, ONE = Alone(), _One()


def ranks_of(comm) -> Alone:
    """Those of a communicator, or of `Ranks`; one process is alone."""
    if comm is None:
        return ALONE
    ranks = comm if isinstance(comm, Alone) else Ranks(comm)
    return ALONE if ranks.parts == 1 else ranks


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
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if node.op is None or node.shape or node.number in seen:
            continue
        seen.add(node.number)
        inverse = node.op.name == "power" and node.params[0] < 0
        below = node.inputs[-1:] if node.op.name == "div" or inverse else ()
        if any(n.number in arguments for n in ancestors(*below)):
            return True
        todo += node.inputs
    return False


def _middle(start: int, stop: int) -> int:
    """Where the parts from `start` to `stop` divide in two branches of the tree."""
    return (start + stop + 1) // 2


def _like(pieces: Iterable[np.ndarray], row: np.ndarray) -> Iterator[np.ndarray]:
    """The pieces of a row that are like these."""
    at = 0
    for piece in pieces:
        yield row[at : at + piece.size].reshape(piece.shape)
        at += piece.size


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
