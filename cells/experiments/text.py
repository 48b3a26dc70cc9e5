"""Text as numbers: an alphabet, and one-hot rows of it."""

from __future__ import annotations

import numpy as np

from minigrad import InputError


class Alphabet:
    """The distinct characters of a text, in the order of their code points.

    Raises InputError for a text with fewer than two distinct characters.
    """

    def __init__(self, text: str):
        self.characters = "".join(sorted(set(text)))
        if len(self.characters) < 2:
            what = f"a text of only {self.characters!r}" if text else "an empty text"
            raise InputError(f"{what} has nothing to predict; give at least two different characters")
        self._number = {c: k for k, c in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Integers (T,).  Raises InputError naming the first character outside the alphabet and its place."""
        try:
            return np.fromiter((self._number[c] for c in text), dtype=np.int64, count=len(text))
        except KeyError as error:
            raise InputError(
                f"character {error.args[0]!r} at position {text.index(error.args[0])} is not in the alphabet "
                f"{self.characters[:40]!r}{'…' if len(self) > 40 else ''}; "
                "make the alphabet from a text that has it"
            ) from None

    def decode(self, numbers) -> str:
        """The text of these numbers; raises InputError for one that is not a place in the alphabet."""
        places = np.asarray(numbers).ravel()
        outside = [int(k) for k in places if not 0 <= k < len(self)]
        if outside:
            raise InputError(
                f"number {outside[0]} is not in the alphabet, which goes from 0 to {len(self) - 1}"
            )
        return "".join(self.characters[k] for k in places)

    def one_hot(self, text: str, dtype="float32") -> np.ndarray:
        """Rows (T, 1, K) with a single 1: T steps of one sequence."""
        return np.eye(len(self), dtype=dtype)[self.encode(text)][:, None, :]
