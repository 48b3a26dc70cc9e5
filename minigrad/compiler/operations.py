"""Operations that are neither loops over elements nor products: each becomes a kernel's call, or only another place."""

from __future__ import annotations

from ..ops import OPS
from ..sizes import Size, is_one, resolve
from ..tensor import Tensor, describe
from .lowering import Lowering, of_rows
from .places import DEFECT, CannotCompile, Level, Place, contiguous_leading, named, product_of
from .program import ONE, ZERO, Call, Constant, For, Index, Name, Number, View

CONCAT, MATMUL = (OPS[n] for n in ("concat", "matmul"))


class Operations(Lowering):
    """A method for each operation, by its name; `of_rows` marks those that write for the rows of a thread as well as for all."""

    def _reshape(self, node: Tensor, level: Level) -> None:
        origin = self.place(node.inputs[0], level)
        self._alias(node, level, origin.reshaped(self.local_shape(node, level)))

    @of_rows
    def _detach(self, node: Tensor, level: Level) -> None:
        self._alias(node, level, self.place(node.inputs[0], level))

    @of_rows
    def _slice(self, node: Tensor, level: Level) -> None:
        axis, start, _, step = node.params
        origin = self.place(node.inputs[0], level)
        inner = self.count(tuple(node.shape[axis + 1 :]))
        if (
            resolve(step) == 1
            and contiguous_leading(tuple(node.inputs[0].shape), axis)
            and level.batch is None
        ):
            at = origin.at + self._offset(start, inner)
            self._alias(node, level, Place(origin.store, at, tuple(node.shape)))
            return
        outer = self.count(self.local_shape(node, level)[:axis])
        target, whole = self.target(node, level), node.inputs[0].shape[axis]
        self.write(
            level,
            Call("copy_slice", [
                self.view(origin), self.view(target), outer, self.size(whole), self.signed(start),
                self.size(node.shape[axis]), self.signed(step), inner,
            ]),
        )  # fmt: skip

    def _shift(self, node: Tensor, level: Level) -> None:
        origin, target = self.place(node.inputs[0], level), self.target(node, level)
        inner = self.count(tuple(node.shape[1:]))
        by = Number(node.params[0])
        self.write(
            level,
            Call("shift_rows", [self.view(origin), self.view(target), self.size(node.shape[0]), by, inner]),
        )

    def _cumsum(self, node: Tensor, level: Level) -> None:
        axis, backwards = node.params
        origin, target, shape = self.place(node.inputs[0], level), self.target(node, level), node.shape
        outer, inner = self.count(self.local_shape(node, level)[:axis]), self.count(tuple(shape[axis + 1 :]))
        count = self.size(self.local_shape(node, level)[axis])
        self.write(
            level,
            Call(
                "cumsum_columns", [self.view(origin), self.view(target), outer, count, inner, bool(backwards)]
            ),
        )

    @of_rows
    def _place(self, node: Tensor, level: Level) -> None:
        axis, start, _, step, size = node.params
        origin, target = self.place(node.inputs[0], level), self.target(node, level)
        outer = self.count(self.local_shape(node, level)[:axis])
        inner = self.count(tuple(node.shape[axis + 1 :]))
        view = self.view(target)
        self.write(
            level,
            Call("fill", [view, Constant(target.store.dtype, 0)]),
            Call("place_slice", [
                self.view(origin), view, outer, self.size(size), self.signed(start),
                self.size(node.inputs[0].shape[axis]), self.signed(step), inner,
            ]),
        )  # fmt: skip

    @of_rows
    def _concat(self, node: Tensor, level: Level) -> None:
        axis = node.params[0]
        target = self.target(node, level)
        whole, start = self.size(node.shape[axis]), Size({(): 0}).resolved()
        outer, inner = (
            self.count(self.local_shape(node, level)[:axis]),
            self.count(tuple(node.shape[axis + 1 :])),
        )
        for x in node.inputs:
            if level.body is None:
                self.serial()
            origin = self.place(x, level)
            if origin.store is not target.store or origin.at != self._part_of(node, x, start, level).at:
                self.write(
                    level,
                    Call("place_slice", [
                        self.view(origin), self.view(target), outer, whole, self.signed(start),
                        self.size(x.shape[axis]), ONE, inner,
                    ]),
                )  # fmt: skip
            start = resolve(start + x.shape[axis])

    def _place_concats(self, level: Level) -> None:
        """Parts of a concatenation along the leading axis are computed where they will stand."""
        for node in level.nodes:
            if node.op is CONCAT and contiguous_leading(tuple(node.shape), node.params[0]):
                start: Size | int = 0
                for x in node.inputs:
                    alone = len(level.readers.get(x.number, [])) == 1 and x.number not in level.wanted
                    if x.op is MATMUL and alone:
                        level.targets[x.number] = lambda x=x, node=node, at=start: self._part_of(
                            node, x, at, level
                        )
                    start = resolve(start + x.shape[node.params[0]])

    def _part_of(self, node: Tensor, x: Tensor, start, level: Level) -> Place:
        whole = self.target(node, level)
        inner = self.count(tuple(node.shape[node.params[0] + 1 :]))
        return Place(whole.store, whole.at + self._offset(start, inner), tuple(x.shape))

    def _transpose(self, node: Tensor, level: Level) -> None:
        origin, axes = self.place(node.inputs[0], level), node.params[0]
        if axes == tuple(range(len(axes))):
            self._alias(node, level, origin)
            return
        target = self.target(node, level)
        shape, old = self.local_shape(node, level), tuple(node.inputs[0].shape)
        strides = [self.count(old[a + 1 :]) for a in axes]
        axes_sizes = [(self.size(n), s) for n, s in zip(shape, strides, strict=True)]
        outer, inner = axes_sizes[:-4], [(ONE, ZERO)] * (4 - len(axes_sizes)) + axes_sizes[-4:]
        read, written = self.view(origin), self.view(target)
        body = self.statements(level)
        if outer:  # loops over the axes that the kernel has no loop for
            at, number = origin.at, ZERO
            for depth, (n, stride) in enumerate(outer):
                counter = Name(f"i{depth}")
                at, number = at + counter * stride, number * n + counter
                loop = For(counter.text, ZERO, n)
                body.append(loop)
                body = loop.body
            count = self.count(shape[-4:])
            last: Index = ONE  # how far the last element lies from the first
            for n, stride in reversed(inner):
                last = (n - 1) * stride + last
            read, written = (
                View(origin.store, at, last),
                View(target.store, target.at + number * count, count),
            )
        call = Call("permute", [read, written, *(n for n, _ in inner), *(s for _, s in inner)])
        self.note(call)
        body.append(call)

    def _gather(self, node: Tensor, level: Level) -> None:
        table, index = (self.place(x, level) for x in node.inputs)
        width = self.count(tuple(node.inputs[0].shape[1:]))
        target = self.target(node, level)
        self.check(
            node,
            level,
            Call(
                "gather",
                [
                    self.view(table),
                    self.view(index),
                    self.view(target),
                    self.size(node.inputs[0].shape[0]),
                    width,
                ],
            ),
            f"the rows of {describe(node.inputs[0])}",
            node.inputs[0].shape[0],
        )

    def _arange(self, node: Tensor, level: Level) -> None:
        self.write(level, Call("count_up", [self.view(self.target(node, level))]))

    def _inside(self, node: Tensor, level: Level) -> None:
        index = self.place(node.inputs[0], level)
        size, of, _ = node.params
        self.check(node, level, Call("count_outside", [self.view(index), self.size(size)]), of, size)
        self._alias(node, level, index)

    def _scatter(self, node: Tensor, level: Level) -> None:
        g, index = (self.place(x, level) for x in node.inputs)
        width = self.count(tuple(node.shape[1:]))
        target = self.target(node, level)
        view = self.view(target)
        self.write(level, Call("fill", [view, Constant(target.store.dtype, 0)]))
        self.check(
            node,
            level,
            Call("scatter", [self.view(g), self.view(index), view, self.size(node.shape[0]), width]),
            "the rows",
            node.shape[0],
        )

    @of_rows
    def _reduction(self, node: Tensor, level: Level) -> None:
        axes, x = node.params[0], node.inputs[0]
        origin, target = self.place(x, level), self.target(node, level)
        shape = self.local_shape(x, level)
        if x.dtype != node.dtype:  # counts of booleans, sums of small integers
            converted = self.new_store(
                f"{self.label(x, level)}_{target.store.dtype}", node.dtype, product_of(tuple(x.shape))
            )
            place = Place(converted, self.batch_offset(x, level), shape)
            self.copy(level, origin, place)
            origin = place
        dims: list[list] = []  # runs of axes that are all kept or all summed
        for k, n in enumerate(shape):
            if is_one(n):
                continue
            if dims and dims[-1][0] == (k in axes):
                dims[-1][1] = resolve(named(dims[-1][1]) * named(n))
            else:
                dims.append([k in axes, resolve(n)])
        kinds = "".join("r" if reduced else "k" for reduced, _ in dims)
        sizes = [n for _, n in dims]
        views = [self.view(origin), self.view(target)]
        name = node.op.name  # type: ignore[union-attr]
        if kinds in ("", "k") and name == "top":  # a single −∞ is not −∞ any more
            self.write(level, Call("top_rows", [*views, self.count(shape), ONE]))
            return
        if kinds in ("", "k"):  # nothing to reduce
            self.copy(level, origin, target.reshaped(origin.shape))
            return
        outer: Size | int = 1
        if kinds in ("r", "kr"):
            outer, sizes = (sizes[0], sizes[1:]) if kinds == "kr" else (1, sizes)
            self.write(level, Call(f"{name}_rows", [*views, self.size(outer), self.size(sizes[0])]))
        elif kinds in ("rk", "krk"):
            outer, sizes = (sizes[0], sizes[1:]) if kinds == "krk" else (1, sizes)
            self.write(
                level,
                Call(f"{name}_columns", [*views, self.size(outer), self.size(sizes[0]), self.size(sizes[1])]),
            )
        else:
            raise CannotCompile(
                f"{self.name}: {name} over axes {axes} of {describe(x)}, which do not lie together ({DEFECT})"
            )

    _sum = _max = _min = _top = _logsumexp = _reduction
