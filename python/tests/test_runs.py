"""Training, trained networks, and the command."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import hebbian_engine as he

SMALL = {"task.bits": 30, "task.patterns": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "patterns"
    seen = []
    run = he.train(
        "patterns", preset="small", out=out, device="cpu", networks=2, progress=seen.append
    )
    assert seen and seen[-1]["update"] == run.metrics["update"][-1]
    return run


def test_metrics_are_arrays(run):
    metrics = run.metrics
    assert metrics["loss"].shape == (len(metrics["update"]), 2)
    assert metrics["error"][-1].mean() < 0.1 < metrics["error"][0].mean()
    assert (run.folder / "report.html").is_file()


def test_a_network_remembers(run):
    net = run.load(network=1, device="cpu")
    n = net.parameters["w"].shape[0] - 1
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (2, n))
    memory = net.remember(patterns)
    cues = patterns.copy()
    cues[:, : n // 2] = 0
    found = memory.complete(cues)
    assert found.shape == cues.shape
    assert (np.sign(found) != patterns).mean() < 0.1
    # the memory stays as it is, and a blank one knows nothing
    np.testing.assert_array_equal(memory.complete(cues), found)
    assert memory.h.shape == (n + 1, n + 1) and memory.steps > 0
    blank = net.remember(patterns, times=0)
    assert (np.sign(blank.complete(cues)) != patterns)[:, : n // 2].mean() > 0.2
    with pytest.raises(ValueError, match="another network"):
        run.load(network=0, device="cpu")._native.complete(
            memory._native, cues.astype(np.float32)
        )


def test_a_trained_network_is_a_call(run):
    net = run.load(device="cpu")
    metadata = net.metadata
    tensors = {name.replace(".", "_"): value for name, value in net.parameters.items()}
    n = tensors["w"].shape[0]
    y, h = he.numpy.plastic(
        drive=np.zeros((1, 3, n), np.float32),
        rule=metadata["rule"],
        activation=metadata["activation"],
        device="cpu",
        **tensors,
    )
    assert y.shape == (1, 3, n) and not y.any()


def test_a_run_goes_on(tmp_path):
    out = tmp_path / "run"
    he.train("patterns", preset="small", out=out, device="cpu", updates=20, networks=1)
    again = he.train("patterns", preset="small", out=out, resume=True, updates=40)
    assert again.metrics["update"][-1] == 40


def test_a_sweep_is_a_run_for_every_combination(tmp_path):
    sweep = he.train(
        "patterns",
        preset="small",
        out=tmp_path,
        device="cpu",
        networks=1,
        updates=3,
        sweep={"eta": [0.01, 0.1], "schedule.rate": [1e-3]},
    )
    assert len(sweep) == 2 and sweep.keys == ("eta", "schedule.rate")
    for values, run in sweep:
        assert f"eta = {values['eta']}" in (run.folder / "config.toml").read_text()
        assert run.metrics["update"][-1] == 3
    with pytest.raises(ValueError, match="clip: found -1"):
        he.train("patterns", out=tmp_path / "other", sweep={"clip": [-1.0]})


@pytest.mark.parametrize(
    "call, kind, words",
    [
        (lambda folder: he.train("patern"), ValueError, "patterns"),
        (lambda folder: he.train("patterns", preset="tiny"), ValueError, "quick"),
        (lambda folder: he.train("patterns", updtes=3), ValueError, "updates"),
        (lambda folder: he.train("patterns", resume=True), ValueError, "out"),
        (lambda folder: he.load(folder), ValueError, "run"),
        (lambda folder: he.load(folder / "none"), (ValueError, OSError), "none"),
    ],
)
def test_what_is_refused(call, kind, words, tmp_path):
    with pytest.raises(kind) as caught:
        call(tmp_path)
    assert words in str(caught.value)


def test_a_network_that_is_not_there(run):
    with pytest.raises(ValueError, match="below 2"):
        run.load(network=2)


def command(*arguments, **options):
    arguments = [sys.executable, "-m", "hebbian_engine", *arguments]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)


def test_the_command_is_the_command(run):
    found = command("--version")
    assert found.returncode == 0 and found.stdout.startswith("hebbian ")
    found = command("eval", str(run.folder), "--json", "--device", "cpu")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["schema"].startswith("hebbian.eval")
    assert command("train", "patern").returncode == 2
    script = os.path.join(os.path.dirname(sys.executable), "hebbian")
    assert subprocess.run([script, "--version"], capture_output=True).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_an_interrupt_saves_everything(tmp_path):
    out = tmp_path / "run"
    code = f"""
import hebbian_engine as he
try:
    he.train("patterns", out={str(out)!r}, device="cpu", progress=lambda r: print(r["update"], flush=True))
except KeyboardInterrupt:
    y, _ = he.numpy.plastic([[0.5]], 0.0, 0.1, [[[1.0]]], device="cpu")
    print("interrupted", float(y[0, 0, 0]) > 0)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    text, _ = child.communicate(timeout=60)
    assert "interrupted True" in text, text
    assert list((out / "checkpoints").iterdir())
