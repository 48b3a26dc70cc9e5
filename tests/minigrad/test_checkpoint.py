"""Checkpoints: what comes back, what is refused, what a failure or a kill leaves, and whole trainings."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minigrad import DTypeError, InputError, ShapeError, Tensor, checkpoint, optim

SOURCE = str(Path(checkpoint.__file__).resolve().parents[1])
GRID = np.arange(12, dtype="float32").reshape(3, 4)
ARRAYS = {
    "no axes": np.array(0.5),
    "a number": 3.25,
    "transposed": GRID.T,
    "every other": GRID[::2, 1::2],
    "backwards": GRID[::-1, ::-1],
    "columns first": np.asfortranarray(GRID),
    "broadcast": np.broadcast_to(np.float32(7), (2, 3)),
    "big-endian": GRID.astype(">f4"),
    "big-endian and transposed": np.arange(6, dtype=">i8").reshape(2, 3).T,
    "big-endian without axes": np.array(7, ">u2"),
    "empty": np.zeros((0, 3), "float32"),
    "read-only": np.frombuffer(b"\1\2\3", "uint8"),
    "odd floats": np.array([np.nan, -np.inf, -0.0, 5e-324]),
    **{f"dtype {d}": np.array([0, 1, 1]).astype(d) for d in sorted(checkpoint.DTYPES - {"complex64"})},
}
posix = pytest.mark.skipif(os.name != "posix", reason="modes, pipes, links and signals as POSIX has them")
every_array = pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "W": rng.standard_normal((5, 3)).astype("float32"),
        "b": rng.standard_normal(3),
        "s": np.array(seed),
    }


def same(found, expected) -> None:
    assert set(found) == set(expected)
    for name, a in expected.items():
        assert found[name].tobytes() == np.asarray(a).tobytes(), name


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


# What comes back.


@pytest.mark.smoke
@every_array
def test_every_array_comes_back_with_its_shape_dtype_and_bits(array, path):
    expected = np.asarray(array)
    for given in (array, Tensor(array)):
        checkpoint.save(path, {"a": given})
        (found,) = checkpoint.load(path).values()
        assert found.shape == expected.shape and found.dtype == expected.dtype.newbyteorder("=")
        assert found.tobytes() == expected.astype(found.dtype).tobytes("C") and found.flags.writeable


HOSTILE = [
    "a\nb",
    "\r\x0b\x0c\x1c\x85\u2028\u2029",
    "\0",
    "",
    " ",
    '"',
    '"""',
    "\\",
    "é漢🙂",
    "x" * 6000,
    "../../x",
]
HOSTILE += ['"minigrad.sha256":"' + "0" * 64, "\x1b[31m", "__init__", "minigrad"]


@pytest.mark.smoke
def test_hostile_names_and_notes_come_back_as_they_were(path):
    notes = {name: name for name in [*HOSTILE, "__metadata__"]}
    checkpoint.save(path, {name: np.full(2, k) for k, name in enumerate(HOSTILE)}, notes)
    found = checkpoint.load(path)
    assert found.notes == notes and {n: int(a[0]) for n, a in found.items()} == {
        n: k for k, n in enumerate(HOSTILE)
    }
    assert checkpoint.load(path, "../").keys() == {"../x"}


@pytest.mark.smoke
def test_without_notes_there_are_none_and_no_arrays_are_a_file_too(path):
    checkpoint.save(path, {})
    found = checkpoint.load(path)
    assert found == {} and found.notes == {} and isinstance(found, dict)


@pytest.mark.smoke
def test_files_from_elsewhere_are_read_and_ours_are_read_elsewhere(path):
    from safetensors.numpy import load_file

    save_file(weights(), path, metadata={"format": "np"})
    found = checkpoint.load(path)
    same(found, weights())
    assert found.notes == {"format": "np"}
    save_file(weights(), path)
    assert checkpoint.load(path).notes == {}
    checkpoint.save(path, weights(), {"a": "b"})
    same(load_file(path), weights())


# What is refused.

ODD_DTYPES = [
    np.array([object()]), np.array(["a"]), np.array([b"a"]), np.array(["2024-01-01"], "M8[D]"), np.zeros(2, "c16"),
    np.zeros(2, [("a", "f4")]), np.zeros(2, "V3"), np.array([1], "m8[s]"),
]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("array", ODD_DTYPES, ids=lambda a: str(a.dtype))
def test_a_dtype_that_the_format_has_not_is_refused(array, path):
    with pytest.raises(DTypeError, match=r"'odd' is .*; make it one of bool, .*float32"):
        checkpoint.save(path, {"fine": np.ones(2), "odd": array})
    assert not path.exists()


