"""Reads the stages of a compiled function as loops: what one step computes, what stands before and after it.

What a rewrite moved it has logged: which node of its graph stands for which node of the
graph before.  So a product that stands outside for one that was in the loop has left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from minigrad import InputError, Tensor, ancestors
from minigrad.scanning import LAST, SCAN, STACKED, Body
from minigrad.trace import asked_of, everywhere

from ..language.catalogue import deferred, tr
from ..language.text import clean, number, pretty

BEFORE, INSIDE, AFTER = "before", "inside", "after"
PRODUCT, MOVE, VALUE, GIVEN = deferred("product"), deferred("move"), deferred("value"), deferred("given")
NEW, LEFT = deferred("new"), deferred("left the loop")
SILENT = ("reshape", "broadcast_to", "cast", "place")  # what is not said


@dataclass(eq=False)
class Item:
    """What becomes one node of the picture; `nodes` by rising number."""

    where: str
    kind: str
    nodes: list[Tensor] = field(default_factory=list)
    name: str = ""
    said: str = ""
    mark: str = ""
    carried: bool = False
    kept: bool = False
    reads: list[Item] = field(default_factory=list)


@dataclass(eq=False)
class Loop:
    """One scan of one stage."""

    node: Tensor
    name: str  # forward | backward, numbered where there are several
    nodes: list[Tensor]  # of the body
    asked: list[Tensor]
    results: list[Tensor]  # of the function, as far as they may come after this loop
    names: dict[int, str]
    before_end: list[Tensor] = field(
        default_factory=list
    )  # all loops that run before what comes after this one
    alone: bool = True  # in its direction
    elsewhere: int = 0  # products that left it and need nothing of it
    items: list[Item] = field(default_factory=list)

    @property
    def body(self) -> Body:
        return self.node.params[0]

    def products(self) -> list[Tensor]:
        return [n for n in self.nodes if _is_product(n)]


@dataclass(eq=False)
class Stage:
    name: str
    nodes: list[Tensor]  # what is computed anywhere
    loops: dict[str, Loop]
    log: dict[int, int]  # of the rewrite that made it, see `minigrad.compiler.rewrite.rewritten`

    def origins(self, nodes: Iterable[Tensor]) -> set[int]:
        """The numbers of the nodes that these stand for in the stage before; of what is new, its own."""
        numbers: set[int] = {n.number for n in nodes if n.op is not None}
        return {self.log.get(k, k) for k in numbers}


def stages_of(compiled) -> list[Stage]:
    """All stages of the last call of a compiled function; raises InputError where there was none, or loops in loops."""
    variant = getattr(compiled, "last", None)
    if not hasattr(compiled, "last"):
        raise InputError(f"cannot draw {clean(type(compiled).__name__)}: give what minigrad.compile returned")
    if variant is None and compiled.eager:
        reason = next(iter(compiled.eager.values()))
        raise InputError(f"{clean(compiled.name)} runs eagerly, so there is no loop to draw: {reason}")
    if variant is None:
        raise InputError(
            f"{clean(compiled.name)} was not compiled yet; call it once (or its backward), then draw it"
        )
    for results in variant.stages_of.values():
        outermost = {n.number for n in ancestors(*results)}
        if any(n.op is SCAN and n.number not in outermost for n in everywhere(results)):
            raise InputError(
                f"{clean(compiled.name)} has a scan in the step of a scan, of which there is no picture yet; its `source` "
                "shows one loop in the other"
            )
    count = len(variant.traced.results)
    labels: list[str] = []  # the rewrites do not keep the names of all results
    for results in variant.stages_of.values():
        labels += [""] * (len(results) - len(labels))
        labels = [label or o.name or "" for label, o in zip(labels, results, strict=False)]
    found = []
    for name, results in variant.stages_of.items():
        loops = _loops(results, count, labels)
        nodes = [*ancestors(*results), *(n for loop in loops.values() for n in loop.nodes)]
        found.append(Stage(name, nodes, loops, variant.logs.get(name, {})))
    if not any(s.loops for s in found):
        raise InputError(f"{clean(compiled.name)} has no loop over steps; draw shows it by its operations")
    return found


def _loops(results: Sequence[Tensor], count: int, labels: Sequence[str]) -> dict[str, Loop]:
    """The scans of a stage: those that the function's own results need run forward, the others backward."""
    asked = asked_of(results)
    forward = {n.number for n in ancestors(*results[:count])}
    found: dict[str, Loop] = {}
    seen = {"forward": 0, "backward": 0}
    names: dict[int, str] = {}
    for output, label in zip(results, labels, strict=False):
        if label and output.op is not None:
            names.setdefault(output.number, pretty(clean(label, 16)))
    for n in ancestors(*results):
        if n.op is not SCAN:
            continue
        way = "forward" if n.number in forward else "backward"
        seen[way] += 1
        name = way if seen[way] == 1 else f"{way} {seen[way]}"
        wanted = list({a.number: a for a in asked.get(n.number, [])}.values())
        own = list(results[:count] if way == "forward" else results[count:])
        found[name] = Loop(n, name, n.params[0].nodes(*wanted), wanted, own, names)
        _name_symbols(found[name])
    for loop in found.values():
        backward = loop.name.startswith("backward")
        same = [o for o in found.values() if o.name.startswith("backward") == backward]
        loop.alone = len(same) == 1
        loop.before_end = [o.node for o in found.values() if backward or o in same]
    return found


