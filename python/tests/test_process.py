"""What a process may do around calls: fork, threads, interrupts, many calls."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import hebbian_engine as he

N, B, T = 20, 4, 10
RNG = np.random.default_rng(9)
W = RNG.normal(0, 0.2, (N, N)).astype(np.float32)
DRIVE = RNG.normal(0, 1, (B, T, N)).astype(np.float32)


def call():
    y, h = he.numpy.plastic(W, 0.1, 0.1, DRIVE, device="cpu")
    found = he.numpy.gradients(w=W, alpha=0.1, eta=0.1, drive=DRIVE, dy=y, device="cpu")
    return y, h, found["grad_w"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_works_on():
    code = """
import multiprocessing, test_process
def in_child(queue):
    queue.put([array.tobytes() for array in test_process.call()])
before = [array.tobytes() for array in test_process.call()]
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=in_child, args=(queue,))
child.start()
assert queue.get(timeout=60) == before
child.join(timeout=60)
assert child.exitcode == 0
"""
    folder = os.path.dirname(__file__)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_remembers(tmp_path):
    code = f"""
import os, sys, numpy as np, hebbian_engine as he
run = he.train("patterns", out={str(tmp_path / "run")!r}, device="cpu", networks=1, updates=2,
               settings={{"task.bits": 1100}})
net = run.load(device="cpu")
patterns = np.random.default_rng(0).choice([-1.0, 1.0], (2, 1100))
answer = net.remember(patterns).complete(patterns)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(net.remember(patterns).complete(patterns), answer) else 1)
_, status = os.waitpid(child, 0)
sys.exit(status)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_threads_side_by_side():
    exact = call()
    failures = []

    def work():
        for _ in range(50):
            for one, two in zip(call(), exact):
                if not np.array_equal(one, two):
                    failures.append("other bits")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_an_interrupt_ends_a_long_call():
    code = """
import time, numpy as np, hebbian_engine as he
n, t = 600, 4000
w = np.zeros((n, n), np.float32)
drive = np.ones((8, t, n), np.float32)
he.numpy.plastic(w, 0.1, 0.1, drive[:, :2], device="cpu")
print("begins", flush=True)
try:
    he.numpy.gradients(w=w, alpha=np.zeros((n, n), np.float32), eta=0.1, drive=drive, dy=drive,
                       device="cpu")
except KeyboardInterrupt:
    ended = time.time()
    y, _ = he.numpy.plastic([[0.5]], 0.0, 0.1, [[[1.0]]], device="cpu")
    print("interrupted", ended, float(y[0, 0, 0]) > 0, flush=True)
import os
os._exit(0)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "begins\n"
    time.sleep(1.0)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    text, _ = child.communicate(timeout=120)
    words = text.split()
    assert words[0] == "interrupted" and words[2] == "True", text
    assert float(words[1]) - sent < 1.0


def test_many_calls_keep_no_memory():
    for _ in range(500):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        call()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2048, f"{grown} KiB"


def test_a_strict_python_has_nothing_to_say_and_no_thread_stays():
    code = """
import threading, numpy as np, hebbian_engine as he
he.numpy.plastic([[0.5]], 0.0, 0.1, [[[1.0]]], device="cpu")
he.functional, he.torch
assert threading.active_count() == 1
"""
    found = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:hebbian_engine", "-W",
         "error::ResourceWarning", "-c", code],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0 and not found.stderr, found.stderr


def test_the_import_is_quick_and_brings_neither_torch_nor_jax():
    code = """
import sys, time
import numpy
begun = time.perf_counter()
import hebbian_engine
print(time.perf_counter() - begun, "torch" in sys.modules, "jax" in sys.modules)
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
        for _ in range(3)
    ]
    assert all(run[1:] == ["False", "False"] for run in runs)
    assert min(float(run[0]) for run in runs) < 0.3