WRONG = {
    "a list": ([np.ones(2)], None, "give a dict of tensors by name, not list"),
    "a tensor's name": ({7: np.ones(2)}, None, "name of a tensor is int"),
    "the format's own name": ({"__metadata__": np.ones(2)}, None, "cannot be called '__metadata__'"),
    "half a character": ({"\ud800": np.ones(2)}, None, r"'\\ud800' is not Unicode text"),
    "rows of different length": ({"a": [[1], [1, 2]]}, None, "'a' is not a numeric array"),
    "notes that are none": ({}, "text", "give a dict of texts by name, not str"),
    "a number as a note": ({}, {"epoch": 3}, "note 'epoch' is int; give a text"),
    "a number as a note's name": ({}, {3: "x"}, "name of a note is int"),
    "half a character in a note": ({}, {"a": "\udfff"}, r"note 'a': '\\udfff' is not Unicode text"),
    "half a character in its name": ({}, {"\udfff": ""}, "is not Unicode text"),
    "a name of the file's own": ({}, {"minigrad.sha256": "0" * 64}, "kept for the file's own"),
}


@pytest.mark.smoke
@pytest.mark.parametrize(("tensors", "notes", "words"), WRONG.values(), ids=WRONG)
def test_names_and_notes_that_cannot_be_written_are_refused_before_a_file_is_made(
    tensors, notes, words, tmp_path
):
    with pytest.raises(InputError, match=words):
        checkpoint.save(tmp_path / "weights", tensors, notes)
    assert not list(tmp_path.iterdir())


def test_notes_that_nobody_could_read_again_are_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST_HEADER", 5000)
    with pytest.raises(InputError, match=r"names and notes take 6,\d\d\d bytes; 5,000 can be read"):
        checkpoint.save(path, {"a": np.ones(2)}, {"long": "x" * 6000})


def refused(data: bytes, path) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        checkpoint.load(path)


@pytest.fixture
def whole(path):
    checkpoint.save(path, weights(), {"alphabet": "abc\n", "epoch": "7", "format": "pt"})
    return path.read_bytes()


def test_a_thousand_changed_bytes_are_refused_a_thousand_times(whole, path, rng):
    for place, change in zip(rng.integers(0, len(whole), 1000), rng.integers(1, 256, 1000), strict=True):
        data = bytearray(whole)
        data[place] ^= change
        refused(bytes(data), path)


@pytest.mark.parametrize("value", list(b' \t"0'))
def test_every_byte_of_the_header_is_looked_at(value, whole, path):
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(header):
        if whole[place] != value:
            refused(whole[:place] + bytes([value]) + whole[place + 1 :], path)


def test_what_was_cut_lengthened_or_shifted_is_refused(whole, path):
    for length in range(len(whole)):
        refused(whole[:length], path)
    for more in (b"\0", b" ", b"\n", whole):
        refused(whole + more, path)
        refused(more + whole, path)
    refused(whole[:-16] + whole[-8:] + whole[-16:-8], path)


NO_WEIGHTS = {
    "a dtype that NumPy has not": {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
    "too many axes": {"a": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}},
    "an axis too long": {"a": {"dtype": "F32", "shape": [0, 2**63 + 5], "data_offsets": [0, 4]}},
    "notes that are numbers": {"__metadata__": {"a": 3}},
    "a list": [],
}


