"""What is recorded of a network while it is trained: gradients, gates and weights at chosen steps of the training.

A recorder runs the loss on one small fixed batch, eagerly and with `record=True`, and keeps
nothing but norms and shares, so that it takes a few hundredths of the time of the training.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from minigrad import GraphError, InputError, Tensor, ancestors
from minigrad.files import write

from ..language.status import norm
from ..language.text import Keys, key, of_gradient
from ..read.network import QUANTITY, Network, gradient_of, read
from ..read.units import NEAR, RANGES
from .recurrence import decays
from .ways import weight_names

FIXED = ("step", "loss", "t")  # what `data` always has
R = TypeVar("R", bound="Recording")


class Recording:
    """Figures of a network at chosen steps of its training, by name.

    every : how many steps of training lie between two records.

    ``mg.fit(…, watch=history.watch(loss, *batch))`` records before the first step, and then every so many.
    `data` has arrays by name; R records, T steps of the sequence, names of layers before, as "layer 1 / ":

    =========================  ========  =====================================================
    "step"                     (R,)      the step of the training, 0: before it
    "loss"                     (R,)      the loss on the batch that is recorded
    "t"                        (T,)      the steps of the sequence; with no recurrence (0,)
    "dh"                       (R, T)    ‖∂L/∂h_t‖ of every named quantity; NaN: none
    "f mean"                   (R, T)    mean of every named quantity
    "f saturated low", "high"  (R, T)    share of units within 0.05 of the ends of σ or tanh
    "half-life"                (R,)      of the gradient through the states, in steps;
                                         negative: it doubles; NaN: nothing flows
    "rate"                     (R,)      log of its growth per step back; with T = 1 neither
    "dW_f norm", "W_f norm"    (R,)      of every weight's gradient, and of the weight
    =========================  ========  =====================================================
    """

    def __init__(self, every: int = 100):
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InputError(f"History: every = {every!r}; give a whole number of at least 1")
        self.every = int(every)
        self._records: list[dict[str, np.ndarray]] = []
        self._times = np.zeros(0, np.int64)
        self._names: dict[int, str] = {}  # of weights, by number
        self._state = ""  # what is carried last in the last layer, as "layer 2 / h"

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        steps = [int(r["step"]) for r in self._records]
        return f"<{type(self).__name__}: {len(steps)} records{f', steps {steps[0]} … {steps[-1]}' if steps else ''}>"

    @property
    def data(self) -> dict[str, np.ndarray]:
        """The arrays by name; what a record does not have is NaN there."""
        names = dict.fromkeys(name for r in self._records for name in r)
        found: dict[str, np.ndarray] = {"step": np.zeros(0, np.int64), "loss": np.zeros(0), "t": self._times}
        for name in names:
            shape = next(r[name].shape for r in self._records if name in r)
            rows = [r.get(name, np.full(shape, np.nan)) for r in self._records]
            found[name] = np.array(rows)
        return found

    def watch(
        self, loss: Callable, *batch, start: bool = True, then: Callable | None = None
    ) -> Callable[[int, float], object]:
        """For `fit`'s watch: records every so many steps, and at once the state before the first.

        loss : as for `fit`, not compiled: a function of the batch's arrays that gives the loss, or a tuple that
            begins with it.
        batch : its arguments, the same at every record; few sequences are enough.
        start : record now, as step 0.
        then : another function to call at every step, such as one that stops the training.
        """
        if start:
            self.record(0, loss, *batch)

        def watching(step: int, value: float):
            if step % self.every == 0:
                self.record(step, loss, *batch)
            return then(step, value) if then is not None else None

        return watching

    def record(self, step: int, loss: Callable, *batch) -> None:
        """Run the loss on the batch and keep its figures as those of a step of the training.

        Gradients that were left in the weights are as before.  Raises InputError where the loss is not a single number,
        or the batch has another number of steps than that of the record before.
        """
        function = getattr(loss, "function", loss)  # of what is compiled: the graph is needed
        result = function(*(x if isinstance(x, Tensor) else Tensor(np.asarray(x)) for x in batch))
        root = result[0] if isinstance(result, (tuple, list)) else result
        if not isinstance(root, Tensor) or root.is_symbol or root.size != 1:
            raise InputError("History: the loss must give a single number, or a tuple that begins with it")
        leaves = [n for n in ancestors(root) if n.op is None]
        kept = [(n, n.grad) for n in leaves]
        try:
            root.backward(record=True)
            network = read(root)
            figures = self._figures(root, network, [n for n in leaves if n.requires_grad])
        except GraphError as error:
            raise InputError(f"History: step {step}: {error}") from None
        finally:
            for n, gradient in kept:
                n.grad = gradient
        self._keep(int(step), network, figures)

    def _keep(self, step: int, network: Network | None, figures: dict[str, np.ndarray]) -> None:
        times = np.array(network.times if network is not None else [], np.int64)
        if self._records and not np.array_equal(times, self._times):
            raise InputError(
                f"History: the batch of step {step} has {len(times)} steps, that before had {len(self._times)}; "
                "record the same batch every time"
            )
        self._times = times
        for band in network.bands if network is not None else ():
            if network is not None and network.carried[band]:
                self._state = key(band, network.carried[band][-1])
        self._records.append({"step": np.array(step), **figures})

    def _figures(self, root: Tensor, network: Network | None, weights: list[Tensor]) -> dict[str, np.ndarray]:
        """All that one record holds."""
        found: dict[str, np.ndarray] = {"loss": np.array(float(root.value.item()))}
        if network is not None:
            for band in network.bands:
                names = dict.fromkeys(
                    g.name
                    for t in network.times
                    for g in network.cells.get((band, t), ())
                    if g.kind == QUANTITY and g.name
                )
                for name in names:
                    found |= _quantity(network, band, name)
            for one in decays(network):
                rate = np.nan if one.rate is None else one.rate
                half = np.nan if one.rate is None else np.inf if one.half_life is None else one.half_life
                found |= {key(one.band, "rate"): np.array(rate), key(one.band, "half-life"): np.array(half)}
        if [n.number for n in weights] != list(self._names):
            names, fresh = weight_names(network) if network is not None else {}, Keys().fresh
            self._names = {n.number: names.get(n.number) or fresh(n.name or "weight") for n in weights}
        for n in weights:
            name = self._names[n.number]
            found[of_gradient(name, "norm")] = np.array(np.nan if n.grad is None else norm(n.grad))
            found[f"{name} norm"] = np.array(norm(n.value))
        return found

    # Files.

    def save(self, path: str | os.PathLike) -> Path:
        """Write `data` as an .npz file, which appears complete or not at all."""
        path = Path(path)
        data = self.data
        buffer = io.BytesIO()
        arrays = {f"a{k}": value for k, value in enumerate(data.values())}
        arrays |= {
            "every": np.array(self.every),
            "names": np.array(list(data), np.str_),
            "state": np.array(self._state, np.str_),
        }
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return write(path, buffer.getvalue())

    @classmethod
    def load(cls: type[R], path: str | os.PathLike) -> R:
        """Read what `save` wrote; raises InputError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names, state = [str(n) for n in file["names"]], str(file["state"])
                every = int(file["every"])
                data = {name: file[f"a{k}"] for k, name in enumerate(names)}
        except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
            raise InputError(f"History.load: {path} is not a recorded history ({error})") from None
        count = len(data["step"]) if all(name in data for name in FIXED) else -1
        if any(len(v) != count for name, v in data.items() if name != "t"):
            raise InputError(
                f"History.load: {path} is not a recorded history: its arrays do not fit together"
            )
        found = cls(every)
        found._times, found._state = data["t"], state
        found._records = [{name: v[k] for name, v in data.items() if name != "t"} for k in range(count)]
        return found


def _quantity(network: Network, band: str, name: str) -> dict[str, np.ndarray]:
    """The gradient, the mean and the saturation of one quantity, by step; NaN where it is not."""
    gradients, means, lows, highs = np.full((4, len(network.times)), np.nan)
    ends = None
    for k, t in enumerate(network.times):
        g = network.find(band, t, name)
        if g is None or g.out.is_symbol or g.out.dtype.kind != "f" or not g.out.size:
            continue
        gradient, value = gradient_of(network.statuses, g.out), g.out.value
        gradients[k] = np.nan if gradient is None else norm(gradient)
        means[k] = value.mean(dtype=np.float64)
        ends = RANGES.get(g.out.op.name if g.out.op is not None else "")
        if ends is not None:
            lows[k], highs[k] = (value < ends[0] + NEAR).mean(), (value > ends[1] - NEAR).mean()
    found = {f"d{name}": gradients, f"{name} mean": means}
    if ends is not None:
        found |= {f"{name} saturated low": lows, f"{name} saturated high": highs}
    return {key(band, name_): value for name_, value in found.items()}
