"""What a drawn program has: tags, so that a test can say that everything meant to be drawn is drawn."""

from __future__ import annotations

import re

from . import programs
from .programs import Program, Statement, names_in
from .shrink import kinds_of

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
TAGS = (
    "scan", "outside of scan", "1 states", "2 states", "3 states", "4 states", "state of rank 0", "state of rank 1",
    "state of rank 2", "state of rank 3", "state (N, 1)", "integer state", "learned first state", "the same first state twice",
    "state swapped or kept", "reverse scan", "scan of integers or booleans", "two scans", "scan of a scan's outputs",
    "scan in a step", "scan in a step of a step", "two scans in a step", "reverse scan in a step", "scan in a reverse scan",
    "scan in a step over its input", "scan in a step over its state", "scan in a step over what it made",
    "scan in a step over a capture", "scan in a step of other length", "stack of a scan in a step", "run of a cell in a step",
    "several sequences", "stack of a value", "stack of a state", "stack of a capture", "sub-steps", "sub-steps in a step",
    "read twice", "shared projection", "residual", "capture", "captured constant", "outputs", "output is an argument",
    "output is a capture", "dict of outputs",
    "number added to a product", "(1,) added to a product", "(1, H) added to a product", "(N, 1) added to a product",
    "(H,) added to a product", "(N, H) added to a product", "learned number added to a product", "product added after",
    "product minus something", "size in add", "size in mul", "size in div", "size in size_power",
    "where", "comparison of comparisons", "not equal", "boolean argument", "integer reduction", "integer arithmetic",
    "integer times float", *(f"{t} argument" for t in INTEGERS), "cast to integers",
    "slice from", "slice to", "slice from the end", "slice to before the end", "slice with a step", "slice backwards",
    "new axis", "ellipsis", "array as an index", "arrays side by side",
    "array behind a slice", "array and new axis", "mask as an index", "arrays apart",
    "shift back", "the same twice in concat", "concat along the first axis",
    "reduction over several axes", "reduction over all", "keepdims", "axis of size 0", "axis of size 1",
    "shipped cell", "drawn cell", "lengths", "mask", "truncate", "reverse run", "first states of a run", "output layer",
    "mask of a drawn cell", "truncate of a drawn cell", "detach", "detach in a step", "hook", "second derivative",
    "second derivative in a step", "batched product", "product with repeated axes",
    "number of classes is a size", "convolution", "convolution that sees ahead", "softmax",
    "classes as integers", "masked loss", "gain and bias", "float32", "float64", "1 threads", "2 threads", "3 threads",
    "4 threads", "argument that learns",
    "argument with gaps", "Python number as an argument",
    "arguments in a tuple", "arguments in a dict", "arguments in a nested container",
    "NaN in an argument", "values alone", "called again", "called with other sizes", "index that there is not",
)  # fmt: skip


def features(program: Program) -> set[str]:
    """The tags of a program, from its data and the shapes of an eager run."""
    tags = {program.dtype, f"{program.threads} threads"}
    kinds = kinds_of(program)
    _of_the_whole(program, kinds, tags)
    scans: set[str] = set()
    for s, inside in _walk(program.body):
        if s.op == "scan":
            _of_scan(s, program, kinds, tags, scans)
        elif s.op == "run":
            _of_run(s, tags)
        else:
            _of_line(s, inside, kinds, tags)
        if s.op == "repeat":
            tags |= {"sub-steps", *(["sub-steps in a step"] if inside else [])}
        elif s.op in ("scan", "run"):
            _of_scans_in_a_step(s, kinds, tags)
    _of_products(program, kinds, tags)
    return tags


def _walk(body: list[Statement], inside: bool = False):
    for s in body:
        yield s, inside
        yield from _walk(s.body, inside or s.op in ("scan", "run"))


def _add(tags: set[str], **holds: bool) -> None:
    """Tags whose condition holds; a name's underscores are the tag's blanks."""
    tags.update(name.replace("_", " ") for name, holds in holds.items() if holds)