@pytest.mark.smoke
@pytest.mark.parametrize("header", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_headers_from_elsewhere_that_make_no_sense_are_refused(header, path):
    text = json.dumps(header).encode()
    refused(len(text).to_bytes(8, "little") + text + bytes(4), path)


@pytest.mark.smoke
@pytest.mark.parametrize("odd", ["", "\0", "a\0b", "\ud800", "x" * 6000, None, 3.5, b"\xff\0"])
def test_paths_that_are_none_are_refused(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (checkpoint.load, lambda p: checkpoint.save(p, {"a": np.ones(2)})):
        with pytest.raises(InputError):
            call(odd)
    assert not list(tmp_path.iterdir())


@posix
@pytest.mark.smoke
def test_a_folder_a_pipe_and_nothing_are_no_files(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("folder", "is a folder, not a file"),
        ("pipe", "is a device or the like, not a file"),
    ):
        with pytest.raises(InputError, match=words):
            checkpoint.load(tmp_path / name)
        with pytest.raises(InputError, match=words):
            checkpoint.save(tmp_path / name, weights())
    with pytest.raises(InputError, match=r"cannot be read from .*nothing'"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"cannot be written to .*; choose another folder"):
        (tmp_path / "file").write_bytes(b"")
        checkpoint.save(tmp_path / "file" / "weights", weights())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "pipe"]


# How a file is written.


@posix
@pytest.mark.smoke
def test_a_new_file_has_the_usual_mode_and_a_replaced_one_keeps_its_own(path, tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            checkpoint.save(tmp_path / f"{mask}" / "weights", weights())
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}" / "weights").stat().st_mode) == mode
    checkpoint.save(path, weights())
    path.chmod(0o640)
    checkpoint.save(path, weights(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    same(checkpoint.load(path), weights(1))


@posix
@pytest.mark.smoke
def test_a_link_stays_and_what_it_names_is_replaced(path, tmp_path):
    (tmp_path / "link").symlink_to("folder/weights")
    for seed in (0, 1):  # the first time it leads nowhere yet
        checkpoint.save(tmp_path / "link", weights(seed))
        assert (tmp_path / "link").is_symlink()
        same(checkpoint.load(tmp_path / "folder" / "weights"), weights(seed))


@posix
@pytest.mark.smoke
def test_the_file_is_on_the_disk_before_it_is_moved_and_the_folder_after(path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("moved"), replace(*names)))
    checkpoint.save(path, weights())
    assert done == ["file", "moved", "folder"]


@posix
@pytest.mark.smoke
@pytest.mark.parametrize("at", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(at, error, seen, path, monkeypatch):
    def fails(*_):
        raise error

    checkpoint.save(path, weights())
    with monkeypatch.context() as patch:
        patch.setattr(os, at, fails)
        with pytest.raises(seen, match="No space left" if seen is InputError else None):
            checkpoint.save(path, weights(1))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    same(checkpoint.load(path), weights())


@posix
def test_a_disk_that_is_full_while_writing(path, tmp_path):
    program = (
        f"import sys, resource, signal; sys.path.insert(0, {SOURCE!r}); import numpy as np; "
        "from minigrad import InputError, checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        f"try: checkpoint.save({str(path)!r}, dict(a=np.zeros(5000)))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "too large" in done.stdout and not list(tmp_path.iterdir())


SAVES = """
import sys; sys.path.insert(0, {source!r})
import numpy as np
from minigrad import checkpoint
for k in range({first}, 10**9):
    checkpoint.save({path!r}, dict(a=np.full(100_000, k), b=np.full((3, 5), k)), dict(k=str(k)))
    if k == {first}: print(flush=True)
"""


def kill_while_saving(path: Path, times: int) -> int:
    """Kills, at random moments, of a program that saves and saves; the last number that was saved."""
    last, rng = 0, np.random.default_rng(0)
    for _ in range(times):
        program = SAVES.format(source=SOURCE, first=last + 1, path=str(path))
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        child.stdout.read(1)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        found = checkpoint.load(path)
        last, before = int(found.notes["k"]), last
        assert last > before and (found["a"] == last).all() and (found["b"] == last).all()
    return last


@posix
@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_whole_file(path):
    assert kill_while_saving(path, 10) > 10


# Whole trainings.


def trained(seed: int, steps: int = 3, dtype="float32", kind=optim.Adam, **options):
    """Parameters, and an optimiser that has moved them."""
    rng = np.random.default_rng(seed)
    own = {n: Tensor(a, requires_grad=True, dtype=dtype) for n, a in weights(seed).items()}
    optimiser = kind(own, **options)
    for _ in range(steps):
        move(own, optimiser, rng)
    return own, optimiser


def move(own, optimiser, rng) -> None:
    for p in own.values():
        p.grad = rng.standard_normal(p.shape).astype(p.dtype)
    optimiser.step()


BIT_GENERATORS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_a_training_goes_on_to_the_same_bits(kind, path):
    own, optimiser = trained(1, lr=0.1, betas=(0.8, 0.9))
    rng = np.random.Generator(getattr(np.random, kind)(5))
    rng.random(3, "float32")  # half of a 64-bit number waits
    rng.integers(0, 9, 3, "int32")
    more = {"state": np.ones((2, 3)), "losses": np.arange(3.0)}
    checkpoint.save_training(path, optimiser, rng=rng, tensors=more, notes={"alphabet": "abc"})
    again, other = trained(2, steps=1, lr=0.5)
    rng_again = np.random.Generator(getattr(np.random, kind)(6))
    found = checkpoint.load_training(path, other, rng=rng_again)
    same(found, more)
    assert found.notes == {"alphabet": "abc"} and other.lr == 0.1 and other.betas == (0.8, 0.9)
    for _ in range(3):
        move(own, optimiser, rng)
        move(again, other, rng_again)
    same({n: p.value for n, p in again.items()}, {n: p.value for n, p in own.items()})
    same(other.state_dict(), optimiser.state_dict())
    assert (rng.integers(0, 99, 50, "uint8") == rng_again.integers(0, 99, 50, "uint8")).all()
    same(
        checkpoint.load(path, "parameters/"),
        {n: p.value for n, p in trained(1, lr=0.1, betas=(0.8, 0.9))[0].items()},
    )


@pytest.mark.smoke
def test_several_generators_have_names(path):
    _, optimiser = trained(0)
    data, noise = np.random.default_rng(1), np.random.Generator(np.random.Philox(2))
    checkpoint.save_training(path, optimiser, rng={"data": data, "noise": noise})
    expected = data.random(), noise.random()
    checkpoint.load_training(path, optimiser, rng={"noise": noise, "data": data})
    assert (data.random(), noise.random()) == expected


def philox():
    return np.random.Generator(np.random.Philox(1))


MISFITS = {
    "another dtype": (lambda: trained(2, dtype="float64"), "one", DTypeError, "'W' is float32, not float64"),
    "another optimiser": (
        lambda: trained(2, kind=optim.SGD),
        "one",
        InputError,
        "missing 'SGD.steps'.*surplus 'Adam",
    ),
    "no generator": (
        lambda: trained(2),
        None,
        InputError,
        r"generators are \['rng'\], those given as rng none",
    ),
    "another generator": (
        lambda: trained(2),
        "two",
        InputError,
        r"are \['rng'\], those given as rng \['a'\]",
    ),
    "another kind": (lambda: trained(2), "philox", InputError, "rng is Philox, that of the file 'PCG64'"),
    "no generator but a seed": (
        lambda: trained(2),
        3,
        InputError,
        r"rng is int; give a numpy\.random\.default_rng",
    ),
}
RNGS = {
    "one": lambda: np.random.default_rng(9),
    "two": lambda: {"a": np.random.default_rng(9)},
    "philox": philox,
}


@pytest.mark.smoke
@pytest.mark.parametrize(("make", "rng", "kind", "words"), MISFITS.values(), ids=MISFITS)
def test_a_file_of_another_training_is_refused_and_changes_nothing(make, rng, kind, words, path):
    checkpoint.save_training(path, trained(1)[1], rng=np.random.default_rng(0))
    own, optimiser = make()
    before = {n: p.value for n, p in own.items()}, optimiser.state_dict()
    with pytest.raises(kind, match=words):
        checkpoint.load_training(path, optimiser, rng=RNGS[rng]() if rng in RNGS else rng)
    same({n: p.value for n, p in own.items()}, before[0])
    same(optimiser.state_dict(), before[1])


@pytest.mark.smoke
def test_parameters_of_other_names_or_shapes_are_named(path):
    checkpoint.save_training(path, trained(1)[1])
    for own, kind, words in (
        ({"W": np.ones((5, 3)), "b": np.ones(3), "c": np.ones(())}, InputError, "missing 'c'; surplus 's'"),
        (
            {"W": np.ones((5, 4)), "b": np.ones(3), "s": np.ones(())},
            ShapeError,
            r"'W' has shape \(5, 3\), not \(5, 4\)",
        ),
    ):
        optimiser = optim.Adam({n: Tensor(a, requires_grad=True, dtype="float32") for n, a in own.items()})
        with pytest.raises(kind, match=f"training from .*weights.safetensors', parameters: .*{words}"):
            checkpoint.load_training(path, optimiser)
    with pytest.raises(InputError, match="give a dict of tensors by name, not list"):
        checkpoint.save_training(path, optimiser, tensors=[np.ones(2)])
    checkpoint.save(path, weights())
    with pytest.raises(InputError, match="holds arrays but no training"):
        checkpoint.load_training(path, optimiser)


@pytest.mark.smoke
@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"rng": 3}', '{"rng": {"bit_generator": "PCG64"}}', "[" * 100_000]
)
def test_states_of_generators_that_make_no_sense_are_refused(text, path):
    _, optimiser = trained(1)
    checkpoint.save_training(path, optimiser, rng=np.random.default_rng(0))
    arrays, _ = checkpoint._read(path)
    checkpoint._write(path, arrays, {checkpoint.GENERATORS: text})
    with pytest.raises(InputError, match="random generators"):
        checkpoint.load_training(path, optimiser, rng=np.random.default_rng(0))


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_what_a_killed_process_has_left_is_removed_and_what_one_still_writes_is_not(tmp_path):
    import fcntl

    path = tmp_path / "weights"
    rests = [tmp_path / f"weights.{k:016x}.part" for k in range(3)]
    for rest in rests:
        rest.write_bytes(b"half")
    for rest in rests[:2]:
        os.utime(rest, (0, 0))
    with open(rests[1], "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        checkpoint.save(path, {"a": np.ones(3)})
    assert [r.exists() for r in rests] == [False, True, True]
