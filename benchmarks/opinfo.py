"""minigrad against PyTorch's own samples: value and gradient, eager and compiled, for every operation that both have.

`python -m benchmarks.opinfo [name …] [--samples 1000] [--compiled 3] [--verbose]` takes the samples that PyTorch tests an
operation with (its `op_db`), says each in minigrad where it can be said, and counts: passed; refused (an error of minigrad, which
names the reason); not expressible (an option or a dtype that only PyTorch has); wrong.  Compiling takes a second a
sample, so only some of each operation's samples, evenly spread, are compiled too.  Exit status 1 if any is wrong.
PyTorch's samples import its test suite, which wants the package `expecttest`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import Tensor
from minigrad.errors import MinigradError


class NotExpressible(Exception):  # noqa: N818 (it is an answer, and is caught as one)
    """PyTorch's sample asks for what minigrad has no word for."""


def plain(ours: Callable) -> Callable:
    """A function of the sample's tensors and nothing else."""

    def say(*args, **options):
        if options or not all(isinstance(a, (Tensor, bool, int, float)) for a in args):
            raise NotExpressible
        return ours(*args)

    return say


def reducing(ours: Callable) -> Callable:
    def say(x, dim=None, keepdim=False, **options):
        if options:
            raise NotExpressible
        return ours(x, _axes(dim), keepdim)

    return say


def _axes(dim):
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def extreme(ours: Callable, place: Callable) -> Callable:
    """PyTorch's max of an axis gives values and places; of two tensors, the larger."""

    def say(x, *args, **options):
        if args and isinstance(args[0], Tensor):
            raise NotExpressible
        dim = args[0] if args else options.pop("dim", None)
        keepdim = args[1] if len(args) > 1 else options.pop("keepdim", False)
        if options:
            raise NotExpressible
        if dim is None:
            return ours(x)
        return ours(x, dim, keepdim), place(x, dim, keepdim)

    return say


def only(condition: Callable, ours: Callable) -> Callable:
    def say(*args, **options):
        if not condition(*args, **options):
            raise NotExpressible
        return ours(*args, **options)

    return say


def rounded(mode):
    return {None: lambda a, b: a / b, "floor": mg.floor_divide}.get(mode)


def divided(a, b, rounding_mode=None):
    if rounded(rounding_mode) is None:
        raise NotExpressible
    return rounded(rounding_mode)(a, b)  # type: ignore[misc]


def _variance(ours):
    def say(x, dim=None, unbiased=True, keepdim=False, correction=None):
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        dim = None if dim == () or dim == [] else _axes(dim)
        return ours(x, dim, (1 if unbiased else 0) if correction is None else correction, keepdim)

    return say


def added(sign):
    return lambda a, b, alpha=1: a + sign * alpha * b if alpha != 1 else (a + b if sign > 0 else a - b)


