"""Trainings of the tests of several ranks: ``mpiexec -n 2 python -m tests.minigrad.shared_out FOLDER NAME …``.

Each takes a communicator, or None for one process, and a folder, and returns arrays: losses and what was learned.  Rank
k writes those of a training to NAME-k.npz in the folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np

import cells
import minigrad as mg
from minigrad import optim

T, N, D, H = 6, 5, 3, 4  # five sequences: two ranks get three and two
Found = dict[str, np.ndarray]


class Problem:
    """An LSTM, its batches, and the mean over all elements of their squared errors."""

    def __init__(self, dtype: str = "float64", seed: int = 3, count: int = 7, sequences: int = N):
        self.rng = np.random.default_rng(seed)
        self.cell = cells.LSTM(D, H, self.rng, dtype=dtype)
        self.output = cells.Output(H, 2, self.rng, dtype=dtype)
        self.parameters = {**self.cell.parameters(), **self.output.parameters()}
        self.batches = [self.batch(sequences, dtype) for _ in range(count)]

    def batch(self, sequences: int = N, dtype: str = "float64") -> tuple:
        drawn = self.rng.standard_normal((T, sequences, D + 2)).astype(dtype)
        return drawn[..., :D], drawn[..., D:]

    def y(self, x):
        return self.cell(x, output=self.output).y

    def loss(self, x, y):
        return mg.mse(self.y(x), y)

    def learned(self, losses) -> Found:
        values = {n: p.value for n, p in self.parameters.items()}
        return {
            "losses": np.asarray(losses),
            "validation": getattr(losses, "validation", np.zeros(0)),
            **values,
        }


def fitted(comm, problem: Problem, loss=None, batches=None, **options) -> Found:
    given = problem.batches if batches is None else batches
    optimiser = options.pop("optimiser", lambda parameters: optim.Adam(parameters, 0.01))(problem.parameters)
    return problem.learned(
        mg.fit(loss or problem.loss, problem.parameters, given, optimiser=optimiser, comm=comm, **options)
    )


def ranks(comm, **options):
    return None if comm is None else mg.Ranks(comm, **options)


# What is to be the same as in one process.


def plain(comm, folder):
    return fitted(comm, Problem())


def single(comm, folder):
    return fitted(comm, Problem("float32"), epochs=3)


def accumulated(comm, folder):
    return fitted(comm, Problem(), accumulate=3)


def clipped(comm, folder):
    return fitted(comm, Problem(), clip=0.02, clip_value=0.01)


def by_sgd(comm, folder):
    return fitted(comm, Problem(), optimiser=lambda p: optim.SGD(p, 0.1, momentum=0.9), lr=lambda k: 0.1 / k)


def one_by_one(comm, folder):
    """A parameter without a gradient: there is no flat array of all gradients."""
    problem = Problem()
    problem.parameters["idle"] = mg.Tensor(np.ones((2, 2)), requires_grad=True, name="idle")
    return fitted(comm, problem, accumulate=2)


def few(comm, folder):
    """A last batch with fewer sequences than ranks."""
    problem = Problem()
    return fitted(comm, problem, batches=[*problem.batches[:2], problem.batch(1), problem.batch(2)])


def masked_batches(problem: Problem) -> list:
    batches = []
    for k, (x, y) in enumerate(problem.batches):
        mask = problem.rng.random((T, N)) < 0.4
        mask[:, 0] = True  # so that the ranks' counts differ
        if k == 1:
            mask[:, 2:] = False  # nothing counts on the last rank
        if k == 2:
            mask[:] = False  # nor anywhere
        batches.append((x, y, mask))
    return batches


def masked(comm, folder, weigh=lambda x, y, mask: mask.sum()):
    problem = Problem()
    loss = lambda x, y, mask: mg.mse(problem.y(x), y, mask)  # noqa: E731
    given = comm if weigh is None else ranks(comm, weigh=weigh)
    return fitted(given, problem, loss, masked_batches(problem), accumulate=2)


def by_classes(comm, folder):
    """A mean over the weights of the targets."""
    problem, weights = Problem(), np.array([1.0, 5.0])
    batches = [(x, (y[..., 0] > 0.3).astype("int64")) for x, y in problem.batches]
    loss = lambda x, t: mg.cross_entropy(problem.y(x), t, weights=weights)  # noqa: E731
    return fitted(ranks(comm, weigh=lambda x, t: weights[t].sum()), problem, loss, batches)


def summed(comm, folder, weigh="sum"):
    problem = Problem()
    loss = lambda x, y: mg.mse(problem.y(x), y, reduction="sum")  # noqa: E731
    return fitted(ranks(comm, weigh=weigh), problem, loss)


def dense(comm, folder, axes=(0, 0)):
    """No steps: sequences along the first axis, in a dict, beside a number that divides and what all get whole."""
    problem = Problem()
    W = problem.parameters["dense"] = mg.Tensor(
        problem.rng.standard_normal((D, 2)), requires_grad=True, name="dense"
    )

    def loss(batch, y, scale, shift):
        return mg.mse(batch["x"] @ W + shift, y) / scale

    batches = [({"x": x[0]}, y[0], 0.5, np.array([1.0, 2.0])) for x, y in problem.batches]
    return fitted(ranks(comm, axes=axes and (*axes, None, None)), problem, loss, batches)


def carried(comm, folder, steps=None, resume=None, sequences=N, **options):
    """States that are carried from batch to batch, and validated with."""
    problem = Problem(sequences=sequences)

    def loss(x, y, h, c):
        run = problem.cell(x, (h, c), output=problem.output)
        return (mg.mse(run.y, y), *run.state)

    state = (np.full((sequences, H), 0.1), problem.rng.standard_normal((sequences, H)))
    return fitted(
        comm,
        problem,
        loss,
        epochs=2,
        steps=steps,
        state=state,
        validate=problem.batches[:2],
        resume=resume,
        **options,
    )


def resumed(comm, folder):
    """Three times: each goes on from the file of the one before."""
    for steps in (3, 9, None):
        found = carried(comm, folder, steps, Path(folder) / "resumed.file")
    return found


def few_streams(comm, folder):
    """Fewer than three ranks, of which the last has none."""
    for steps in (3, None):
        found = carried(comm, folder, steps, Path(folder) / "few.file", sequences=2)
    return found


def first_steps(comm, folder):
    return carried(comm, folder, 5, Path(folder) / "shared.file")


def other_steps(comm, folder):
    return carried(comm, folder, None, Path(folder) / "shared.file")


def parted(comm, folder, steps=None, resume=None):
    """Four parts on any number of ranks: float32, a mask, clipping, several batches a step, and carried states."""
    problem = Problem("float32")

    def loss(x, y, mask, h, c):
        run = problem.cell(x, (h, c), output=problem.output)
        return (mg.mse(run.y, y, mask), *run.state)

    return fitted(
        mg.Ranks(comm, weigh=lambda x, y, mask: mask.sum(), parts=4),
        problem,
        loss,
        masked_batches(problem),
        epochs=12,
        steps=steps,
        accumulate=2,
        clip=0.02,
        state=(np.full((N, H), 0.1, "f4"), problem.rng.standard_normal((N, H)).astype("f4")),
        validate=masked_batches(problem)[3:5],
        resume=resume,
    )


def parted_first(comm, folder):
    return parted(comm, folder, 22, Path(folder) / "parted.file")


def parted_rest(comm, folder):
    return parted(comm, folder, None, Path(folder) / "parted.file")


def watched(comm, folder):
    """What rank 0 draws, stops and validates, all do; each rank begins with other parameters and another generator."""
    rank = 0 if comm is None else comm.Get_rank()
    problem = Problem(seed=3 + rank)
    rng, calls = np.random.default_rng(rank), []

    def batches(epoch) -> Iterator:
        for _ in range(3):
            drawn = rng.standard_normal((T, N, D + 2))
            yield drawn[..., :D], drawn[..., D:]

    def validate() -> float:
        calls.append("validate")
        return float(rng.random() + len(calls))

    def watch(number, loss):
        calls.append("watch")
        rng.random()
        return number == 11

    found = fitted(
        comm, problem, batches=batches, epochs=None, validate=validate, patience=3, watch=watch, rng=rng
    )
    assert bool(calls) == (rank == 0)
    return found


def validated(comm, folder):
    problem = Problem()
    return fitted(
        comm, problem, epochs=4, validate=problem.batches[4:], validate_every=2, patience=2, progress=True
    )


def stopped_by_anything(comm, folder):
    """What `watch` returns need not be something that can be sent; nor the mapping of the notes."""
    problem, notes = Problem(), MappingProxyType({"made": "here"})
    return fitted(
        comm, problem, watch=lambda number, loss: (lambda: number) if number == 4 else None, notes=notes
    )


def divided(comm, folder):
    """A mean of one's own over what a mask leaves, which in a part without any is not a number, nor its gradient."""
    problem = Problem()
    batches = [(x, y, mask[..., None].astype("float64")) for x, y, mask in masked_batches(problem)[:2]]
    loss = lambda x, y, mask: ((problem.y(x) - y) ** 2 * mask).sum() / mask.sum()  # noqa: E731
    return fitted(ranks(comm, weigh=lambda x, y, mask: mask.sum()), problem, loss, batches)


