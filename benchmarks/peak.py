"""The machine's peak: how many multiply-adds of float32 one core does in a second.

Chains of vector multiply-adds that depend on nothing else, as many at a time as give most: too few leave the units
idle, too many do not fit the registers (16 of them with AVX2, 32 with AVX-512).
"""

from __future__ import annotations

import ctypes
import time

FLOATS = {32: (8, 10, 12, 14), 64: (8, 12, 16, 20, 24)}  # chains that are tried, by bytes of a vector


def _program(width: int, chains: int) -> str:
    """LLVM's text of a function that does `count` rounds and returns what keeps them from being left out."""
    vector = f"<{width} x float>"
    numbers = ", ".join(["float 0x3FEFF7CEE0000000"] * width)
    phis = [f"  %s{j} = phi {vector} [ zeroinitializer, %entry ], [ %n{j}, %loop ]" for j in range(chains)]
    steps = [
        f"  %n{j} = call {vector} @llvm.fma.v{width}f32({vector} %s{j}, {vector} <{numbers}>, {vector} <{numbers}>)"
        for j in range(chains)
    ]
    sums = [f"  %t{j} = fadd {vector} %{f't{j - 1}' if j > 1 else 'n0'}, %n{j}" for j in range(1, chains)]
    return "\n".join([
        f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})",
        "define float @rounds(i64 %count) {", "entry:", "  br label %loop", "loop:",
        "  %k = phi i64 [ 0, %entry ], [ %following, %loop ]", *phis, *steps,
        "  %following = add i64 %k, 1", "  %more = icmp slt i64 %following, %count",
        "  br i1 %more, label %loop, label %after", "after:", *sums,
        f"  %first = extractelement {vector} %t{chains - 1}, i32 0", "  ret float %first", "}",
    ])  # fmt: skip


def peak_gflops(count: int = 1_000_000) -> float:
    """The best of several numbers of chains, each several times."""
    from minigrad.compiler.kernels import VECTOR_BYTES
    from minigrad.compiler.machine import Loaded, object_code

    width, best = VECTOR_BYTES // 4, 0.0
    for chains in FLOATS[VECTOR_BYTES]:
        loaded = Loaded([object_code(_program(width, chains))], ["rounds"], {})
        rounds = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(loaded.addresses["rounds"])
        for _ in range(8):
            start = time.perf_counter()
            rounds(count)
            best = max(best, 2 * width * chains * count / (time.perf_counter() - start) / 1e9)
    return best


if __name__ == "__main__":
    print(f"{peak_gflops():.0f} GFLOP/s (float32)")
