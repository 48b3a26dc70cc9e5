"""Products outside of loops over steps, as calls: those that run through the same rows do so together, block by block."""

from __future__ import annotations

from collections.abc import Sequence

from .program import (
    FIRST_MADE,
    FIRST_ROW,
    MADE_COUNT,
    PART,
    PARTS,
    ROW_COUNT,
    ZERO,
    Call,
    For,
    Index,
    Name,
    Number,
    Product,
    Set,
    Statement,
    chosen,
    compared,
    maximum,
    minimum,
)

BLOCK_SUM = 256  # rows of a block that several products read: matmul_sum's own block
# Rows of a product that is made inside a loop: enough to run at full speed, few enough for the cache.
BLOCK_ROWS = 128
SUMS_IN_CACHE = 200_000  # numbers
SCRATCH = Name("scratch")


def blocked(body: Sequence[Statement]) -> list[Statement]:
    """The statements with calls in place of products, a block of rows at a time that the caches hold."""
    done: list[Statement] = []
    group: list[Product] = []

    def close() -> None:
        done.extend(_together(group))
        group.clear()

    for s in body:
        if not isinstance(s, Product):
            close()
            done.append(s)
            continue
        # A sum adds to all rows of C with every block: no product of other rows may go to the same C.
        apart = any(p.c[0] is s.c[0] and p.is_sum != s.is_sum for p in group)
        if group and (apart or group[0].long != s.long):
            close()
        group.append(s)
    close()
    return done


def _together(group: list[Product]) -> list[Statement]:
    if len(group) < 2 or not any(p.is_sum for p in group):
        return _once([s for p in group for s in _calls(p, ZERO, p.long)])
    # Not where the sums are so large that they themselves would be thrown out of the cache by every block.
    size: Index = ZERO
    for p in group:
        if p.is_sum:
            size += p.width * p.columns
    small = compared("<", size, SUMS_IN_CACHE)
    long, step, start, block = group[0].long, Name("step"), Name("r0"), Name("block")
    calls = _once([s for p in group for s in _calls(p, start, block)])
    return [
        Set((step.text,), (chosen(small, BLOCK_SUM, maximum(1, long)),)),
        For(
            start.text,
            ZERO,
            maximum(1, long),
            step,
            [Set((block.text,), (minimum(step, long - start),)), *calls],
        ),
    ]


def _once(body: list[Statement]) -> list[Statement]:
    """A name is set anew only where its value differs."""
    known: dict[tuple[str, ...], tuple[Index, ...]] = {}
    kept: list[Statement] = []
    for s in body:
        if isinstance(s, Set):
            if known.get(s.names) == s.values:
                continue
            known[s.names] = s.values
        kept.append(s)
    return kept


def _calls(p: Product, start: Index, count: Index) -> list[Statement]:
    """The product of `count` rows from `start`, as one thread's part of it."""
    (a, a_at), (b, b_at), (c, c_at) = p.a, p.b, p.c
    if p.is_sum:
        row0, rows = FIRST_ROW, ROW_COUNT
        own = share(row0, rows, p.width)
        add: Index | bool = compared(">", start, 0) if start != ZERO and not p.accumulate else p.accumulate
        if p.shift is None:
            return [*own, Call("matmul_sum", [
                a, a_at + start * p.width + row0, p.width, b, b_at + start * p.columns, p.columns, count, rows,
                p.columns, c, c_at + row0 * p.columns, p.columns, add, SCRATCH,
            ])]  # fmt: skip
        return [*own, Call("matmul_sum_shifted", [
            a, a_at + row0, p.width, p.long, p.shift, start, count, b, b_at, rows, p.columns, c,
            c_at + row0 * p.columns, add, SCRATCH,
        ])]  # fmt: skip
    first, rows = FIRST_MADE, MADE_COUNT
    own = _own_rows(start, count, p.long)
    if p.shift is None:
        return [*own, Call("matmul", [
            a, a_at + first * p.width, rows, p.width, p.width, Number(1), b, b_at, c, c_at + first * p.columns,
            p.columns, p.columns, p.accumulate,
        ])]  # fmt: skip
    return [*own, Call("matmul_shifted", [
        a, a_at, p.long, p.shift, first, rows, p.width, b, c, c_at, p.columns, p.accumulate,
    ])]  # fmt: skip


def _own_rows(start: Index, count: Index, long: Index) -> list[Statement]:
    """A thread's rows: the same ones in all statements of a stage, so that of a block it may have none."""
    if start == ZERO:
        return share(FIRST_MADE, MADE_COUNT, long)
    first, end = long * PART // PARTS, long * (PART + 1) // PARTS
    return [
        Set((FIRST_MADE.text,), (maximum(start, first),)),
        Set((MADE_COUNT.text,), (maximum(0, minimum(start + count, end) - FIRST_MADE),)),
    ]


def share(first: Name, count: Name, of: Index) -> list[Statement]:
    """A thread's part of `of` rows."""
    return [
        Set((first.text,), (of * PART // PARTS,)),
        Set((count.text,), (of * (PART + 1) // PARTS - first,)),
    ]
