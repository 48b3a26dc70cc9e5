"""What a sweep runs, what comes of it, and the file in which that is kept: one line of JSON for each result."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from minigrad import InputError, files

from .comparison import Record

BEGIN = b'{"trial": '  # of every line


@dataclass(frozen=True)
class Trial:
    """One training, by all that its numbers depend on.

    drawn : a checksum of the task's first data.
    tests, every : as in `comparison.learn`.
    """

    model: str
    task: str
    drawn: str
    width: int
    lr: float
    batch: int
    clip: float
    steps: int
    seed: int
    tests: int = 8
    every: int | None = None

    def __str__(self) -> str:
        return f"{self.model} (width {self.width}) on {self.task}, lr {self.lr:g}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Result:
    """A trial with its `comparison.Record`, or with an error on one line.

    processor : seconds of the thread that trained, compiling included; `record.wall` are seconds of the clock.
    versions : of minigrad, NumPy and Python where it ran.
    """

    trial: Trial
    record: Record | None
    error: str | None
    processor: float
    versions: dict[str, str]

    @property
    def final(self) -> bool:
        """Whether it would come out the same again: other failures may be mended, or have been accidents."""
        return self.record is not None or str(self.error).startswith("NonFiniteError")

    def line(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @staticmethod
    def read(line: bytes) -> Result:
        """Raises ValueError, TypeError or LookupError for a line that `line` has not written."""
        found = json.loads(line)
        found["trial"] = Trial(**found["trial"])
        found["record"] = found["record"] and Record(**found["record"])
        return Result(**found)


class Journal:
    """The results in a file, by trial, and a place for new ones; without a path, nothing of the kind.

    Raises InputError where the file cannot be read or written, holds anything else, or is open in another sweep.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = None if path is None else Path(path)
        self.found: dict[Trial, Result] = {}

    def __enter__(self) -> Journal:
        if self.path is None:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+b")
        except OSError as error:
            raise self._refusal(error) from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self.path is not None:
            self.file.close()

    def add(self, result: Result) -> None:
        """Write a result, and wait until it is on the disk."""
        if self.path is None:
            return
        try:
            self.file.write(result.line())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> InputError:
        return InputError(
            f"sweep: {files.shown(self.path)} cannot be written ({error.strerror}); choose another file"
        )

    def _lock(self) -> None:
        """Until the file is closed, be it by the end of the process."""
        try:
            files.hold(self.file)
        except BlockingIOError:
            raise InputError(
                f"sweep: another sweep is writing {files.shown(self.path)}; wait for it, or choose another file"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _read(self) -> None:
        self.file.seek(0)
        *lines, rest = self.file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                result = Result.read(line)
            except (ValueError, TypeError, LookupError) as error:
                raise InputError(
                    f"sweep: line {number} of {files.shown(self.path)} is not a result of a sweep ({error!r:.80}); "
                    "remove it, or choose another file"
                ) from None
            self.found[result.trial] = result
        if not (rest.startswith(BEGIN) or BEGIN.startswith(rest)):
            raise InputError(
                f"sweep: {files.shown(self.path)} does not end with a result of a sweep; choose another file"
            )
        if rest:  # half a line of a sweep that was killed: its trial is run again
            self.file.truncate(sum(len(line) + 1 for line in lines))
