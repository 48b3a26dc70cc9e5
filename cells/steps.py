"""What a run leaves behind: `Run`, all steps by name, and `Step`, one of them."""

from __future__ import annotations

from collections.abc import Iterator

from minigrad import InputError, Tensor, describe, stack


class Step:
    """One step of a run: ``step.f``, ``step["f"]`` are its quantities, `x` its input, `t` its number from 1.

    `inputs` has what stood beside x too, by name; `state` are the states after the step.
    """

    def __init__(
        self, t: int, inputs: dict[str, Tensor], quantities: dict[str, Tensor], state: tuple[Tensor, ...]
    ):
        self.t, self.x, self.inputs = t, inputs["x"], inputs
        self.quantities, self.state = quantities, state

    def __getitem__(self, name: str) -> Tensor:
        for known in (self.quantities, self.inputs):
            if name in known:
                return known[name]
        raise InputError(
            f"step t={self.t} has no {name!r}; it has {', '.join({**self.inputs, **self.quantities})}"
        )

    def __getattr__(self, name: str) -> Tensor:
        quantities = vars(self).get("quantities", {})  # none yet while it is copied or unpickled
        if name.startswith("_") or name not in quantities:
            known = ", ".join({**vars(self).get("inputs", {"x": None}), **quantities})
            raise AttributeError(f"step t={vars(self).get('t')} has no {name!r}; it has {known}")
        return quantities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __repr__(self) -> str:
        return f"<step t={self.t}: {', '.join({**self.inputs, **self.quantities})}>"


class Run:
    """All steps of a run: ``run.h`` or ``run["f"]`` are (T, N, …).

    `outputs` are the outputs (T, N, …), whatever their name is, and `last` (N, …) those after the last step:
    each sequence's last real one.  `state` is what the last step left, () where the layer has no states.
    `steps` are the single steps where the run was eager, else empty.

    A Run is not an array: what takes one says so and names `outputs`.
    """

    def __init__(
        self,
        quantities: dict[str, Tensor] | None,
        state: tuple[Tensor, ...] = (),
        steps: list[Step] | None = None,
        name: str = "h",
    ):
        self._quantities, self.state, self.steps = quantities or {}, state, steps or []
        self.name, self._last = name, state[0] if state else None

    def add(self, name: str, quantity: Tensor) -> None:
        """Let the run have one more quantity (T, N, …)."""
        self._quantities[name] = quantity

    @property
    def outputs(self) -> Tensor:
        """The outputs of all steps, (T, N, …)."""
        return self[self.name]

    @property
    def last(self) -> Tensor:
        """The outputs after the last step, each sequence's last real one, (N, …)."""
        return self.outputs[-1] if self._last is None else self._last

    @property
    def each(self) -> list[Tensor]:
        """The outputs (N, …) step by step; empty where the run was traced or the layer has no steps."""
        return [step.state[0] for step in self.steps]

    @property
    def names(self) -> list[str]:
        """Of all quantities and inputs that the run has."""
        there = {**self.steps[0].inputs, **self.steps[0].quantities} if self.steps else {}
        return list({**there, **self._quantities})

    def __getitem__(self, name: str) -> Tensor:
        if not isinstance(name, str):
            raise InputError(f"a Run has quantities by name, not [{name!r}]; take {self._takes}")
        if name not in self._quantities:
            if name not in self.names:
                raise InputError(f"the run has no {name!r}; it has {', '.join(self.names)}")
            self._quantities[name] = stack([step[name] for step in self.steps])
        return self._quantities[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except InputError as error:
            raise AttributeError(f"{error}; its arrays are .outputs, .last and .state") from None

    @property
    def _takes(self) -> str:
        return f"its .outputs, .last, .state, or a quantity by name ({', '.join(self.names)})"

    def __iter__(self):
        raise InputError(f"a Run cannot be unpacked like a tuple; take {self._takes}")

    def _no_array(self, *_, **__):
        raise InputError(f"a Run is not an array; take {self._takes}")

    __array__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _no_array
    __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __neg__ = _no_array

    def __repr__(self) -> str:
        state = "; ".join(describe(s) for s in self.state) or "none"
        return f"<run: {', '.join(self.names)}; state: {state}>"
