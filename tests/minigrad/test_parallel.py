"""Several ranks train as one process does: the same numbers, one file, and one end for all.

What is trained is in shared_out.py; here it runs on two and three ranks of a real MPI, and in this process alone.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import InputError, checkpoint, parallel
from tests.minigrad import shared_out

ROOT = Path(__file__).resolve().parents[2]
needs_mpi = pytest.mark.skipif(
    not importlib.util.find_spec("mpi4py") or not shutil.which("mpiexec"), reason="needs mpi4py and mpiexec"
)
WAIT = 120  # seconds: only who waits for ever takes so long


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """The processes of these tests find programs beside pytest's own cache, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGRAD_CACHE", str(Path(request.config.rootpath) / ".pytest_cache" / "minigrad"))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def command(count: int, folder: Path, *names: str) -> list[str]:
    return [
        "mpiexec",
        "-n",
        str(count),
        sys.executable,
        "-m",
        "tests.minigrad.shared_out",
        str(folder),
        *names,
    ]


def run(count: int, folder: Path, *names: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(count, folder, *names), cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=False
    )


def found(folder: Path, name: str, rank: int) -> dict[str, np.ndarray]:
    said = folder / f"{name}-{rank}.txt"
    assert not said.exists(), said.read_text(encoding="utf-8")
    with np.load(folder / f"{name}-{rank}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=[2, 3])
def trained(request, tmp_path_factory):
    """The number of ranks and the folders of two runs of all trainings."""
    folders = [tmp_path_factory.mktemp(f"ranks{request.param}") for _ in range(2)]
    for folder in folders:
        ran = run(request.param, folder, *[f.__name__ for f in shared_out.SAME])
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.count("of 28:") == 10, "rank 0 alone shows how far it is"
    return request.param, *folders


# The same as in one process.


@needs_mpi
@pytest.mark.parametrize("training", shared_out.SAME, ids=lambda f: f.__name__)
def test_ranks_train_as_one_process_does(training, trained, tmp_path):
    count, folder, again = trained
    expected = training(None, tmp_path)
    near = 1e-5 if training is shared_out.single else 1e-12
    first = found(folder, training.__name__, 0)
    assert first.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(first[name], value, rtol=near, atol=near, err_msg=name)
    for rank in range(count):
        for place in (folder, again):
            other = found(place, training.__name__, rank)
            for name, value in first.items():
                np.testing.assert_array_equal(other[name], value, err_msg=f"{name} of rank {rank}")


@needs_mpi
def test_a_file_is_the_same_whoever_wrote_it_and_any_number_of_ranks_goes_on_from_it(tmp_path):
    shared_out.first_steps(None, tmp_path)
    expected = shared_out.other_steps(None, tmp_path)
    for writer, reader in ((2, None), (None, 3), (3, 2)):
        folder = tmp_path / f"{writer}-{reader}"
        folder.mkdir()
        for part, count in ((shared_out.first_steps, writer), (shared_out.other_steps, reader)):
            if count is None:
                last = part(None, folder)
            else:
                assert run(count, folder, part.__name__).returncode == 0
                last = found(folder, part.__name__, count - 1)
            states = checkpoint.load(folder / "shared.file", "tensors/state/")
            assert [s.shape for s in states.values()] == [(shared_out.N, shared_out.H)] * 2
        for name, value in expected.items():
            np.testing.assert_allclose(last[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@needs_mpi
def test_as_many_parts_are_the_same_bits_on_any_number_of_ranks_also_from_a_file(tmp_path):
    expected = shared_out.parted(None, tmp_path)
    for count, reader in ((2, None), (3, 2), (4, 1)):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        assert run(count, folder, "parted", "parted_first").returncode == 0
        others = [found(folder, "parted", rank) for rank in range(count)]
        if reader is None:
            others.append(shared_out.parted_rest(None, folder))
        else:
            assert run(reader, folder, "parted_rest").returncode == 0
            others.append(found(folder, "parted_rest", 0))
        del others[-1]["validation"]  # which also took place where it was stopped
        for other in others:
            for name, value in other.items():
                np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, {count} ranks")


@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.parametrize(
    "training", [f for f in shared_out.SAME if f is not shared_out.watched], ids=lambda f: f.__name__
)
def test_one_process_learns_the_same_from_parts(training, parts, tmp_path, monkeypatch):
    expected = training(None, tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    monkeypatch.setattr(shared_out, "ranks", lambda comm, **options: mg.Ranks(None, parts=parts, **options))
    ours = training(mg.Ranks(None, parts=parts), tmp_path)
    near = 1e-5 if training is shared_out.single else 1e-12
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=near, atol=near, err_msg=name)


@pytest.mark.parametrize(
    "case",
    [f for f in shared_out.REFUSED if "comm.Get_rank" not in inspect.getsource(f)],
    ids=lambda f: f.__name__,
)
def test_one_process_refuses_what_ranks_refuse(case, tmp_path, monkeypatch):
    kind, words = shared_out.REFUSED[case]
    monkeypatch.setattr(shared_out, "ranks", lambda comm, **options: mg.Ranks(None, parts=2, **options))
    with pytest.raises(Exception, match=re.escape(words.replace("2 ranks", "1 ranks"))) as refused:
        case(mg.Ranks(None, parts=2), tmp_path)
    assert refused.type.__name__ == kind


# What is refused, and how it ends.


@needs_mpi
def test_what_cannot_be_shared_out_is_refused_and_all_end(tmp_path):
    cases = [case for case in shared_out.REFUSED if case is not shared_out.more_batches]
    assert run(2, tmp_path, *[f.__name__ for f in cases]).returncode == 0
    for case in cases:
        kind, words = shared_out.REFUSED[case]
        said = [(tmp_path / f"{case.__name__}-{k}.txt").read_text(encoding="utf-8") for k in range(2)]
        own = [text for text in said if text.startswith(f"{kind}: ")]
        assert own and all(words in text for text in said), said
        assert all(text in own or text.startswith("MinigradError: rank ") for text in said), said
        assert not (tmp_path / f"{case.__name__}-0.npz").exists()


@needs_mpi
def test_ranks_with_different_numbers_of_batches_do_not_wait_for_each_other(tmp_path):
    ran = run(2, tmp_path, "more_batches")
    assert ran.returncode and shared_out.REFUSED[shared_out.more_batches][1] in ran.stderr


@needs_mpi
def test_of_an_error_one_rank_alone_speaks_and_the_file_has_all_steps_before(tmp_path):
    ran = run(2, tmp_path, "raised_elsewhere")
    assert ran.returncode == 1
    assert ran.stderr.count("Traceback") == 1 and ran.stderr.rstrip().endswith("OSError: a disk is full"), (
        ran.stderr
    )
    assert len(checkpoint.load(tmp_path / "raised.file")["tensors/losses"]) == 3


def started(folder: Path) -> subprocess.Popen:
    """A long training on two ranks that has made some steps."""
    going = subprocess.Popen(
        command(2, folder, "slow"), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + WAIT
    while not (folder / "running").exists():
        assert time.monotonic() < end and going.poll() is None
        time.sleep(0.02)
    return going


def goes_on(folder: Path, least: int) -> None:
    """What the file has is whole, and the training ends from there as if it had not been stopped."""
    kept = checkpoint.load(folder / "slow.file")
    assert least <= len(kept["tensors/losses"]) < 14
    expected = shared_out.carried(None, folder)
    last = shared_out.carried(None, folder, resume=folder / "slow.file")
    for name, value in expected.items():
        np.testing.assert_allclose(last[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all_and_the_file_is_whole(rank, tmp_path):
    going = started(tmp_path)
    os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)
    _, said = going.communicate(timeout=WAIT)
    assert going.returncode != 0 and "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / f"pid-{1 - rank}").read_text()), 0)
    goes_on(tmp_path, 4)


@needs_mpi
@pytest.mark.parametrize("whom", ["all", "rank 1"])
def test_ctrl_c_ends_all_at_one_step_which_the_file_has(whom, tmp_path):
    going = started(tmp_path)
    target = going.pid if whom == "all" else int((tmp_path / "pid-1").read_text())
    os.kill(target, signal.SIGINT)
    _, said = going.communicate(timeout=WAIT)
    assert going.returncode != 0 and said.count("Traceback") == 1 and "KeyboardInterrupt" in said, said
    goes_on(tmp_path, 4)


@needs_mpi
def test_the_program_of_the_documentation_runs(tmp_path):
    (program,) = re.findall(
        r"```py\n(.*?)```", (ROOT / "docs" / "how" / "ranks.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "train.py").write_text(program, encoding="utf-8")
    words = ["mpiexec", "-n", "2", sys.executable, "-m", "mpi4py", "train.py"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(checkpoint.load(tmp_path / "sums.safetensors")["tensors/losses"]) == 200


# The command.


def train(count: int, folder: Path, *words: str) -> list[str]:
    text = ROOT / "examples" / "carroll.txt"
    ranks = ["mpiexec", "-n", str(count)] if count > 1 else []
    return [
        *ranks,
        sys.executable,
        "-m",
        "minigrad",
        "train",
        str(text),
        "--hidden",
        "24",
        "--out",
        str(folder),
        *words,
    ]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(folder / "weights.safetensors")


def same_weights(one: Path, other: Path, near: float) -> None:
    expected, ours = weights(one), weights(other)
    assert expected.keys() == ours.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=near, atol=near, err_msg=name)


def said_by(words: list[str]) -> str:
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


@needs_mpi
def test_the_command_shares_streams_and_learns_what_one_process_does(tmp_path):
    alone = said_by(train(1, tmp_path / "1", "--steps", "40"))
    shared = said_by(train(4, tmp_path / "4", "--steps", "40"))
    said_by(train(4, tmp_path / "again", "--steps", "40"))
    assert "3,224 characters; 4 processes\n" in shared
    assert [line.split(" bits")[0] for line in shared.splitlines()[1:6]] == [
        line.split(" bits")[0] for line in alone.splitlines()[1:6]
    ]
    assert shared.count("weights: ") == 1, "rank 0 alone says something"
    same_weights(tmp_path / "1", tmp_path / "4", 1e-5)
    same_weights(tmp_path / "4", tmp_path / "again", 0)


@needs_mpi
def test_as_many_parts_give_the_same_bits_on_any_number_of_processes(tmp_path):
    options = "--steps", "200", "--batch", "7", "--parts", "4"
    folders = {count: tmp_path / str(count) for count in (1, 2, 3, 4)}
    for count, folder in folders.items():
        said_by(train(count, folder, *options))
    for folder in [*folders.values()][1:]:
        same_weights(folders[1], folder, 0)
    said_by(train(1, tmp_path / "whole", *options[:-2]))
    with pytest.raises(AssertionError):  # so many steps let the least difference grow
        same_weights(folders[1], tmp_path / "whole", 0)


@needs_mpi
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_command_goes_on_where_it_was_stopped(sent, tmp_path):
    options = "--steps", "60", "--resume"
    said_by(train(2, tmp_path / "whole", *options, str(tmp_path / "whole.run")))
    file = tmp_path / "stopped.run"
    words = train(2, tmp_path / "stopped", *options, str(file))
    going = subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert going.stdout
    while "step 12" not in going.stdout.readline():
        assert going.poll() is None
    group = going.pid if sent == signal.SIGINT else ranks_of(going.pid)[0]
    os.kill(group, sent)
    out, said = going.communicate(timeout=WAIT)
    assert "Traceback" not in said, said
    assert (going.returncode == 0) == (sent == signal.SIGINT) == ("what was learned so far is kept" in out)
    assert len(checkpoint.load(file)["tensors/losses"]) >= (12 if sent == signal.SIGINT else 0)
    assert "goes on after step" in said_by(words) or sent == signal.SIGKILL
    same_weights(tmp_path / "whole", tmp_path / "stopped", 0)


def ranks_of(launcher: int) -> list[int]:
    """The processes of the ranks below a launcher, by what Linux says of them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(pid))
    (proxy,) = children[launcher]
    return children[proxy]


@needs_mpi
def test_what_is_wrong_with_the_command_is_said_once(tmp_path):
    for words, line in (
        (train(4, tmp_path, "--batch", "2"), "minigrad: error: --batch 2: 4 processes share the streams"),
        (train(4, tmp_path, "--parts", "3"), "minigrad: error: --parts 3: give at least 1 and as many as"),
        (train(2, tmp_path, "--parts", "9"), "minigrad: error: --parts 9: "),
        (train(1, tmp_path, "--parts", "0"), "minigrad: error: --parts 0: "),
        (train(2, tmp_path, "--window", "5000"), "error: the text has 3224 characters: too few"),
    ):
        ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=False)
        assert ran.returncode and ran.stderr.count("\n") == 1 and ran.stderr.startswith(line), ran
    assert not list(tmp_path.iterdir())


# Without MPI.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(axes=-1), "axes = -1; give 0, 1"),
        (dict(axes=(0, "x")), "axes = "),
        (dict(axes=True), "axes = True"),
        (dict(weigh="mean"), "weigh = 'mean'"),
        (dict(parts=0), "parts = 0 on 1 ranks"),
        (dict(parts=2.0), "parts = 2.0 on 1 ranks"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(InputError, match=words):
        mg.Ranks(OneOf(1), **options)


def test_what_is_not_a_communicator_is_refused():
    problem = shared_out.Problem()
    with pytest.raises(InputError, match="comm is int; give a communicator"):
        mg.fit(problem.loss, problem.parameters, problem.batches, comm=3)


class OneOf:
    """A communicator that is asked for nothing but its size and a rank."""

    def __init__(self, size: int, rank: int = 0):
        self.size, self.rank = size, rank

    def Get_rank(self) -> int:  # noqa: N802
        return self.rank

    def Get_size(self) -> int:  # noqa: N802
        return self.size

    def Iallreduce(self):  # noqa: N802
        raise AssertionError


def test_one_rank_is_one_process():
    one = shared_out.plain(OneOf(1), None)
    for name, value in shared_out.plain(None, None).items():
        np.testing.assert_array_equal(one[name], value)


def test_a_second_ctrl_c_waits_for_an_exchange_in_which_others_wait():
    class Met(mg.Ranks):
        def _met(self, what, detail):
            self.asked = what

    ranks = Met(OneOf(2))
    ranks.stop = ranks.together = False
    ranks._asked_to_stop(signal.SIGINT, None)
    ranks.meet(parallel.STEP, exchange=lambda: ranks._asked_to_stop(signal.SIGINT, None))
    assert ranks.stop and ranks.asked == parallel.STOPPED
    with pytest.raises(KeyboardInterrupt):
        ranks._asked_to_stop(signal.SIGINT, None)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("N", [0, 1, 2, 3, 6, 8, 15])
@pytest.mark.parametrize("more", [0, 1, 5])
def test_every_sequence_belongs_to_one_part_and_every_part_to_one_rank(N, size, more):
    ranks = [mg.Ranks(OneOf(size, k), parts=size + more) for k in range(size)]
    parts = [rank.part(k, N) for rank in ranks for k in rank.here]
    assert [n for part in parts for n in range(N)[part]] == list(range(N))
    for lengths in ([part.stop - part.start for part in parts], [len(rank.here) for rank in ranks]):
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("parts", [8, 11, 12])
def test_the_branches_of_all_ranks_are_of_one_tree_and_few(size, parts):
    def tree(start, stop):
        middle = (start + stop + 1) // 2
        return {(start, stop)} | (tree(start, middle) | tree(middle, stop) if stop - start > 1 else set())

    nodes = [mg.Ranks(OneOf(size, k), parts=parts)._nodes(0, parts) for k in range(size)]
    assert {node for own in nodes for node in own} <= tree(0, parts)
    assert [k for own in nodes for node in own for k in range(*node)] == [*range(parts)]
    if parts == 8 and size in (1, 2, 4, 8):
        assert {len(own) for own in nodes} == {1}


@pytest.mark.parametrize("name", parallel.SIZES)
def test_processes_that_a_launcher_started_are_told_where_mpi4py_is_missing_or_another(name, monkeypatch):
    for other in (*parallel.SIZES, parallel.PMIX):
        monkeypatch.delenv(other, raising=False)
    assert parallel.world() is None
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mpi4py", None)
        patch.setenv(parallel.PMIX, "0")
        assert parallel.world() is None
    monkeypatch.setenv(name, "4")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mpi4py", None)
        with pytest.raises(
            InputError, match=r"4 processes were started together, and mpi4py is not there .*\[mpi\]"
        ):
            parallel.world()
    if importlib.util.find_spec("mpi4py"):
        program = "import minigrad.parallel as p\ntry: p.world()\nexcept ValueError as e: print(e)"
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT, check=True
        )
        assert "mpi4py sees 1: start them with the mpiexec of its own MPI" in said.stdout