def _name_symbols(loop: Loop) -> None:
    body, names = loop.body, loop.names
    beside = "next" if body.reverse else "prev"
    for c in body.carry:
        names[c.number] = f"{pretty(clean(c.name or 'state', 12))}_{beside}"
    for after, c in zip(body.carry_out, body.carry, strict=True):
        if after.op is not None and c.name and not after.name:
            names.setdefault(after.number, _own_name(c))
    for x, sequence in zip(body.xs, loop.node.inputs[len(body.carry) :], strict=False):
        inner = sequence.params[0] if sequence.op is STACKED else None
        if inner is not None and (inner.number in names or inner.name):
            names[x.number] = names.get(inner.number) or _own_name(inner)
        elif inner is not None:
            said = say(inner, names)
            names[x.number] = f"({said})" if " " in said and not said.endswith(")") else said
        elif _product_and_sums(sequence):
            names[x.number] = "…"
        elif x.name:
            names[x.number] = pretty(clean(x.name.removesuffix("_t"), 12))
            names.setdefault(sequence.number, names[x.number])


def _own_name(n: Tensor, longest: int = 12) -> str:
    return pretty(clean(n.name or "", longest))


def _is_product(n: Tensor) -> bool:
    return n.op is not None and n.op.kind == "product"


def _moves(n: Tensor) -> bool:
    return n.op is not None and n.op.kind == "structure" and not n.op.variadic


# What is said of a node.


def say(n: Tensor, names: dict[int, str], depth: int = 3, hidden: Iterable[int] = ()) -> str:
    """What a node computes, in short: names where there are names, … where it becomes long."""
    while n.number not in hidden and not _known(n, names) and n.op is not None and n.op.name in SILENT:
        n = n.inputs[0]
    return "…" if n.number in hidden else _known(n, names) or formula(n, names, depth, hidden)


def _known(n: Tensor, names: dict[int, str]) -> str:
    """Its name; one that is called "" there is said by its formula."""
    said = names.get(n.number)
    return _own_name(n, 16) if said is None else said


def formula(n: Tensor, names: dict[int, str], depth: int = 3, hidden: Iterable[int] = ()) -> str:
    """The right-hand side of a node's equation."""
    if n.op is None:
        return number(n._value.item(), 3) if n._value is not None and n._value.size == 1 else "…"
    if n.op is STACKED or n.op is LAST:
        inner = n.params[-1] if n.op is LAST else n.params[0]
        return say(inner, names, depth, hidden)
    if n.op.name in SILENT:
        return say(n.inputs[0], names, depth, hidden)
    if depth == 0 or n.op is SCAN or not n.inputs:
        return "…"
    said = [_operand(n, k, names, depth - 1, hidden) for k in range(len(n.inputs))]
    if n.op.name == "slice":
        return f"{said[0]}[{n.params[1]}:{n.params[2]}]"
    if n.op.variadic:
        return f"[{', '.join(said)}]"
    params = {p: clean(v, 8) for p, v in zip(n.op.params, n.params, strict=False)}
    return n.op.text.format(*said, **params)


def _operand(n: Tensor, k: int, names: dict[int, str], depth: int, hidden: Iterable[int]) -> str:
    """Input k of a node, in brackets where it binds more weakly, or as strongly and otherwise."""
    said, x = say(n.inputs[k], names, depth, hidden), n.inputs[k]
    while not _known(x, names) and x.op is not None and x.op.name in (*SILENT, "stacked"):
        x = x.params[0] if x.op is STACKED else x.inputs[0]
    if _known(x, names) or x.op is None or " " not in said or n.op is None or n.op.variadic:
        return said
    own, inner = n.op.binding, x.op.binding
    other = inner == own and (x.op is not n.op or (k > 0 and n.op.name in ("sub", "div")))
    return (
        f"({said})" if own < 9 and (inner < own or other) and x.op.name not in ("slice", "concat") else said
    )


# What stands where.