def _of_the_whole(p: Program, kinds: dict, tags: set[str]) -> None:
    sizes = {n for shape, _ in kinds.values() for n in shape}
    _add(
        tags,
        outputs=len(p.outputs) > 1,
        dict_of_outputs=p.form == "dict" and len(p.outputs) > 1,
        output_is_an_argument=any(g.name in p.outputs for g in p.arguments),
        output_is_a_capture=any(g.name in p.outputs for g in (*p.leaves, *p.constants)),
        captured_constant=bool(p.constants),
        hook=any(g.hook for g in p.leaves),
        argument_that_learns=any(g.form == "grad" for g in p.arguments),
        argument_with_gaps=any(g.form == "gaps" for g in p.arguments),
        Python_number_as_an_argument=any(g.form == "number" for g in p.arguments),
        NaN_in_an_argument=any(g.kind == "holes" for g in p.arguments),
        values_alone=not p.gradients,
        called_again={} in p.calls[1:],
        called_with_other_sizes=any(p.calls),
        axis_of_size_0=0 in sizes,
        axis_of_size_1=1 in sizes,
        arguments_in_a_tuple=p.packed == "tuple",
        arguments_in_a_dict=p.packed == "dict",
        arguments_in_a_nested_container=p.packed == "nested",
        boolean_argument=any(g.kind == "bool" for g in p.arguments),
    )
    tags.update(f"{g.kind.split()[0]} argument" for g in p.arguments if " " in g.kind)
    reads = [n for s in p.body for n in programs.reads(s)]
    if any(reads.count(n) > 1 for n in set(reads)):
        tags.add("read twice")
    for s in p.statements():  # an index may be beyond its table in some call
        if s.op in ("gather", "cross_entropy", "one_hot") and len(s.of) > 1 - (s.op == "one_hot"):
            _index_beyond(s, p, kinds, tags)


def _index_beyond(s: Statement, p: Program, kinds: dict, tags: set[str]) -> None:
    index = s.of[0] if s.op == "one_hot" else s.of[1]
    table = kinds.get(s.of[0], ((0,), ""))[0] or (0,)
    if isinstance(s.params.get("classes"), str):
        return
    rows = s.params.get("classes") or (table[0] if s.op == "gather" else table[-1])
    for g in p.arguments:
        if g.name == index and " below " in g.kind and int(g.kind.rsplit(" ", 1)[1]) > rows:
            tags.add("index that there is not")


def _of_scan(s: Statement, p: Program, kinds: dict, tags: set[str], scans: set[str]) -> None:
    q = s.params
    count = len(q["states"])
    firsts, xs = s.of[:count], s.of[count:]
    tags |= {"scan", f"{count} states", *(f"state of rank {len(kinds[f][0])}" for f in firsts if f in kinds)}
    learned = {g.name for g in p.leaves}
    made_of = {n: {m for x in t.of for m in names_in(x)} for t in p.statements() for n in t.to}
    own = {n for t in s.body for u in t.walk() for n in u.to} | set(programs.block_inputs(s))
    _add(
        tags,
        integer_state=any(kinds.get(f, ((), "f"))[1][0] in "iu" for f in firsts),
        learned_first_state=any(({f} | made_of.get(f, set())) & learned for f in firsts),
        the_same_first_state_twice=len(set(firsts)) < count,
        state_swapped_or_kept=any(n in q["states"] for n in q["next"]),
        reverse_scan=q["reverse"],
        scan_of_integers_or_booleans=any(kinds.get(x, ((), "f"))[1][0] in "iub" for x in xs),
        two_scans=bool(scans),
        several_sequences=len(xs) > 1,
        stack_of_a_value=any(n not in q["states"] for n in q["outs"]),
        stack_of_a_state=any(n in q["states"] or n in q["next"] for n in q["outs"]),
        stack_of_a_capture=any(n not in own for n in q["outs"]),
        capture=any(n not in own for t in s.body for n in programs.reads(t) if n in kinds),
    )
    if any(x in scans for x in xs):
        tags.add("scan of a scan's outputs")
    if any(len(kinds[f][0]) == 2 and kinds[f][0][1] == 1 < kinds[f][0][0] for f in firsts if f in kinds):
        tags.add("state (N, 1)")
    scans.update(s.to)


