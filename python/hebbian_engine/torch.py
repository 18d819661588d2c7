"""A plastic recurrent layer for PyTorch."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from . import _case, _native, functional
from .numpy import precision

__all__ = ["PlasticRNN", "State", "Trajectory"]

#: What a state holds, by the names of the case format: as it is after a call, and before one.
_STARTS = {"y": "y0", "h": "h0", "e": "e0", "v": "v0"}


class State:
    """What networks hold between calls: y (B, N), H (B, N, N) and what else their rule keeps.

    A state that came out of :meth:`PlasticRNN.step` lives where the engine is: each step moves it on,
    and ``state["h"]`` copies the trace out. A state of :meth:`PlasticRNN.forward` holds tensors.
    Gradients pass through its y and h, and not through e, v and the variables of a rule. One thread
    uses a state at a time.
    """

    def __init__(self, owner: object, tensors: dict[str, Tensor] | Blank, life: Any = None):
        self._owner = owner
        self._tensors = tensors
        self._life = life
        #: Where resets go back to, of a state that lives.
        self._start: dict[str, Tensor] | Blank = tensors
        self.trajectory: Trajectory | None = None

    @property
    def batch(self) -> int:
        """B, episodes."""
        if self._life is not None:
            return self._life.given[0]
        tensors = self._tensors
        return tensors.batch if isinstance(tensors, Blank) else tensors["y"].shape[0]

    def __getitem__(self, name: str) -> Tensor:
        tensors = self.tensors()
        if name not in tensors:
            raise KeyError(f"{name}: no such state, wanted one of {', '.join(tensors)}")
        return tensors[name]

    def tensors(self) -> dict[str, Tensor]:
        """All of it, copied out of the engine where it lives there."""
        if self._life is None:
            return _tensors_of(self._tensors)
        held = self._life.native.held()
        return {_case.keyword(name): torch.from_numpy(found) for name, found in held.items()}

    def detach(self) -> State:
        """The state without its past: gradients end here."""
        tensors = {name: tensor.detach() for name, tensor in self.tensors().items()}
        return State(self._owner, tensors)

    def __reduce__(self):
        raise TypeError("a state cannot be pickled; pickle state.tensors(), which layer.state takes")


class Blank:
    """A state before the first step, whose tensors are made when they are asked for."""

    def __init__(self, batch: int, n: int, metadata: dict[str, str], like: Tensor):
        self.batch = batch
        sizes = {"B": batch, "M": n, "N": n}
        starts = _case.starts(metadata)
        self.shapes = {
            _case.keyword(name): ([sizes[axis] for axis in axes], starts.get(name, 0.0))
            for name, axes in _case.axes((), metadata)
            if name != "y"
        }
        self.n, self.dtype, self.device = n, like.dtype, like.device

    def tensors(self) -> dict[str, Tensor]:
        shapes = {"y": ((self.batch, self.n), 0.0), **self.shapes}
        kind = dict(dtype=self.dtype, device=self.device)
        return {name: torch.full(shape, start, **kind) for name, (shape, start) in shapes.items()}


def _tensors_of(held: dict[str, Tensor] | Blank) -> dict[str, Tensor]:
    return held.tensors() if isinstance(held, Blank) else dict(held)


class Trajectory:
    """The steps that a state lived: its start, and what each step was given."""

    def __init__(self, start: State):
        self.start = start
        self.steps: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return len(self.steps)


class _Life:
    """A native life with what it was last given."""

    def __init__(self, native: Any, versions: list, given: tuple):
        self.native = native
        self.versions = versions
        self.given = given


class PlasticRNN(nn.Module):
    """A recurrent layer whose connections change while it lives.

    ``z(t) = y(t-1) (w + alpha H(t)) + obs(t) in_w + in_b``, ``y = activation(z)``, and after each step
    the rule moves H. With ``n_in`` inputs the layer has ``in_w`` and ``in_b``, else it is driven by
    (B, T, N) directly. With ``n_out`` outputs it has a read-out ``out_w`` and ``out_b``.

    Args:
        n_in: Inputs K, or none.
        n: Neurons N.
        n_out: Outputs O, or none.
        rule: The name of a rule (``hebbian rule list``), or a :class:`hebbian_engine.Rule`.
        activation: tanh, sigmoid, relu, linear, softmax, softplus or gelu.
        clip: Bound on the trace, of decay, oja, modulated and retroactive.
        alpha: Whether alpha is one per connection, neuron or network.
        eta: Whether the rate is one per network or neuron, where the rule has one.
        bias: Whether each neuron has a bias: none, neuron or network.
        leak: The initial leak in (0, 1], or none. It is trained; what is used of it is clamped to
            that range.
        leak_kind: rate (of y) or membrane (of z).
        modulation: Where the m of a rule that reads it comes from: ``network`` (a trained read-out of
            y) or ``given`` (with each call).
        truncate: Steps after which gradients are cut, or none.
        device: auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX.
        dtype: torch.float32, or torch.float64, which runs on the CPU.
    """

    def __init__(
        self,
        n_in: int | None = None,
        n: int = 100,
        n_out: int | None = None,
        *,
        rule: str | _native.Rule = "decay",
        activation: str = "tanh",
        clip: float | None = None,
        alpha: str = "connection",
        eta: str = "network",
        bias: str = "none",
        leak: float | None = None,
        leak_kind: str = "rate",
        modulation: str = "network",
        truncate: int | None = None,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        # states belong to the layer that made them
        self._token = object()
        self._own_names: list[str] = []
        self.n_in, self.n, self.n_out, self.device = n_in, n, n_out, device
        self.rule = rule if isinstance(rule, _native.Rule) else _native.Rule(rule)
        self._metadata = _case.metadata_of(
            self.rule,
            activation,
            clip,
            leak_kind if leak is not None else None,
            truncate,
            loss="cotangent",
        )
        self._settings = _case.joined(self._metadata)
        shapes = {"connection": (n, n), "neuron": (n,), "network": (1,), "pre": (n,)}

        def shape(keyword: str, sharing: str) -> tuple:
            if sharing not in shapes:
                wanted = "connection, neuron or network"
                raise ValueError(f"{keyword}: found {sharing!r}, wanted {wanted}")
            return shapes[sharing]

        def parameter(name: str, shape: tuple, spread: float = 0.0, start: float = 0.0) -> None:
            values = torch.full(shape, float(start), dtype=dtype)
            if spread > 0:
                values.uniform_(-spread, spread)
            setattr(self, name, nn.Parameter(values))
            self._own_names.append(name)

        near = 1 / math.sqrt(n)
        parameter("w", (n, n), near)
        parameter("alpha", shape("alpha", alpha), 0.01)
        plain = ("none", "decay", "oja", "modulated", "retroactive", "delta")
        if self.rule.custom or self.rule.name not in plain:
            for name, sharings, init in self.rule.parameters:
                # a rate follows `eta`, where the text leaves the choice
                sharing = eta if name == "rule.eta" and eta in sharings else sharings[0]
                parameter(_case.keyword(name), shape(name, sharing), start=init)
        elif self.rule.name in ("decay", "oja", "retroactive", "delta"):
            parameter("eta", shape("eta", eta), start=0.01)
        if modulation not in ("network", "given"):
            raise ValueError(f"modulation: found {modulation!r}, wanted network or given")
        if self.rule.reads_m and modulation == "network":
            parameter("mod_w", (n,), near)
            parameter("mod_b", (1,))
            parameter("fanout_w", (n,), near)
            parameter("fanout_b", (n,))
        if bias != "none":
            parameter("bias", shape("bias", bias))
        if leak is not None:
            if not 0 < leak <= 1:
                raise ValueError(f"leak: found {leak}, wanted above 0 and at most 1")
            parameter("leak", (n,), start=leak)
        if n_in is not None:
            parameter("in_w", (n_in, n), 1 / math.sqrt(n_in))
            parameter("in_b", (n,))
        if n_out is not None:
            parameter("out_w", (n, n_out), near)
            parameter("out_b", (n_out,))

    def extra_repr(self) -> str:
        return f"n_in={self.n_in}, n={self.n}, n_out={self.n_out}, rule={self.rule.name!r}"

    def _parameters_now(self) -> dict[str, Tensor]:
        """The parameters by the names of the case format."""
        tensors = {}
        for keyword in self._own_names:
            value = getattr(self, keyword)
            if value is None:
                continue
            name = _case.TENSORS.get(keyword, "rule." + keyword[len("rule_") :])
            if name == "leak":
                # outside the range it keeps its gradient, and may come back
                value = value + (value.clamp(1e-6, 1) - value).detach()
            tensors[name] = value
        return tensors

    def _data(self, obs: Tensor, m: Tensor | None, clamp: Tensor | None, axes: int) -> dict:
        """What a call brings, checked; `axes` before the last one."""
        wanted = "B, T" if axes == 2 else "B"
        kind = "K" if self.n_in is not None else "N"
        size = self.n if self.n_in is None else self.n_in
        if not isinstance(obs, Tensor):
            raise TypeError(f"obs: found {type(obs).__name__}, wanted a torch.Tensor")
        if obs.dim() != axes + 1 or obs.shape[-1] != size:
            raise ValueError(
                f"obs: found {tuple(obs.shape)}, wanted ({wanted}, {kind}) with {kind} = {size}"
            )
        data = {"input" if self.n_in is None else "obs": obs}
        for name, value in (("m", m), ("clamp", clamp)):
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: found {type(value).__name__}, wanted a torch.Tensor")
            data["m.input" if name == "m" else name] = value
        if m is None and self.rule.reads_m and "mod_w" not in self._own_names:
            raise ValueError(f"m: not given, wanted ({wanted}) or ({wanted}, N) with each call")
        return data

    def _check(self, state: State, batch: int) -> None:
        if not isinstance(state, State):
            raise TypeError(f"state: found {type(state).__name__}, wanted a State of this layer")
        if state._owner is not self._token:
            raise ValueError("state: found one of another layer, wanted one of this layer")
        if state.batch != batch:
            found = f"{state.batch} episodes"
            raise ValueError(f"state: found {found}, wanted {batch}, as obs has")

    @staticmethod
    def _start(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a state as start values."""
        start = {}
        for name, tensor in tensors.items():
            start[_STARTS.get(name, f"rule.{name[len('rule_'):]}0")] = tensor
        return start

    def forward(
        self,
        obs: Tensor,
        state: State | None = None,
        *,
        m: Tensor | None = None,
        clamp: Tensor | None = None,
        gate_reset: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Runs episodes.

        Args:
            obs: (B, T, K), or the drive (B, T, N) of a layer without inputs.
            state: Where they start; blank where there is none.
            m: Modulation or reward (B, T) or (B, T, N), of a rule that reads m.
            clamp: (B, T, N), 0 or 1; where 1, y is set to the drive.
            gate_reset: (B, T), 0 or 1; where 1, the network goes back before the step to where the
                call began: to `state`, which is blank where there is none.

        Returns:
            The read-out (B, T, O), or y (B, T, N) of a layer without one, and the state after.
        """
        data = self._data(obs, m, clamp, 2)
        if gate_reset is not None:
            data["gate.reset"] = gate_reset
        if state is not None:
            self._check(state, obs.shape[0])
            blank = isinstance(state._tensors, Blank) and state._life is None
            if not blank:
                tensors = state.tensors()
                self._warn_of_cuts(tensors)
                data.update(self._start(tensors))
        found = functional._call({**self._parameters_now(), **data}, self._settings, self.device)
        y, out = found.pop("y"), found.pop("out", None)
        after = {_case.keyword(name): tensor for name, tensor in found.items()}
        after = {"y": y[:, -1], **after}
        return (y if out is None else out), State(self._token, after)

    @staticmethod
    def _warn_of_cuts(tensors: dict[str, Tensor]) -> None:
        """Says where a gradient that seems to go on from call to call does not."""
        cut = [name for name in tensors if name not in ("y", "h")]
        if cut and torch.is_grad_enabled() and tensors["y"].requires_grad:
            warnings.warn(
                f"gradients pass from call to call through y and h, not through {', '.join(cut)}: "
                "run the steps in one call, or go on from state.detach()",
                stacklevel=3,
            )

    def blank(self, batch: int, record: bool = False) -> State:
        """The state of `batch` networks before their first step.

        With `record`, steps from here are kept in ``state.trajectory``, for :meth:`replay`.
        """
        if batch < 1:
            raise ValueError(f"batch: found {batch}, wanted at least 1")
        state = State(self._token, Blank(batch, self.n, self._metadata, self.w))
        if record:
            state.trajectory = Trajectory(State(self._token, state._tensors))
        return state

    def state(self, tensors: dict[str, Tensor]) -> State:
        """The state that holds these tensors, such as :meth:`State.tensors` gave; y at least."""
        known = Blank(1, self.n, self._metadata, self.w).tensors()
        for name, tensor in tensors.items():
            if name not in known:
                raise ValueError(f"{name}: no such state, wanted one of {', '.join(known)}")
            batch = tensors["y"].shape[0] if "y" in tensors else 0
            wanted = (batch, *known[name].shape[1:])
            if tuple(tensor.shape) != wanted:
                raise ValueError(f"{name}: found {tuple(tensor.shape)}, wanted {wanted}")
        if "y" not in tensors:
            raise ValueError("y: not given, wanted (B, N)")
        return State(self._token, dict(tensors))

    def step(
        self,
        obs: Tensor,
        state: State,
        *,
        m: Tensor | None = None,
        clamp: Tensor | None = None,
        gate_reset: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """One step, without a gradient. The traces stay where the engine is.

        Args:
            obs: (B, K), or the drive (B, N) of a layer without inputs.
            state: From :meth:`blank`, :meth:`forward` or the step before. It moves on.
            m: Modulation or reward (B,) or (B, N).
            clamp: (B, N), 0 or 1.
            gate_reset: (B,), 0 or 1; where 1, the network goes back before the step to where the
                state came from: to its beginning by :meth:`blank`, or to what :meth:`forward` gave.

        Returns:
            The read-out (B, O), or y (B, N) of a layer without one, and the state.
        """
        data = self._data(obs, m, clamp, 1)
        batch = obs.shape[0]
        self._check(state, batch)
        rows = None if gate_reset is None else self._rows(gate_reset, batch)
        given = (batch, self._dtype, *[(name, t.shape) for name, t in data.items()])
        arrays = {name: self._numpy(name, t) for name, t in data.items()}
        life = state._life
        if life is None or life.given != given:
            life = self._begin(state, arrays, given)
        elif self._versions() != life.versions or life.native.changed():
            self._send(life, arrays)
        found = life.native.step(arrays, rows)
        state._life = life
        if state.trajectory is not None:
            kept = data if gate_reset is None else {**data, "gate.reset": gate_reset}
            # the caller may write its next observation where this one is
            state.trajectory.steps.append({name: t.detach().clone() for name, t in kept.items()})
        out = torch.from_numpy(found["y" if self.n_out is None else "out"])
        return (out if obs.is_cpu else out.to(obs.device)), state

    @staticmethod
    def _rows(gate_reset: Tensor, batch: int) -> list[bool] | None:
        """Which networks go back; none where none does."""
        if not isinstance(gate_reset, Tensor):
            found = type(gate_reset).__name__
            raise TypeError(f"gate_reset: found {found}, wanted a torch.Tensor")
        if gate_reset.shape != (batch,):
            raise ValueError(f"gate_reset: found {tuple(gate_reset.shape)}, wanted ({batch},)")
        values = gate_reset.tolist()
        for value in values:
            if value not in (0, 1):
                raise ValueError(f"gate_reset: found {value}, wanted 0 or 1")
        return [bool(value) for value in values] if any(values) else None

    def _versions(self) -> list:
        """What changes with the parameters, in most cases; values are compared beside it."""
        found = []
        for name in self._own_names:
            value = getattr(self, name)
            if value is not None:
                version = 0 if value.is_inference() else value._version
                found.append((id(value), value.data_ptr(), version))
        return found

    def _send(self, life: _Life, arrays: dict) -> None:
        """Gives a life the parameters as they are."""
        life.versions = self._versions()
        watched = [getattr(self, name) for name in self._own_names]
        # those of another device are copies, which change with nothing
        watched = [self._numpy("w", t) for t in watched if t is not None and t.is_cpu]
        life.native.set_parameters(self._with_parameters(arrays), self._metadata, watched)

    def _numpy(self, name: str, value: Tensor) -> Any:
        if value.dtype != self._dtype:
            if name not in _case.BITS:
                found, wanted = value.dtype, self._dtype
                raise ValueError(f"{_case.keyword(name)}: found {found}, wanted {wanted}")
            value = value.to(self._dtype)
        if value.is_cpu and value.is_contiguous():
            return value.detach().numpy() if value.requires_grad else value.numpy()
        return value.detach().cpu().contiguous().numpy()

    @property
    def _dtype(self) -> torch.dtype:
        return self.w.dtype

    def _with_parameters(self, arrays: dict) -> dict:
        """Arrays of one step as episodes of one step, with the parameters."""
        steps = {name: array[:, None] for name, array in arrays.items()}
        parameters = self._parameters_now().items()
        return {**{name: self._numpy(name, value) for name, value in parameters}, **steps}

    def _begin(self, state: State, arrays: dict, given: tuple) -> _Life:
        """A life that goes on from a state, and goes back to the state's own beginning."""
        everything = self._with_parameters(arrays)
        if not isinstance(state._start, Blank):
            everything.update(self._start_arrays(state._start))
        now = None
        if state._life is not None:
            now = {**everything, **self._start_arrays(state.tensors())}
        number = precision(everything["w"])
        native = _native.Life(everything, self._metadata, self.device, number, now)
        life = _Life(native, [], given)
        self._send(life, arrays)
        return life

    def _start_arrays(self, tensors: dict[str, Tensor]) -> dict:
        start = self._start(tensors)
        return {name: self._numpy(name, t.to(self._dtype)) for name, t in start.items()}

    def replay(self, trajectory: Trajectory) -> tuple[Tensor, State]:
        """The steps of a trajectory once more, as one batch of episodes, with gradients.

        Returns:
            What :meth:`forward` returns: outputs of all steps (B, T, O or N), and the state after.
        """
        if not isinstance(trajectory, Trajectory):
            found = type(trajectory).__name__
            raise TypeError(f"trajectory: found {found}, wanted that of blank(batch, record=True)")
        if not trajectory.steps:
            raise ValueError("trajectory: found no steps, wanted at least one")
        names = list(dict.fromkeys(name for step in trajectory.steps for name in step))

        def all_steps(name: str) -> Tensor:
            found = next(step[name] for step in trajectory.steps if name in step)
            # nothing was clamped, reset or added to m where it was not given
            absent = torch.zeros_like(found)
            steps = [step.get(name, absent) for step in trajectory.steps]
            if name in _case.BITS:
                steps = [step.to(self._dtype) for step in steps]
            return torch.stack(steps, dim=1)

        data = {name: all_steps(name) for name in names}
        obs = data.pop("input" if self.n_in is None else "obs")
        keywords = {"m.input": "m", "clamp": "clamp", "gate.reset": "gate_reset"}
        rest = {keywords[name]: tensor for name, tensor in data.items()}
        return self.forward(obs, trajectory.start, **rest)