def padded(x, pad, mode="constant", value=None):
    if any(p < 0 for p in pad):
        raise NotExpressible
    pairs = [(pad[k], pad[k + 1]) for k in range(0, len(pad), 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    return mg.pad(x, widths, mode, constant_values=value or 0)


def parts(x, size, dim=0):
    if not isinstance(size, int):
        ends = np.cumsum(size)[:-1].tolist()
        return tuple(mg.split(x, ends, dim))
    return tuple(mg.split(x, list(range(size, x.shape[dim], size)), dim))


def normed(x, ord=None, dim=None, keepdim=False, dtype=None):
    if ord not in (None, 2, "fro") or (ord == 2 and (x.ndim == 2 if dim is None else np.ndim(dim))) or dtype:
        raise NotExpressible
    if ord == "fro" and dim is None and x.ndim != 2:
        raise NotExpressible
    return mg.norm(x, _axes(dim), keepdim)


def softmaxed(ours):
    return lambda x, dim=-1, dtype=None, **_: ours(x.astype(str(dtype).split(".")[-1]) if dtype else x, dim)


def indexed(x, *index):
    return x[index[0] if len(index) == 1 and isinstance(index[0], tuple) else index]


# PyTorch's name of an operation (with its variant) → how minigrad says it.
SAID: dict[str, Callable[..., Any]] = {
    "abs": plain(mg.abs), "add": added(1), "sub": added(-1), "rsub": lambda a, b, alpha=1: b - alpha * a,
    "mul": plain(lambda a, b: a * b), "div.no_rounding_mode": divided, "div.floor_rounding": divided,
    "neg": plain(lambda x: -x), "positive": plain(lambda x: +x), "exp": plain(mg.exp), "expm1": plain(mg.expm1),
    "log": plain(mg.log), "log1p": plain(mg.log1p), "sqrt": plain(mg.sqrt), "sin": plain(mg.sin), "cos": plain(mg.cos),
    "tanh": plain(mg.tanh), "sigmoid": plain(mg.sigmoid), "erf": plain(mg.erf), "sign": plain(mg.sign),
    "floor": plain(mg.floor), "ceil": plain(mg.ceil), "round": plain(mg.round),
    "round.decimals_0": lambda x, decimals=0: mg.round(x, decimals),
    "round.decimals_3": lambda x, decimals=0: mg.round(x, decimals),
    "round.decimals_neg_3": lambda x, decimals=0: mg.round(x, decimals),
    "square": plain(np.square), "reciprocal": plain(lambda x: 1 / x), "rsqrt": plain(lambda x: 1 / mg.sqrt(x)),
    "clamp": lambda x, low=None, high=None, min=None, max=None: mg.clip(
        x, min if low is None else low, max if high is None else high),
    "maximum": plain(mg.maximum), "minimum": plain(mg.minimum), "pow": plain(mg.power),
    "__rpow__": plain(lambda a, b: b**a), "float_power": plain(lambda a, b: _double(a) ** _double(b)),
    "remainder": plain(mg.mod), "__rmod__": plain(lambda a, b: b % a), "floor_divide": plain(mg.floor_divide),
    "logaddexp": plain(mg.logaddexp), "hypot": plain(mg.hypot),
    "isnan": plain(mg.isnan), "isfinite": plain(mg.isfinite), "isinf": plain(mg.isinf),
    "bitwise_and": plain(lambda a, b: a & b), "bitwise_or": plain(lambda a, b: a | b),
    "bitwise_xor": plain(lambda a, b: a ^ b), "bitwise_not": plain(lambda a: ~a),
    "__rand__": plain(lambda a, b: b & a), "__ror__": plain(lambda a, b: b | a), "__rxor__": plain(lambda a, b: b ^ a),
    "gt": plain(lambda a, b: a > b), "ge": plain(lambda a, b: a >= b), "lt": plain(lambda a, b: a < b),
    "le": plain(lambda a, b: a <= b), "eq": plain(lambda a, b: a == b), "ne": plain(lambda a, b: a != b),
    "where": lambda x, c, y: mg.where(c, x, y), "masked_fill": lambda x, m, v: mg.where(m, v, x),
    "sum": reducing(mg.sum), "mean": reducing(mg.mean), "prod": reducing(mg.prod), "amax": reducing(mg.max),
    "amin": reducing(mg.min), "logsumexp": reducing(mg.logsumexp), "argmax": reducing(mg.argmax),
    "argmin": reducing(mg.argmin), "max.reduction_no_dim": plain(lambda x: x.max()),
    "min.reduction_no_dim": plain(lambda x: x.min()), "max.reduction_with_dim": extreme(mg.max, mg.argmax),
    "min.reduction_with_dim": extreme(mg.min, mg.argmin), "max.binary": plain(mg.maximum), "min.binary": plain(mg.minimum),
    "var": _variance(mg.var), "std": _variance(mg.std), "var.unbiased": _variance(mg.var), "std.unbiased": _variance(mg.std),
    "linalg.norm": normed, "linalg.vector_norm": normed, "norm.fro": lambda x, p="fro", dim=None, keepdim=False:
        normed(x, None if p == "fro" else p, dim, keepdim),
    "cumsum": lambda x, dim: mg.cumsum(x, dim), "cumprod": lambda x, dim: mg.cumprod(x, dim),
    "matmul": plain(mg.matmul), "mm": plain(mg.matmul), "bmm": plain(mg.matmul), "mv": plain(mg.matmul),
    "dot": plain(mg.matmul), "outer": plain(mg.outer), "einsum": lambda operands, equation: mg.einsum(equation, *operands),
    "reshape": lambda x, shape: x.reshape(tuple(shape)), "permute": lambda x, dims: x.transpose(tuple(dims)),
    "transpose": lambda x, a, b: x.swapaxes(a, b) if x.ndim else x, "expand": lambda x, shape: mg.broadcast_to(x, tuple(
        n if n >= 0 else x.shape[k - len(shape)] for k, n in enumerate(shape))),
    "broadcast_to": lambda x, shape: mg.broadcast_to(x, tuple(shape)), "cat": lambda xs, dim=0: mg.concat(*xs, axis=dim),
    "stack": lambda xs, dim=0: mg.stack(xs, dim), "squeeze": lambda x, dim=None: mg.squeeze(x, dim),
    "unsqueeze": lambda x, dim: mg.expand_dims(x, dim), "flip": lambda x, dims: mg.flip(x, tuple(dims)),
    "fliplr": lambda x: mg.flip(x, 1), "flipud": lambda x: mg.flip(x, 0), "split": parts, "split_with_sizes": parts,
    "__getitem__": indexed, "zeros_like": plain(mg.zeros_like), "ones_like": plain(mg.ones_like),
    "index_select": lambda x, dim, index: x[(*(slice(None),) * (dim % max(x.ndim, 1)), index)],
    "nn.functional.relu": plain(mg.relu), "nn.functional.softplus": only(
        lambda x, **options: not options, mg.softplus),
    "nn.functional.gelu": lambda x, approximate="none": mg.gelu(x, approximate),
    "softmax": softmaxed(mg.softmax), "log_softmax": softmaxed(mg.log_softmax),
    "nn.functional.pad.constant": padded, "nn.functional.pad.reflect": padded, "nn.functional.pad.replicate": padded,
    "nn.functional.pad.circular": padded,
    "nn.functional.layer_norm": lambda x, shape, weight=None, bias=None, eps=1e-5: _layer_norm(x, shape, weight, bias, eps),
    "nn.functional.embedding": lambda weight, index, **options: _embedding(index, weight, options),
}  # fmt: skip


def _double(x):
    return x.astype("float64") if isinstance(x, Tensor) else float(x)


def _layer_norm(x, shape, weight, bias, eps):
    if len(shape) != 1:
        raise NotExpressible
    y = mg.layer_norm(x, eps=eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _embedding(index, weight, options):
    if any(v not in (None, False, 2.0) for v in options.values()):
        raise NotExpressible
    return mg.gather(weight, index)


# Samples of PyTorch as ours.


def ours_of(x, made: list) -> Any:
    """Tensors as minigrad's, inside of lists and tuples too; `made` collects pairs of theirs and ours."""
    import torch

    if isinstance(x, torch.Tensor):
        tensor = Tensor(x.detach().resolve_neg().numpy(), requires_grad=x.requires_grad)
        made.append((x, tensor))
        return tensor
    if isinstance(x, (list, tuple)):
        return (
            type(x)(ours_of(i, made) for i in x)
            if type(x) in (list, tuple)
            else [ours_of(i, made) for i in x]
        )
    if isinstance(x, dict):
        return {k: ours_of(v, made) for k, v in x.items()}
    if x is None or isinstance(x, (bool, int, float, str, slice, type(...), torch.dtype)):
        return x
    raise NotExpressible


def results(y) -> list:
    return list(y) if isinstance(y, (list, tuple)) else [y]


def compare(wanted, found) -> str:
    """What differs in value, or nothing."""
    wanted, found = np.asarray(wanted), np.asarray(found)
    if wanted.shape != found.shape:
        return f"shape {found.shape}, not {wanted.shape}"
    if wanted.dtype.kind != found.dtype.kind:
        return f"type {found.dtype}, not {wanted.dtype}"
    if np.allclose(found, wanted, rtol=1e-9, atol=1e-11, equal_nan=True):
        return ""
    return f"{np.array2string(found, threshold=8)}, not {np.array2string(wanted, threshold=8)}"


class Sample:
    """One sample: what PyTorch makes of it, and what minigrad does."""

    def __init__(self, op, sample, say: Callable):
        made: list = []
        self.args = ours_of((sample.input, *sample.args), made)
        self.options = ours_of(dict(sample.kwargs), made)
        self.say = say
        pairs = list({id(t): (t, o) for t, o in made}.values())
        self.learned = [(t, o) for t, o in pairs if t.requires_grad]
        self.theirs = results(op(sample.input, *sample.args, **sample.kwargs))
        self.seeds = [
            np.random.default_rng(k).standard_normal(tuple(y.shape)) for k, y in enumerate(self.theirs)
        ]
        self.slopes = self._slopes()

    def _slopes(self) -> list:
        """The gradient of Σ seed · result."""
        import torch

        total: Any = 0
        for y, seed in zip(self.theirs, self.seeds, strict=True):
            if y.requires_grad:
                total = total + (y * torch.as_tensor(seed, dtype=y.dtype)).sum()
        if not isinstance(total, torch.Tensor):
            return [None] * len(self.learned)
        return list(torch.autograd.grad(total, [t for t, _ in self.learned], allow_unused=True))

    def loss(self, ys) -> Any:
        total: Any = 0.0
        for y, seed in zip(ys, self.seeds, strict=True):
            if y.dtype.kind == "f":
                total = total + (y * seed.astype(y.dtype)).sum()
        return total

    def run(self) -> str:
        """Eagerly: what is wrong, or nothing."""
        ys = results(self.say(*self.args, **self.options))
        if len(ys) != len(self.theirs):
            return f"{len(ys)} results, not {len(self.theirs)}"
        for wanted, y in zip(self.theirs, ys, strict=True):
            if bad := compare(wanted.detach().resolve_neg().numpy(), y.value):
                return f"value {bad}"
        self.ours = [y.value for y in ys]
        if not self.learned:
            return ""
        loss = self.loss(ys)
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.backward()
        for (_, x), slope in zip(self.learned, self.slopes, strict=True):
            wanted = np.zeros(x.shape) if slope is None else slope.detach().numpy()
            if bad := compare(wanted, np.zeros(x.shape) if x.grad is None else x.grad):
                return f"gradient {bad}"
        return ""

    def run_compiled(self) -> str:
        """The same, compiled; it is compared with the eager run."""
        tensors: list[Tensor] = []

        def collect(x):
            if isinstance(x, Tensor):
                tensors.append(x)
            for inner in x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ():
                collect(inner)

        collect([self.args, self.options])
        floats = [t for t in tensors if t.dtype.kind == "f"]

        def function(*given):
            own = {id(t): g for t, g in zip(floats, given, strict=True)}

            def put(x):
                if isinstance(x, Tensor):
                    return own.get(id(x), x)
                if isinstance(x, dict):
                    return {k: put(v) for k, v in x.items()}
                return type(x)(map(put, x)) if isinstance(x, (list, tuple)) else x

            ys = results(self.say(*put(self.args), **put(self.options)))
            return self.loss(ys) + 0.0 * sum((f.sum() for f in given), Tensor(0.0)), *ys

        compiled = mg.compile(function)
        (_, *ys), gradients = compiled.value_and_grad(*floats)
        if compiled.last is None:
            return "eager"
        for y, wanted in zip(ys, self.ours, strict=True):
            if bad := compare(wanted, y.value):
                return f"compiled value {bad}"
        for _, x in self.learned:
            if x in gradients and (
                bad := compare(np.zeros(x.shape) if x.grad is None else x.grad, gradients[x])
            ):
                return f"compiled gradient {bad}"
        return ""


COUNTS = ("passed", "refused", "not expressible", "wrong", "compiled", "ran eagerly")


def judge(op, name: str, samples: int, compiled: int, dtype) -> tuple[dict[str, int], list[str]]:
    """The counts of one operation, and what was refused or wrong."""
    counts, said = dict.fromkeys(COUNTS, 0), []
    learns = op.supports_autograd and dtype.is_floating_point
    taken = list(op.sample_inputs("cpu", dtype, requires_grad=learns))
    taken = [
        taken[k] for k in sorted({int(i) for i in np.linspace(0, len(taken) - 1, min(samples, len(taken)))})
    ]
    compile_at = {int(i) for i in np.linspace(0, len(taken) - 1, compiled)}
    for k, s in enumerate(taken):
        try:
            sample = Sample(op, s, SAID[name])
            bad = sample.run()
            if not bad and k in compile_at and sample.theirs and any(y.numel() for y in sample.theirs):
                bad = sample.run_compiled()
                counts["ran eagerly" if bad == "eager" else "compiled"] += 1
                bad = "" if bad == "eager" else bad
        except MinigradError as error:
            counts["refused"] += 1
            said.append(f"refused: {s.summary()[:120]}: {error}")
            continue
        except (NotExpressible, TypeError):  # an argument that the function here does not have
            counts["not expressible"] += 1
            continue
        counts["wrong" if bad else "passed"] += 1
        if bad:
            said.append(f"WRONG: {s.summary()}: {bad}")
    return counts, said


def main(arguments=None) -> int:
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--samples", type=int, default=1000, help="of each operation, evenly spread")
    parser.add_argument("--compiled", type=int, default=3, help="of these, how many are compiled too")
    parser.add_argument("--verbose", action="store_true", help="say what was refused")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    known = {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db}
    names = given.names or list(SAID)
    total = dict.fromkeys(COUNTS, 0)
    print(f"{'operation':<32}" + "".join(f"{c:>17}" for c in COUNTS))
    for name in names:
        op = known.get(name)
        if op is None:
            print(f"{name:<32} is not among PyTorch's")
            continue
        dtypes = op.supported_dtypes("cpu")
        dtype = next(d for d in (torch.float64, torch.int64, torch.bool) if d in dtypes)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            counts, said = judge(op, name, given.samples, given.compiled, dtype)
        print(f"{name:<32}" + "".join(f"{counts[c]:>17}" for c in COUNTS), flush=True)
        for line in dict.fromkeys(said):
            if given.verbose or line.startswith("WRONG"):
                print(f"    {line[:400]}")
        for c in COUNTS:
            total[c] += counts[c]
    print(f"{'all':<32}" + "".join(f"{total[c]:>17}" for c in COUNTS))
    return int(total["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
