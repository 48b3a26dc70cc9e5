"""Programs on disk: found again, made once, whatever is wrong with the folder, and never those of other kernels."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiler import cache, machine
from minigrad.compiler.cache import Folder

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, shutil, sys, numpy as np, minigrad as mg
w = mg.Tensor(np.ones(3), requires_grad=True, name="w")
step = mg.compile(lambda x: (mg.tanh(x * w)).sum())
print(step.value_and_grad(np.arange(6.0).reshape(2, 3))[0].item())
print("found" if step.last.module.found else "compiled", file=sys.stderr)
"""
VALUE = str(sum(np.tanh(k) for k in range(6)))[:12]


def start(folder: Path | str, program: str = PROGRAM, root: Path = ROOT, **options) -> subprocess.Popen:
    env = os.environ | {"MINIGRAD_CACHE": str(folder), "PYTHONPATH": str(root), "PYTHONWARNINGS": "default"}
    env |= options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", program, str(options.pop("number", 0))],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip(), err


def files(folder: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A folder that two processes filled at the same time; copy it before changing it."""
    folder = tmp_path_factory.mktemp("cache") / "filled"
    both = [finish(p) for p in [start(folder), start(folder)]]
    assert all(out.startswith(VALUE) for out, _ in both)
    assert sorted(err.split()[-1] for _, err in both) == ["compiled", "found"], (
        "one makes it, the other waits"
    )
    return folder


@pytest.fixture
def copied(filled, tmp_path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "copied", copy_function=shutil.copy2))


def test_a_second_process_finds_the_program(filled):
    before = {f: f.stat().st_mtime_ns for f in files(filled)}
    assert len([f for f in before if f.suffix == ".py"]) == 1 and not [
        f for f in before if f.name.startswith("part")
    ]
    out, err = finish(start(filled))
    assert out.startswith(VALUE) and err.split() == ["found"]
    assert {f: f.stat().st_mtime_ns for f in files(filled)} == before, "nothing is written again"


# Garbage.

DAMAGE = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a changed byte": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "other bytes": lambda data: b"\x00garbage\xff" * 99,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_garbage_in_any_file_is_not_read_and_goes(copied, damage):
    place = Folder(str(copied))
    names = [f.name for f in files(copied) if f.suffix == ".o"]
    assert len(names) > 1, "the program, and kernels"
    for name in names:
        assert place.read(name)
        (copied / name).write_bytes(DAMAGE[damage]((copied / name).read_bytes()))
        assert place.read(name) is None and not (copied / name).exists()


def test_a_file_in_the_place_of_another_is_not_read(copied):
    one, other = [f for f in files(copied) if f.suffix == ".o"][:2]
    shutil.copy(one, other)
    assert Folder(str(copied)).read(one.name) and Folder(str(copied)).read(other.name) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_garbage_in_all_files_is_made_anew(copied, filled, damage):
    for file, data in files(copied).items():
        file.write_bytes(DAMAGE[damage](data) if len(data) > 100 else b"garbage")
    out, err = finish(start(copied))
    assert out.startswith(VALUE) and err.split() == ["compiled"]
    sound = [f for f in files(copied) if f.suffix in (".py", ".o")]
    assert {f.name for f in sound} == {f.name for f in files(filled) if f.suffix in (".py", ".o")}
    assert all(Folder(str(copied)).read(f.name) for f in sound if f.suffix == ".o")
    assert finish(start(copied))[1].split() == ["found"]


# Whose it is.


def refused(folder: Path, word: str) -> None:
    with pytest.warns(UserWarning, match=word) as said:
        place = Folder(str(folder))
    assert (len(said) == 1 and "MINIGRAD_CACHE" in str(said[0].message)) or "chmod" in str(said[0].message)
    assert place.path is None and place.read("x") is None
    place.write("x", b"")
    with place.made_once("x"):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such owners")
class TestOwners:
    def test_it_is_made_for_the_user_alone(self, tmp_path):
        before = os.umask(0)
        try:
            Folder(str(tmp_path / "above" / "cache")).write("x", b"")
        finally:
            os.umask(before)
        assert (tmp_path / "above" / "cache").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "above" / "cache" / "x").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o722])
    def test_others_may_write(self, copied, mode):
        copied.chmod(mode)
        refused(copied, "others may write to it")

    def test_it_belongs_to_somebody_else(self, copied, monkeypatch):
        other = os.geteuid() + 1234
        if os.geteuid() == 0:
            os.chown(copied, other, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: other)
        refused(copied, "belongs to another user")

    def test_a_link_of_somebody_else(self, copied, monkeypatch):
        link = copied.parent / "link"
        link.symlink_to(copied)
        assert Folder(str(link)).path, "a link of one's own is followed"
        other = os.geteuid() + 1234
        if os.geteuid() == 0:
            os.lchown(link, other, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: other)
        refused(link, "a link that belongs to another user")
        refused(link / "below", "a link that belongs to another user")
        assert not (copied / "below").exists()

    def test_a_file_that_others_may_write_or_own(self, copied, monkeypatch):
        one, other = [f for f in files(copied) if f.suffix == ".o"][:2]
        one.chmod(0o620)
        place = Folder(str(copied))
        assert place.read(one.name) is None and place.read(other.name)
        stranger = os.geteuid() + 1234
        if os.geteuid() == 0:
            os.chown(other, stranger, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: stranger)
        assert place.read(other.name) is None

    def test_a_program_runs_without(self, copied):
        copied.chmod(0o777)
        out, err = finish(start(copied))
        assert (
            out.startswith(VALUE)
            and err.split()[-1] == "compiled"
            and err.count("others may write to it") == 1
        )


# What cannot be written.


@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.fdopen", "os.replace"])
def test_a_full_disk(tmp_path, monkeypatch, step):
    place = Folder(str(tmp_path / "cache"))
    place.write("before", b"1")
    module, name = step.split(".")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(getattr(cache, module), name, full)
    with pytest.warns(UserWarning, match="No space left on device.*MINIGRAD_CACHE") as said:
        place.write("x", b"2")
    place.write("y", b"3")
    monkeypatch.undo()
    place.write("z", b"4")
    assert len(said) == 1 and [f.name for f in files(tmp_path)] == ["before"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file sizes")
def test_a_program_on_a_disk_that_is_full_at_any_byte(tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n" + PROGRAM
    out, err = finish(start(tmp_path / "cache", limited))
    assert out.startswith(VALUE) and err.count("cannot be written") == 1 and "MINIGRAD_CACHE" in err
    assert not [f for f in files(tmp_path) if f.name.startswith("part") or f.stat().st_size > 2_000]
    for word in ("compiled", "found"):  # the next one, with room, mends it
        out, err = finish(start(tmp_path / "cache"))
        assert out.startswith(VALUE) and err.split() == [word]


def test_a_folder_that_vanishes(tmp_path):
    gone = PROGRAM.replace(
        "step =", "from minigrad.compiler import cache; shutil.rmtree(cache.folder().path); step ="
    )
    out, err = finish(start(tmp_path / "cache", gone))
    assert out.startswith(VALUE) and err.count("cannot be written") == 1
    assert not (tmp_path / "cache").exists()


def test_another_current_directory(tmp_path, copied):
    """A relative MINIGRAD_CACHE is the folder that it was at first."""
    moved = f"import os, minigrad.compiler.cache as c; c.folder(); os.chdir({str(ROOT)!r})\n" + PROGRAM
    out, err = finish(start(copied.name, moved, cwd=copied.parent))
    assert out.startswith(VALUE) and err.split() == ["found"] and not (ROOT / copied.name).exists()


@pytest.mark.parametrize("what", ["file in the way", "read-only"])
def test_no_folder_that_can_be_made(tmp_path, what):
    folder = tmp_path / "cache"
    if what == "read-only":
        if os.geteuid() == 0:
            folder = Path("/proc/minigrad")  # root may write everywhere else
        else:
            folder.mkdir(mode=0o555)
    else:
        folder.write_text("in the way")
    out, err = finish(start(folder))
    assert out.startswith(VALUE) and err.count("cannot be written") == 1 and "MINIGRAD_CACHE" in err


def test_a_filled_folder_that_cannot_be_written_is_read(copied):
    """In a process that may write nowhere in it: root is told so by its own functions."""
    sealed = f"""
import os, tempfile
def no(*_, **__):
    raise PermissionError(13, "Permission denied")
opened = os.open
os.open = lambda path, flags, *more: no() if flags & os.O_CREAT and {str(copied)!r} in str(path) else opened(path, flags, *more)
tempfile.mkstemp = os.replace = os.unlink = os.utime = no
"""
    if os.geteuid():
        sealed = ""
    for file in files(copied):
        file.chmod(0o400)
    copied.chmod(0o500)
    try:
        out, err = finish(start(copied, sealed + PROGRAM))
        assert out.startswith(VALUE) and err.split() == ["found"], "without a warning"
        other = PROGRAM.replace("mg.tanh(x * w)", "mg.tanh(x * w) * 2.0")
        out, err = finish(start(copied, sealed + other))
        assert out.startswith(str(2 * float(VALUE))[:8]) and err.count("cannot be written") == 1
    finally:
        copied.chmod(0o700)


# The key.


def test_a_change_of_a_kernel_is_noticed(tmp_path):
    """In a copy of the package, whose files keep their size and time: old machine code is not used."""
    package = Path(
        shutil.copytree(
            ROOT / "minigrad", tmp_path / "minigrad", ignore=shutil.ignore_patterns("__pycache__")
        )
    )
    folder = tmp_path / "cache"
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}

    def run():
        out, err = finish(start(folder, root=tmp_path, cwd=tmp_path, env=environment))
        return out, err.split()[-1]

    before = run()
    assert before[0].startswith(VALUE) and before[1] == "compiled" and run() == (before[0], "found")
    for name, old, new in [
        (
            "instructions.py",
            "tanh_one=20.0",
            "tanh_one=00.5",
        ),  # a constant of what is written into every loop
        (
            "runtime.py",
            "            target[r] = part\n",
            "            target[r] =-part\n",
        ),  # a kernel that is kept apart
    ]:
        file = package / "compiler" / name
        text, stat = file.read_text(), file.stat()
        assert text.count(old) == 1 and len(old) == len(new)
        file.write_text(text.replace(old, new))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        now = run()
        assert now[1] == "compiled" and abs(float(now[0]) - float(VALUE)) > 1, name
        file.write_text(text)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run() == (before[0], "found"), "both are kept"


def test_another_processor_and_other_settings_have_other_keys(tmp_path):
    program = "from minigrad.compiler import cache; print(cache._digest('the same source'))"
    settings = [
        {},
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse2"},
        {"NUMBA_OPT": "1"},
        {"NUMBA_LOOP_VECTORIZE": "0"},
        {"NUMBA_ENABLE_AVX": "0"},
    ]
    keys = [finish(start(tmp_path, program, env=more))[0] for more in settings]
    assert len(set(keys)) == len(keys) and finish(start(tmp_path, program))[0] == keys[0]


# Several processes.


def held(folder: Path) -> subprocess.Popen:
    """A process that has begun to make x and does not come to an end."""
    program = """
import time
from minigrad.compiler import cache, machine
with cache.folder().made_once("x"):
    print("mine", flush=True)
    time.sleep(600)
"""
    process = start(folder, program)
    assert process.stdout and process.stdout.readline() == "mine\n"
    return process


KERNELS = """
import os, sys, time, numpy as np, minigrad as mg
from minigrad.compiler import cache, llvm

def slowly(*what, made=cache._code):
    print("compiles", what[0] if not what[1] else "its program", flush=True)
    time.sleep(0.5)
    return made(*what)

cache._code = slowly
print("ready", flush=True)
sys.stdin.readline()  # until both are there
W = mg.Tensor(np.ones((3, 3)), requires_grad=True, name="W")
mg.compile(lambda x: mg.tanh(x @ W * float(sys.argv[1])).sum()).value_and_grad(np.ones((2, 3)))
"""


def test_processes_with_different_programs_compile_a_kernel_once(tmp_path):
    both = [start(tmp_path / "cache", KERNELS, stdin=subprocess.PIPE, number=k) for k in (2, 3)]
    for process in both:
        assert process.stdout and process.stdin and process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [finish(process)[0].split("\n") for process in both]
    assert all(said[0] == "compiles its program" for said in lines), "they are different programs"
    kernels = [line for said in lines for line in said[1:]]
    assert len(kernels) == len({*kernels}) >= 2, kernels


def test_a_process_that_crashed_holds_nobody_up(tmp_path):
    process = held(tmp_path / "cache")
    process.kill()
    process.communicate()
    began = time.monotonic()
    with Folder(str(tmp_path / "cache")).made_once("x") as made:
        assert made and time.monotonic() - began < 1


def test_a_process_that_is_stopped_is_waited_for_for_a_while(tmp_path, monkeypatch):
    process = held(tmp_path / "cache")
    monkeypatch.setattr(cache, "WAIT", 0.3)
    try:
        began = time.monotonic()
        with Folder(str(tmp_path / "cache")).made_once("x"):
            assert 0.3 <= time.monotonic() - began < 3
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_was_forked_meanwhile_holds_nobody_up(tmp_path):
    program = """
import os, time
from minigrad.compiler import cache, machine
place = cache.folder()
with place.made_once("x"):
    child = os.fork()
    if not child:
        time.sleep(600)
began = time.monotonic()
with place.made_once("x"):
    print(time.monotonic() - began < 1)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    assert (
        finish(start(tmp_path / "cache", "from minigrad.compiler import cache; cache.WAIT = 3\n" + program))[
            0
        ]
        == "True"
    )


def test_ctrl_c_while_a_file_is_written_leaves_none(tmp_path, monkeypatch):
    place = Folder(str(tmp_path / "cache"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has none
    monkeypatch.setattr(cache.os, "replace", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), place.made_once("x"):
        place.write("x", b"1")
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)
    assert [f.name[:5] for f in files(tmp_path)] == ["lock_"]
    with place.made_once("x") as made:
        assert made, "the lock is free again"


def test_ctrl_c_while_compiling(tmp_path):
    stopped = """
from minigrad.compiler import cache, machine
keep = cache.object_code
def stop(text, level):
    cache.object_code = keep
    raise KeyboardInterrupt
cache.object_code = stop
""" + PROGRAM.replace(
        "print(step",
        "try: step(np.ones((2, 3)))\nexcept KeyboardInterrupt: print('stopped', file=sys.stderr)\nprint(step",
    )
    out, err = finish(start(tmp_path / "cache", stopped))
    assert out.startswith(VALUE) and err.split() == ["stopped", "compiled"]
    assert finish(start(tmp_path / "cache"))[1].split() == ["found"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_is_heard_while_llvm_works(monkeypatch):
    monkeypatch.setattr(machine, "_emitted", lambda text, level: time.sleep(2))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            machine.object_code("a large program")
        assert time.monotonic() - began < 1
    finally:
        signal.signal(signal.SIGINT, before)


# Its size.


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    place = Folder(str(tmp_path / "cache"))
    names = [f"f.run_{k:020x}.o" for k in range(20)]
    for k, name in enumerate(names):
        place.write(name, cache._checksum(name, b"1") + b"1")
        os.utime(place.path / name, (1e9 + k, 1e9))
    (place.path / "somebody's.txt").write_text("not ours")
    (place.path / "part_abcdefgh").write_text("of a crash")
    os.utime(place.path / "part_abcdefgh", (1e9, 1e9))
    assert place.read(names[0]) == b"1"  # used just now
    monkeypatch.setattr(cache, "MOST_FILES", 10)
    place.trim()
    assert sorted(os.listdir(place.path)) == [names[0], *names[13:], "somebody's.txt"]
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    place.trim()
    assert sorted(os.listdir(place.path)) == [names[0], names[19], "somebody's.txt"]


# An example.


def heed_interrupts():
    """What runs behind a shell ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupt_keeps_what_was_learned(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "examples" / "char_rnn.py"),
        "--steps",
        "100000",
        "--out",
        str(tmp_path),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    once = ["1" if word == "100000" else word for word in command]
    subprocess.run(
        once, env=env, check=True, capture_output=True
    )  # so that the signal meets training, not compiling
    (tmp_path / "weights.safetensors").unlink()
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,
    )
    weights = tmp_path / "weights.safetensors"
    while not weights.exists():
        assert process.poll() is None
        time.sleep(0.05)
    first = weights.read_bytes()
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out = process.communicate(timeout=30)[0]
    assert time.monotonic() - began < 2 and process.returncode == 0, out
    assert "stopped; what was learned so far is kept" in out
    assert weights.read_bytes() != first and not list(tmp_path.glob("*.part"))


# The level of optimisation.


def test_the_level_of_a_program_is_not_that_of_its_kernels(monkeypatch, tmp_path):
    """Each level has a file of its own for the program, all have the same for the kernels, and the numbers agree."""
    for name in ("_programs", "_kernels"):
        monkeypatch.setattr(cache, name, {})
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    x, found, sizes = np.random.default_rng(0).standard_normal((7, 40)), [], []
    for level in ("0", "3", "3"):
        monkeypatch.setenv("MINIGRAD_OPT", level)
        function = mg.compile(lambda x: mg.tanh(x @ (x.T * 0.1)).sum())
        found.append(function(x).item())
        sizes.append(len([*tmp_path.glob("kernel_*.o")]))
    assert len([*tmp_path.glob("*.o")]) - sizes[0] == 2 and sizes[0] == sizes[2] > 0
    np.testing.assert_allclose(found, mg.tanh(mg.Tensor(x) @ (x.T * 0.1)).sum().item(), rtol=1e-13)


@pytest.mark.as_shipped
def test_what_is_marked_is_compiled_as_users_have_it():
    assert machine.program_level() == machine.LEVEL


def test_what_is_not_marked_is_not_optimised():
    assert machine.program_level() == 0
