"""Training runs, and what they trained."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from . import _native

__all__ = ["Memory", "Network", "Run", "Sweep", "load", "train"]


class Run:
    """A run's folder and what it recorded."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = pathlib.Path(folder)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Records of training by their names: update (R,), loss (R, P), error (R, P), ... ."""
        records = []
        with open(self.folder / "metrics.jsonl", encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    records.append(json.loads(line))
        names = dict.fromkeys(name for record in records for name in record)
        whole = [name for name in names if all(name in record for record in records)]
        return {name: np.array([record[name] for record in records]) for name in whole}

    def load(self, network: int = 0, update: str | int = "final", device: str = "auto") -> Network:
        """One of its trained networks."""
        return load(self.folder, network, update, device)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


class Sweep:
    """Runs of every combination of some settings."""

    def __init__(self, runs: dict[tuple, Run], keys: tuple[str, ...]):
        #: The settings that differ.
        self.keys = keys
        #: Each run by its values of them.
        self.runs = runs

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Run]]:
        for values, run in self.runs.items():
            yield dict(zip(self.keys, values)), run

    def __len__(self) -> int:
        return len(self.runs)


def _setting(key: str, value: Any) -> str:
    if key in _native.network_settings():
        key = f"network.{key}"
    # a text in double quotes is the same in JSON and in TOML
    return f"{key}={json.dumps(value)}"


def train(
    task: str,
    *,
    preset: str | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
    settings: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    **top: Any,
) -> Run | Sweep:
    """Trains a population of networks, as ``hebbian train`` does.

    Args:
        task: patterns, images, omniglot, maze, cue-reward, copy or custom.
        preset: A preset of the task.
        out: The run's folder; the first free ``runs/TASK-N`` where there is none.
        resume: Whether the run in `out` goes on.
        progress: Is called with each record.
        settings: Changed settings by their keys, such as ``{"network.eta": 0.1}``. Those of the network
            may leave out ``network.``.
        sweep: Values of settings, such as ``{"eta": [0.01, 0.1]}``. Every combination is a run in a
            folder of its own under `out` (``runs/TASK-sweep`` where there is none), one after another.
        top: Changed settings as keywords: ``networks=5``, ``updates=1000``, ``device="cpu"``.

    Returns:
        The run, or with `sweep` all of them. On Ctrl-C everything is saved before KeyboardInterrupt
        is raised.
    """
    changed = {**(settings or {}), **top}
    if sweep:
        folder = pathlib.Path(f"runs/{task}-sweep" if out is None else out)
        runs: dict[tuple, Run] = {}
        for values in itertools.product(*sweep.values()):
            these = {**changed, **dict(zip(sweep, values))}
            name = ",".join(f"{key}={value}" for key, value in zip(sweep, values))
            run = train(
                task,
                preset=preset,
                out=folder / name.replace("/", "_"),
                resume=resume,
                progress=progress,
                settings=these,
            )
            assert isinstance(run, Run)
            runs[values] = run
        return Sweep(runs, tuple(sweep))
    texts = [_setting(key, value) for key, value in changed.items()]
    if resume and out is None:
        raise ValueError("out: not given, wanted the folder of the run to go on with")
    record = None if progress is None else lambda text: progress(json.loads(text))
    return Run(_native.train(task, preset, texts, out, resume, record))


class Network:
    """One trained network."""

    def __init__(self, native: _native.Network):
        self._native = native

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Its parameters by the names of the case format."""
        return self._native.parameters()

    @property
    def metadata(self) -> dict[str, str]:
        """Its rule, activation and clip, as metadata of the case format."""
        return dict(self._native.metadata)

    def remember(
        self, stimuli: Any, memory: Memory | None = None, times: int | None = None
    ) -> Memory:
        """Shows stimuli (K, numbers) one after another, to a blank memory or a given one.

        Numbers of patterns are -1 and 1, those of pictures run from -1 to 1. Pictures may come as
        (K, rows, columns). The given memory stays as it is.
        """
        native = None if memory is None else memory._native
        return Memory(self, self._native.remember(_rows(stimuli), native, times))


class Memory:
    """What a network remembers."""

    def __init__(self, network: Network, native: _native.Memory):
        self._network = network
        self._native = native

    @property
    def steps(self) -> int:
        """Steps lived so far."""
        return self._native.steps

    @property
    def h(self) -> np.ndarray:
        """The trace H (N, N)."""
        return self._native.h

    def complete(self, cues: Any) -> np.ndarray:
        """What the network makes of cues (K, numbers), in which 0 is hidden, each by itself.

        The memory stays as it is.
        """
        shape = np.shape(cues)
        return self._network._native.complete(self._native, _rows(cues)).reshape(shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file that ``hebbian recall --memory`` reads."""
        self._native.save(path)


def _rows(stimuli: Any) -> np.ndarray:
    array = np.ascontiguousarray(stimuli, dtype=np.float32)
    if array.ndim < 2 or array.shape[0] == 0:
        raise ValueError(f"stimuli: found shape {array.shape}, wanted (K, numbers)")
    return array.reshape(array.shape[0], -1)


def load(
    run: str | os.PathLike[str],
    network: int = 0,
    update: str | int = "final",
    device: str = "auto",
) -> Network:
    """A trained network of a run.

    Args:
        run: The run's folder.
        network: Which of its networks, from 0.
        update: final, last, best, or the update of a checkpoint.
        device: Where it runs: auto, cpu, gpu or gpu:INDEX.
    """
    return Network(_native.load(run, network, str(update), device))
