"""The walk through a graph, or the body of a scan: in which order operations are written, and which share a loop."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush

from ..ops import OPS
from ..scanning import LAST, SCAN, STACKED
from ..tensor import Tensor, describe
from .loops import loops_of
from .operations import Operations
from .places import CannotCompile, Level
from .products import Products

ADD, BROADCAST_TO, MATMUL, TRANSPOSE = (OPS[n] for n in ("add", "broadcast_to", "matmul", "transpose"))


class Walk(Products, Operations):
    """Goes through the nodes of a level: loops over elements wait for each other, the rest is written when it comes."""

    def run_level(self, level: Level) -> None:
        for node in level.nodes:
            if node.op is None or self._fills_carries(node, level) or self.in_time(node, level):
                continue
            if self.is_elementwise(node) and not self._adds_product(node, level):
                level.pending[node.number] = node
            elif self._deferred_product(node, level):
                continue
            else:
                self.flush(level, self._operands(node, level))
                self.emit_node(node, level)
                self.done.add(node.number)
        self.flush(level, None)

    def _fills_carries(self, node: Tensor, level: Level) -> bool:
        """First states of one number are filled in by their scan."""
        if node.op is not BROADCAST_TO or not self.is_number(node.inputs[0]) or node.number in level.wanted:
            return False
        return all(
            r.op is SCAN and not any(x is node for x in r.inputs[len(r.params[0].carry) :])
            for r in level.readers.get(node.number, [])
        )

    def scheduled(self, level: Level) -> list[Tensor]:
        """An order in which heavy operations, which threads share, stand together."""

        def kind(node: Tensor) -> int:
            if node.op is SCAN:
                return 2
            return 1 if node.op is MATMUL or self._adds_product(node, level) or node.op is TRANSPOSE else 0

        own = {n.number for n in level.nodes}
        waiting = {n.number: sum(x.number in own for x in n.inputs) for n in level.nodes}
        ready: list[list[tuple[int, Tensor]]] = [[], [], []]  # heaps: the oldest first
        order: list[Tensor] = []
        for n in level.nodes:
            if not waiting[n.number]:
                heappush(ready[kind(n)], (n.number, n))
        now = 0
        while any(ready):
            if not ready[now]:
                now = next(k for k in range(3) if ready[k])
            node = heappop(ready[now])[1]
            order.append(node)
            for reader in level.readers.get(node.number, []):
                waiting[reader.number] -= 1
                if not waiting[reader.number]:
                    heappush(ready[kind(reader)], (reader.number, reader))
        return order

    @staticmethod
    def is_elementwise(node: Tensor) -> bool:
        return node.op is not None and (node.op.kind == "elementwise" or node.op is BROADCAST_TO)

    def by_rows(self, node: Tensor) -> bool:
        """Can the lines of this operation be for the rows of one thread alone?  Each says so where they are written."""
        if node.op is MATMUL and len(node.shape) > 2:
            return False
        return self.is_elementwise(node) or hasattr(self._lines_of(node), "of_rows")

    def flush(self, level: Level, needed_by: list[Tensor] | None) -> None:
        """Write the loops of all pending operations, if one of them is needed now."""
        waiting = level.pending
        if not waiting or (needed_by is not None and not any(x.number in waiting for x in needed_by)):
            return
        if needed_by is None or level.body is not None:  # inside a loop few large loops are best
            pending, level.pending = list(waiting.values()), {}
        else:  # outside, what is not needed yet may share a loop with its readers
            now: set[int] = set()
            ask = [x.number for x in needed_by if x.number in waiting]
            while ask:
                number = ask.pop()
                if number not in now:
                    now.add(number)
                    ask += [x.number for x in waiting[number].inputs if x.number in waiting]
            pending = [waiting.pop(number) for number in sorted(now)]
        for nodes in self._of_one_shape(pending):
            for loop in loops_of(self, level, nodes):
                loop.emit()
            self.done.update(n.number for n in nodes)

    def _of_one_shape(self, nodes: list[Tensor]) -> list[list[Tensor]]:
        """Groups that a loop can hold: each operation in the first one of its shape where its operands are there."""
        groups: list[list[Tensor]] = []
        alike: dict[tuple[str, ...], list[int]] = {}  # the groups of a shape
        member: dict[int, tuple[int, tuple[str, ...]]] = {}
        for node in nodes:
            shape = self.axes(node)
            own = alike.setdefault(shape, [])
            least = 0
            for x in node.inputs:
                if x.number in member:
                    at, its = member[x.number]
                    least = max(least, at if its == shape else at + 1)
            k = bisect_left(own, least)
            if k == len(own):
                own.append(len(groups))
                groups.append([])
            groups[own[k]].append(node)
            member[node.number] = own[k], shape
        return groups

    def emit_node(self, node: Tensor, level: Level) -> None:
        assert node.op is not None
        if level.body is None and node.op not in (MATMUL, ADD, SCAN):
            self.serial()
        if node.op is ADD:
            self._sum_of_products(node, level)
        elif node.op is SCAN:
            self.scan(node, level)
        elif node.op in (STACKED, LAST):
            pass  # placed when their scan was written
        else:
            handler = self._lines_of(node)
            if handler is None:
                raise CannotCompile(
                    f"{self.name}: {node.op.name} of {describe(node)} is not compiled; run the part that needs it eagerly"
                )
            handler(node, level)

    def _lines_of(self, node: Tensor) -> Callable | None:
        return getattr(self, f"_{node.op.name}", None)  # type: ignore[union-attr]

    def scan(self, node: Tensor, level: Level) -> None:
        """Write a loop over steps, whose body is another level: scans.py does."""
        raise NotImplementedError