SAME = [
    plain, single, accumulated, clipped, by_sgd, one_by_one, few, masked, divided, by_classes, summed, dense, carried,
    resumed, few_streams, watched, validated, stopped_by_anything,
]  # fmt: skip


# What is refused, with what is said.


def mask_without_weights(comm, folder):
    return masked(comm, folder, None)


def mask_with_equal_counts(comm, folder):
    """Nothing in the numbers of this batch shows that those of another would be wrong."""
    problem = Problem(sequences=4)
    loss = lambda x, y, mask: mg.mse(problem.y(x), y, mask) * 0.5 + 1  # noqa: E731
    return fitted(comm, problem, loss, [(*b, np.ones((T, 4), bool)) for b in problem.batches])


def count_of_ones_own(comm, folder):
    """The same, written out, and looked at where rank 0 compares nothing."""
    problem = Problem(sequences=4)

    def loss(x, y, t):
        counts = t > 0
        return ((problem.y(x) - y) ** 2 * counts).sum() * (counts.astype("float64").sum() * 2) ** -1

    return fitted(
        ranks(comm, check=False), problem, loss, [(*b, np.ones((T, 4, 1))) for b in problem.batches]
    )


def mixed_sequences(comm, folder):
    """A loss that is no mean over sequences: their spread."""
    problem = Problem()
    return fitted(comm, problem, lambda x, y: (mg.var(problem.y(x), axis=1) * y.mean(1)).mean())