def _of_scans_in_a_step(step: Statement, kinds: dict, tags: set[str]) -> None:
    scans = [t for t in step.body if t.op == "scan"]
    _add(tags, run_of_a_cell_in_a_step=any(t.op == "run" for t in step.body))
    q, made = step.params, {n for t in step.body for n in t.to}
    given = {*q.get("steps", []), *([q["x"]] if q.get("x") else [])}
    results = set(programs.block_results(step))
    _add(tags, scan_in_a_reverse_scan=bool(scans and q.get("reverse")), two_scans_in_a_step=len(scans) > 1)
    for s in scans:
        count = len(s.params["states"])
        xs = set(s.of[count:])
        lengths = {
            kinds[x][0][:1]
            for x in (*xs, *(step.of[len(q["states"]) :] if step.op == "scan" else []))
            if x in kinds
        }
        outside = xs - made - given - set(q.get("states", []))
        _add(
            tags,
            scan_in_a_step=True,
            scan_in_a_step_of_a_step=any(t.op == "scan" for t in s.body),
            reverse_scan_in_a_step=s.params["reverse"],
            scan_in_a_step_over_its_input=bool(xs & given),
            scan_in_a_step_over_its_state=bool(xs & set(q.get("states", []))),
            scan_in_a_step_over_what_it_made=bool(xs & made),
            scan_in_a_step_over_a_capture=bool(outside),
            scan_in_a_step_of_other_length=len(lengths) > 1,
            stack_of_a_scan_in_a_step=bool(results & set(s.to[count:])),
        )


def _of_run(s: Statement, tags: set[str]) -> None:
    q = s.params
    drawn = bool(s.body)
    _add(
        tags,
        shipped_cell=not drawn,
        drawn_cell=drawn,
        lengths=bool(q.get("lengths")),
        mask=bool(q.get("mask")),
        truncate=bool(q.get("truncate")),
        reverse_run=bool(q.get("reverse")),
        first_states_of_a_run=len(s.of) > 1,
        output_layer=bool(q.get("output")),
        mask_of_a_drawn_cell=drawn and bool(q.get("mask") or q.get("lengths")),
        truncate_of_a_drawn_cell=drawn and bool(q.get("truncate")),
    )


def _of_line(s: Statement, inside: bool, kinds: dict, tags: set[str]) -> None:
    if not inside:
        tags.add("outside of scan")
    types = [kinds[x][1] for x in s.of if x in kinds]
    whole = [t for t in types if t[0] in "iu"]
    axis = str(s.params.get("axis", ""))
    _add(
        tags,
        residual=s.op == "residual",
        where=s.op == "where",
        not_equal=s.op == "not_equal",
        comparison_of_comparisons=s.op in ("equal", "not_equal") and types[:2] == ["bool", "bool"],
        integer_reduction=s.op in ("sum", "mean", "max", "min") and bool(whole),
        integer_arithmetic=s.op in ("add", "sub", "mul", "neg") and len(whole) == len(types) > 0,
        integer_times_float=s.op in ("add", "mul") and bool(whole) and len(whole) < len(types),
        cast_to_integers=s.op == "cast" and s.params["dtype"].startswith("int"),
        shift_back=s.op == "shift" and s.params["by"] < 0,
        the_same_twice_in_concat=s.op == "concat" and len(set(s.of)) < len(s.of),
        concat_along_the_first_axis=s.op == "concat"
        and s.params["axis"] == 0
        and len(kinds.get(s.of[0], ((),))[0]) > 1,
        reduction_over_several_axes=axis.startswith("(") and "," in axis[:-2],
        reduction_over_all=axis == "None",
        keepdims=bool(s.params.get("keepdims")),
        detach=s.op == "detach",
        detach_in_a_step=s.op == "detach" and inside,
        second_derivative=s.op in ("grad", "grad_square"),
        second_derivative_in_a_step=s.op in ("grad", "grad_square") and inside,
        batched_product=s.op in ("matmul", "matmul_T") and all(len(kinds.get(x, ((),))[0]) > 2 for x in s.of),
        product_with_repeated_axes=s.op == "matmul" and _repeats(*(kinds.get(x, ((),))[0] for x in s.of)),
        number_of_classes_is_a_size=isinstance(s.params.get("classes"), str),
        convolution=s.op == "conv1d",
        convolution_that_sees_ahead=s.op == "conv1d" and not s.params["causal"],
        softmax=s.op in ("softmax", "masked_softmax"),
        classes_as_integers=s.op == "cross_entropy" and bool(whole),
        masked_loss=s.op == "cross_entropy" and len(s.of) > 2,
        gain_and_bias=s.op == "layer_norm" and len(s.of) > 2,
    )
    if s.op in ("add", "mul", "div", "size_power") and any(".shape[" in x for x in s.of):
        tags.add(f"size in {s.op}")
    if s.op == "index":
        _of_index(s.params["index"], tags)