def read_items(loop: Loop) -> None:
    """Fill `loop.items`."""
    holder = _inside(loop)
    _before(loop, holder)
    _after(loop, holder)
    _say_all(loop)


def _readers(nodes: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    readers: dict[int, list[Tensor]] = {}
    for n in nodes:
        for x in n.inputs:
            readers.setdefault(x.number, []).append(n)
    return readers


def _inside(loop: Loop) -> dict[int, Item]:
    """Items of the body: products alone, what only moves elements of a parameter alone, values by name."""
    body, holder = loop.body, {}
    readers, still = _readers(loop.nodes), set()
    roots = {n.number for n in (*loop.asked, *body.carry_out)}
    for n in loop.nodes:
        if _moves(n) and all(x.number <= body.start or x.number in still for x in n.inputs):
            still.add(n.number)
    for n in reversed(loop.nodes):
        users = list({id(i): i for r in readers.get(n.number, ()) if (i := holder.get(r.number))}.values())
        only = users[0] if len(users) == 1 and n.number not in roots else None
        kind = PRODUCT if _is_product(n) else MOVE if n.number in still else VALUE
        name = loop.names.get(n.number) or _own_name(n)
        if only is not None and _joins(n, kind, name, only):
            only.nodes.insert(0, n)
            holder[n.number] = only
            continue
        holder[n.number] = Item(INSIDE, kind, [n], name)
    loop.items += list({id(i): i for i in holder.values()}.values())[::-1]
    for item in loop.items:
        item.carried = any(c.number == item.nodes[-1].number for c in body.carry_out)
        item.kept = any(a.number == item.nodes[-1].number for a in loop.asked)
    for c in body.carry:  # a sum that grows from step to step stands in its own box
        users = list({id(holder[r.number]): holder[r.number] for r in readers.get(c.number, ())}.values())
        if not users or (
            len(users) == 1 and users[0].carried and users[0].kind == VALUE and _adds(users[0], c)
        ):
            continue
        holder[c.number] = Item(INSIDE, GIVEN, [c], loop.names[c.number])
        loop.items.append(holder[c.number])
    _connect(loop.items, holder)
    return holder


def _adds(item: Item, c: Tensor) -> bool:
    """Is this a running sum of `c` and something?"""
    return (
        item.nodes[-1].op is not None
        and item.nodes[-1].op.name == "add"
        and any(x is c for x in item.nodes[-1].inputs)
    )


def _joins(n: Tensor, kind: str, name: str, user: Item) -> bool:
    """Whether a node stands in the box of the only one that reads it."""
    if kind == PRODUCT:
        return False
    if kind == MOVE:
        return user.kind == MOVE
    if user.kind == PRODUCT:
        return n.op is not None and n.op.name == "transpose"
    return user.kind == VALUE and name in ("", user.name, f"z_{user.name}")  # f = σ(z_f) is one box


def _connect(items: Iterable[Item], holder: dict[int, Item]) -> None:
    for item in items:
        for n in item.nodes:
            for x in n.inputs:
                source = holder.get(x.number)
                if source is not None and source is not item and source not in item.reads:
                    item.reads.append(source)


def _before(loop: Loop, holder: dict[int, Item]) -> None:
    """What the loop reads: sequences, and what was made of parameters."""
    body, kept = loop.body, []
    count = len(body.carry)
    read = {x.number for n in loop.nodes for x in n.inputs}
    made: dict[int, Item] = {}
    for x, sequence in zip(body.xs, loop.node.inputs[count:], strict=False):
        if x.number not in read:
            continue
        if sequence.op is STACKED:
            kept.append(loop.names.get(x.number, "…"))
            continue
        if sequence.number not in made:
            nodes = _product_and_sums(sequence)
            name = "" if nodes else loop.names.get(x.number, "")
            item = Item(BEFORE, PRODUCT if nodes else GIVEN, nodes or [sequence], name)
            made[sequence.number] = item
        holder[x.number] = made[sequence.number]
    for c in body.captures:
        if c.op is not None and c.number in read and c.op.kind == "structure" and c.shape:
            chain = [c]
            while chain[0].inputs and chain[0].inputs[0].op is not None and _moves(chain[0].inputs[0]):
                chain.insert(0, chain[0].inputs[0])
            made[c.number] = holder[c.number] = Item(BEFORE, MOVE, chain)
    inside = list(loop.items)
    loop.items += list(made.values())
    if kept:
        loop.items.append(
            Item(BEFORE, GIVEN, [], tr("kept by the forward loop"), ", ".join(dict.fromkeys(kept)))
        )
    _connect(inside, holder)


def _product_and_sums(sequence: Tensor) -> list[Tensor]:
    """A product for all steps with what is added to it; [] where there is none."""
    pending, found = [sequence], []
    while pending:
        n = pending.pop()
        if _is_product(n):
            found.append(n)
        elif n.op is not None and n.op.name == "add":
            found.append(n)
            pending += n.inputs
    return sorted(found, key=lambda n: n.number) if any(map(_is_product, found)) else []


def _after(loop: Loop, holder: dict[int, Item]) -> None:
    """What runs when the loop is over: products alone, the rest by result."""
    nodes = _nodes_after(loop)
    readers, place = _readers(nodes), {o.number: k for k, o in reversed(list(enumerate(loop.results)))}
    result: dict[int, int] = {}
    items: dict[object, Item] = {}
    for n in reversed(nodes):
        uses = [result[r.number] for r in readers.get(n.number, ())]
        k = result[n.number] = place.get(n.number, min(uses, default=-1))
        if n.op in (STACKED, LAST):
            source = n.params[0] if n.op is STACKED else loop.body.carry_out[n.params[0]]
            if n.inputs[0] is loop.node and source.number in holder:
                holder[n.number] = holder[source.number]
            continue
        users = list({id(i): i for r in readers.get(n.number, ()) if (i := holder.get(r.number))}.values())
        item = users[0] if len(users) == 1 and _moves(n) and users[0].kind == PRODUCT else None
        if item is None or n.number in place:
            kind = PRODUCT if _is_product(n) else VALUE
            item = items.setdefault(n.number if kind == PRODUCT else k, Item(AFTER, kind))
        if n.number in place:
            item.name = loop.names.get(n.number) or _own_name(n)
        item.nodes.insert(0, n)
        holder[n.number] = item
    found = list(items.values())[::-1]
    _connect(found, holder)
    loop.items += [*found, *_last_sums(loop, nodes, place)]


def _nodes_after(loop: Loop) -> list[Tensor]:
    """What the results need of this loop; of a loop alone in its direction all that no loop needs."""
    needed = {n.number for other in loop.before_end for n in ancestors(other)} if loop.alone else set()
    later, found = {loop.node.number}, []
    for n in ancestors(*loop.results):
        if n.op is None or n.op is SCAN or n.number in needed:
            continue
        if loop.alone or any(x.number in later for x in n.inputs):
            later.add(n.number)
            found.append(n)
    return found


def _last_sums(loop: Loop, nodes: Sequence[Tensor], place: dict[int, int]) -> list[Item]:
    """One item for all results that are the last value of a carry."""
    names = [loop.names.get(n.number, "…") for n in nodes if n.op is LAST and n.number in place]
    if not names:
        return []
    sums = Item(AFTER, VALUE, [], tr("the last sums"), ", ".join(dict.fromkeys(names)))
    sums.reads = [i for i in loop.items if i.where == INSIDE and i.carried and i.name in names]
    return [sums]


def _say_all(loop: Loop) -> None:
    """The formula of every item, in which products that stand in boxes of their own are …"""
    products = {i.nodes[-1].number for i in loop.items if i.kind == PRODUCT and i.nodes}
    for item in loop.items:
        if item.said or not item.nodes:
            continue
        last = item.nodes[-1]
        if item.kind == PRODUCT:
            item.said = formula(last, loop.names)
        elif item.kind == MOVE:
            item.said = say(last, loop.names)
        elif item.where == INSIDE and any(
            last is after and _adds(item, c)
            for c, after in zip(loop.body.carry, loop.body.carry_out, strict=True)
        ):
            item.said = tr("sum over the steps")
        elif item.kind == VALUE and item.where == INSIDE:
            own = {n.number: "" for n in item.nodes}
            item.said = formula(last, loop.names | own, 4, products - {last.number})


def mark(loop: Loop, stage: Stage, before: Stage | None) -> None:
    """Mark what is new, and what left the loop, against the stage before."""
    old = before.loops.get(loop.name) if before is not None else None
    if before is None or old is None:
        loop.items = [i for i in loop.items if i.kind != MOVE or i.where == INSIDE]
        return
    left = {n.number for n in old.nodes} - stage.origins(loop.nodes)
    known = {n.number for n in before.nodes}
    for item in loop.items:
        own = stage.origins(item.nodes)
        was = own & known
        if item.where != INSIDE and was & left and (item.kind != VALUE or was <= left):
            item.mark = LEFT
        elif item.kind in (PRODUCT, MOVE) and own and not was:
            item.mark = NEW
    elsewhere = stage.origins(stage.nodes) - stage.origins(n for i in loop.items for n in i.nodes)
    loop.elsewhere = sum(n.number in left & elsewhere for n in old.products())
    # What was made of a parameter is said in the product that reads it, unless it has just left the loop.
    loop.items = [i for i in loop.items if i.kind != MOVE or i.where == INSIDE or i.mark]