def weights_that_do_not_add_up(comm, folder):
    problem = Problem()
    return fitted(ranks(comm, weigh=lambda x, y: x.shape[1] ** 2, check=False), problem)


def sum_taken_for_a_mean(comm, folder):
    return summed(comm, folder, None)


def axes_untold(comm, folder):
    return dense(comm, folder, None)


def other_parts(comm, folder):
    """Ranks that divide a batch otherwise."""
    return fitted(mg.Ranks(comm, parts=2 + comm.Get_rank()), Problem())


def carried_number(comm, folder):
    """A mean over sequences that is carried is not the same for all parts."""
    problem = Problem()

    def loss(x, y, mean):
        return mg.mse(problem.y(x), y), 0.5 * mean + problem.y(x).mean()

    return fitted(comm, problem, loss, state=(np.array(0.0),))


def other_streams(comm, folder):
    """A batch of other sequences than the carried states are for."""
    problem = Problem()

    def loss(x, y, h):
        run = problem.cell(x, output=problem.output)
        return mg.mse(run.y, y), h + run.state[0].mean(axis=0, keepdims=True)

    return fitted(comm, problem, loss, state=(np.zeros((1, H)),))


def other_data(comm, folder):
    """Each rank draws its own."""
    problem, own = Problem(), Problem(seed=comm.Get_rank())
    return fitted(comm, problem, batches=own.batches)


