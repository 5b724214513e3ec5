"""Threads: who decides how many, and what must not break: fork, oversubscription, Python threads, nesting."""

import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch

import honed
from honed import _core

CPUS = honed.info().cpus
needs_two = pytest.mark.skipif(CPUS < 2, reason="this process may use one CPU only")

both_ways = pytest.mark.parametrize("with_torch", [True, False], ids=["torch", "no_torch"])

# Large enough that every thread gets a piece; `ok` compares with the formula, not with another run.
_COMPUTE = """
import numpy as np, honed
x = np.random.default_rng(0).standard_normal((512, 768)).astype(np.float32)
expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5)
def ok():
    return bool(np.abs(honed.ops.rms_norm(x, (768,), None, 1e-5) - expected).max() < 1e-5)
"""


@pytest.fixture
def compute(output_of):
    """Runs a script that may use ok(); gives its last line."""
    return lambda code, *args, **env: output_of(_COMPUTE + textwrap.dedent(code), *args, **env)


def rms(x):
    return x / torch.sqrt(x.double().square().mean(-1, keepdim=True) + 1e-5)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_torch_is_followed(torch_threads):
    for count in (1, min(2, CPUS)):
        torch_threads(count)
        assert honed.get_num_threads() == count


def test_own_setting_wins_until_given_back(torch_threads):
    torch_threads(CPUS)
    honed.set_num_threads(1)
    try:
        assert honed.get_num_threads() == 1
    finally:
        honed.set_num_threads(0)
    assert honed.get_num_threads() == CPUS


def test_never_more_than_the_cpus():
    honed.set_num_threads(CPUS + 100)
    try:
        assert honed.get_num_threads() == CPUS
    finally:
        honed.set_num_threads(0)


@pytest.mark.parametrize("bad", [-1, 1.5, "2", None])
def test_a_bad_count_is_refused(bad):
    with pytest.raises(ValueError, match="set_num_threads"):
        honed.set_num_threads(bad)


@both_ways
def test_the_variable(output_of, with_torch):
    code = "import honed; print(honed.get_num_threads())"
    assert output_of(code, with_torch, HONED_NUM_THREADS="1") == "1"
    assert output_of(code, with_torch) == str(CPUS)


@pytest.mark.parametrize("bad", ["0", "-2", "two", "1.5"])
def test_a_bad_variable_is_refused(run_python, bad):
    done = run_python("import honed; honed.get_num_threads()", torch=False, HONED_NUM_THREADS=bad)
    assert done.returncode != 0
    assert f"HONED_NUM_THREADS is '{bad}'" in done.stderr


def test_the_openmp_team_is_shared(output_of):
    assert output_of("import honed; print(honed.info().openmp is not None)") == "True"
    assert (
        output_of("import honed; print(honed.info().openmp, honed.info().torch)", torch=False) == "None None"
    )


@both_ways
def test_more_threads_than_cores(compute, with_torch):
    """Two threads a region on one core, from eight Python threads: right, and done before the time limit."""
    code = """
        import os, threading
        honed.get_num_threads()  # counts the CPUs, then loses all but one
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        assert all(ok() for _ in range(200))
        results = []
        team = [threading.Thread(target=lambda: results.extend(ok() for _ in range(50))) for _ in range(8)]
        for t in team: t.start()
        for t in team: t.join()
        print(len(results), all(results))
    """
    assert compute(code, with_torch, OMP_NUM_THREADS="8", HONED_NUM_THREADS="8") == "400 True"


@both_ways
def test_fork_after_use(compute, with_torch):
    code = """
        import os
        assert ok()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if ok() and ok() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert ok()
        print("done")
    """
    assert compute(code, with_torch) == "done"


@both_ways
def test_a_forked_childs_child(compute, with_torch):
    code = """
        import os
        assert ok()
        child = os.fork()
        if child == 0:
            assert ok()
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if ok() else 1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert compute(code, with_torch) == "0"


@both_ways
def test_multiprocessing_fork(compute, with_torch):
    code = """
        import multiprocessing
        assert ok()
        def work(_):
            return ok()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(all(pool.map(work, range(8))), ok())
    """
    assert compute(code, with_torch) == "True True"


@both_ways
def test_fork_while_others_compute(compute, with_torch):
    """The child has only the forking thread: what the others held must not hold it up."""
    code = """
        import os, threading
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                ok()
        team = [threading.Thread(target=busy) for _ in range(2)]
        for t in team: t.start()
        codes = []
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if ok() else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        for t in team: t.join()
        print(codes == [0] * 10)
    """
    assert compute(code, with_torch) == "True"


def test_eight_python_threads_at_once():
    inputs = [torch.randn(64 + i, 500 + i, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    wrong, start = [], threading.Barrier(8)

    def work(x):
        start.wait()
        for _ in range(50):
            if (honed.ops.rms_norm(x, x.shape[-1:], None, 1e-5) - rms(x)).abs().max() > 1e-5:
                wrong.append(tuple(x.shape))

    team = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for each in team:
        each.start()
    for each in team:
        each.join(60)
    assert not any(each.is_alive() for each in team), "a thread hangs"
    assert not wrong


def test_the_gil_is_released():
    """A Python thread runs while a call is in progress; no bytecode of this thread lets it in."""
    # NumPy: torch gives the GIL away itself when it frees a tensor.
    x, counted, done = np.ones((4000, 2000), np.float32), [], threading.Event()

    def count():
        while not done.is_set():
            counted.append(1)
            time.sleep(0.0002)

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    counter.start()
    sys.setswitchinterval(60)
    try:
        for _ in range(50):
            before = len(counted)
            _core.rms_norm(x, None, 1e-5, 1, x.shape[-1])
            ran = len(counted) > before
            if ran:
                break
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()
    assert ran


class Normalised(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        x = torch.full((300, 700), float(index + 1))
        return honed.ops.rms_norm(x, (700,), None, 0.0)


def test_dataloader_workers():
    honed.ops.rms_norm(torch.randn(512, 768), (768,))
    loader = torch.utils.data.DataLoader(Normalised(), batch_size=4, num_workers=2, timeout=60)
    batches = list(loader)
    assert len(batches) == 4
    for batch in batches:
        assert torch.equal(batch, torch.ones(4, 300, 700))


def test_inside_torchs_own_parallel_work():
    """A hook that runs in a backward pass: autograd's threads call honed."""
    seen = []
    x = torch.randn(256, 512, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: seen.append(honed.ops.rms_norm(grad, (512,), None, 0.0)))
    y.square().sum().backward()
    assert (seen[0] - rms(4 * x.detach() * 2).float()).abs().max() < 1e-3


@needs_two
def test_torch_keeps_its_threads_after_a_call():
    before = torch.get_num_threads()
    honed.ops.rms_norm(torch.randn(512, 768), (768,))
    assert torch.get_num_threads() == before
