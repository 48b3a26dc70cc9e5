"""The error function, which NumPy has not: 2/√π times the integral of e^−s² from 0 to x.

Two polynomials, each exact at the Chebyshev points of its range: erf(x) / x of x² up to |x| = 1, and beyond
that e^x² (1 − erf x) of (x − 3) / (x + 3); from |x| = 6 on the result is 1.  The compiler's code
(instructions.py) reads the same coefficients.
"""

from __future__ import annotations

import numpy as np

# fmt: off
NEAR = (
    1.1283791670955126, -0.37612638903183543, 0.11283791670945006, -0.02686617064323777,
    0.0052239776071164225, -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05,
    1.6447424703317362e-06, -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10,
)
FAR = (
    0.17900115118138907, -0.32623356004299003, 0.24560380171289325, -0.1501159365078385,
    0.07166583713850745, -0.02439249905225781, 0.004269138643318906, 0.0007077436205791401,
    -0.0005971019299440755, 4.523670628663236e-05, 6.436074396760298e-05, -1.2383892608514314e-05,
    -8.668536150153648e-06,
)
# fmt: on
EDGE, MIDDLE, ONE = 1.0, 3.0, 6.0


def erf(x: np.ndarray) -> np.ndarray:
    """Element by element, to the last few bits; whole numbers become floats as in NumPy's exp."""
    x = np.asarray(x)
    kind = x.dtype if x.dtype.kind == "f" else np.result_type(x.dtype, np.float16)
    x = x.astype(np.float32 if kind == np.float16 else kind, copy=False)
    size = np.minimum(np.abs(x), ONE)
    far = 1 - np.exp(-size * size) * _polynomial((size - MIDDLE) / (size + MIDDLE), FAR)
    near = size * _polynomial(size * size, NEAR)
    return np.copysign(np.where(size < EDGE, near, far), x).astype(kind)


def _polynomial(x: np.ndarray, coefficients) -> np.ndarray:
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total