def more_batches(comm, folder):
    problem = Problem()
    return fitted(comm, problem, batches=problem.batches[: 5 - comm.Get_rank()])


def not_finite(comm, folder):
    problem = Problem()
    problem.batches[4][0][2, N - 1, 1] = np.nan
    return fitted(comm, problem)


def raised_elsewhere(comm, folder):
    def batches() -> Iterator:
        for k, batch in enumerate(problem.batches):
            if k == 3 and comm.Get_rank() == 1:
                raise OSError("a disk is full")
            yield batch

    problem = Problem()
    return fitted(comm, problem, batches=batches(), resume=Path(folder) / "raised.file")


class Unsendable:
    def __reduce__(self):
        raise TypeError("this cannot be sent")


def nothing_to_send(comm, folder):
    """What rank 0 cannot tell the others."""
    return fitted(comm, Problem(), notes={"rank": Unsendable() if comm.Get_rank() == 0 else ""})


def watch_raises(comm, folder):
    def watch(number, loss):
        raise KeyError("a fault of the caller's")

    return fitted(comm, Problem(), watch=watch)


REFUSED = {
    mask_without_weights: (
        "InputError",
        "batch 1 of step 1: the loss is a mean over what its arguments say (a mask",
    ),
    mask_with_equal_counts: ("InputError", "the loss is a mean over what its arguments say"),
    count_of_ones_own: ("InputError", "the loss is a mean over what its arguments say"),
    mixed_sequences: ("InputError", "what mixes the sequences of a batch"),
    weights_that_do_not_add_up: ("InputError", "× the whole; give a `weigh` that adds up"),
    sum_taken_for_a_mean: ("InputError", "on 2 ranks give a loss of"),
    axes_untold: (
        "InputError",
        "batch 1: batch_x (5, 3) has 3 sequences along axis 1, y (5, 2) has 2 along axis 1",
    ),
    other_parts: ("InputError", "the ranks are not at the same place"),
    carried_number: ("InputError", "a number that is carried is"),
    other_streams: (
        "InputError",
        "batch 1: x (6, 5, 3) has 5 sequences along axis 1, and the carried states are for 1",
    ),
    other_data: ("InputError", "rank 1 has different data as batch 1 than rank 0"),
    more_batches: ("InputError", "the ranks are not at the same place"),
    not_finite: ("NonFiniteError", "in batch 5 the argument 'x' is nan at (2, 4, 1)"),
    raised_elsewhere: ("OSError", "a disk is full"),
    nothing_to_send: ("TypeError", "this cannot be sent"),
    watch_raises: ("KeyError", "a fault of the caller's"),
}


# What is ended from outside.


def slow(comm, folder):
    """A long training with a file, in which each rank says that it runs."""
    (Path(folder) / f"pid-{comm.Get_rank()}").write_text(str(os.getpid()))

    def watch(number, loss) -> None:
        if number == 5:  # the file has four
            (Path(folder) / "running").touch()
        if number >= 5:
            time.sleep(0.3)

    return carried(comm, folder, resume=Path(folder) / "slow.file", save_every=2, watch=watch)


def main(folder: str, *names: str) -> None:
    from mpi4py import MPI  # pyright: ignore[reportMissingImports]

    comm = MPI.COMM_WORLD
    for name in names:
        try:
            found = globals()[name](comm, folder)
            np.savez(Path(folder) / f"{name}-{comm.Get_rank()}.npz", **found)
        except Exception as error:
            if len(names) == 1:
                raise
            said = f"{type(error).__name__}: {error}"
            (Path(folder) / f"{name}-{comm.Get_rank()}.txt").write_text(said, encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    main(*sys.argv[1:])