def _repeats(left: tuple, right: tuple) -> bool:
    """Is a matrix of a batch used again?"""
    return len(right) > 2 and left[:-2] != right[:-2]


def _of_index(index: str, tags: set[str]) -> None:
    for item in (i.strip() for i in index.split(",")):
        if ":" in item:
            start, stop, step = (*item.split(":"), "")[:3]
            _add(
                tags,
                slice_from=start.isdigit(),
                slice_to=stop.isdigit(),
                slice_from_the_end=start.startswith("-"),
                slice_to_before_the_end=stop.startswith("-"),
                slice_with_a_step=step not in ("", "1"),
                slice_backwards=step.startswith("-"),
            )
    arrays = programs.names_in(index)
    _add(
        tags,
        new_axis="None" in index,
        ellipsis="..." in index,
        array_as_an_index=bool(arrays),
        arrays_side_by_side=len(arrays) > 1,
        array_behind_a_slice=bool(arrays) and ":" in index.partition(arrays[0])[0],
        mask_as_an_index="True" in index or "False" in index,
        arrays_apart=bool(re.fullmatch(r"\w+, [^,]*:[^,]*, (0|-1|\[0, -1\])", index)) and bool(arrays),
        array_and_new_axis=bool(arrays) and "None" in index,
    )


def _of_products(p: Program, kinds: dict, tags: set[str]) -> None:
    """What is added to products, from which side, and which products several sums read."""
    learned = {g.name for g in p.leaves}
    statements = list(p.statements())
    products = {s.to[0] for s in statements if s.op in ("matmul", "matmul_T")}
    for s in statements:
        if s.op not in ("add", "sub") or not products & set(s.of):
            continue
        for k, x in enumerate(s.of):
            if s.of[1 - k] not in products:
                continue
            shape = kinds[x][0] if x in kinds else None
            total = kinds.get(s.of[1 - k], ((),))[0]
            if k == 0:
                tags.add("product added after")
            if s.op == "sub":
                tags.add("product minus something")
            if shape is None or shape == ():
                tags.add("learned number added to a product" if x in learned else "number added to a product")
            elif shape == (1,):
                tags.add("(1,) added to a product")
            elif len(shape) == 1:
                tags.add("(H,) added to a product")
            elif len(shape) == 2 and shape == total:
                tags.add("(N, H) added to a product")
            elif len(shape) == 2 and shape[0] == 1:
                tags.add("(1, H) added to a product")
            elif len(shape) == 2 and shape[1] == 1:
                tags.add("(N, 1) added to a product")
    for name in products:
        sums = [s for s in statements if s.op in ("add", "sub") and name in s.of]
        if len(sums) > 1 and all(products & (set(s.of) - {name}) for s in sums[:2]):
            tags.add("shared projection")


__all__ = ["INTEGERS", "TAGS", "features"]
