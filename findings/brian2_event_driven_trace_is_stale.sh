#!/usr/bin/env bash
# Brian2 2.9.0: a synaptic trace declared (event-driven), as eligibility traces are.
# Guess: S.trace[:] after a run, and a StateMonitor, give the trace as it has decayed by then.
# Found: both give what the last spike left, 1.0 for 20 ms, without a warning; the same equation
# (clock-driven) gives 0.137 there (exp(-2) = 0.135, a step of 0.1 ms earlier).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet brian2==2.9.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
from brian2 import *

prefs.codegen.target = "numpy"
pre = SpikeGeneratorGroup(1, [0], [1 * ms])
post = NeuronGroup(1, "v : 1", threshold="v > 1", reset="v = 0")
synapses = Synapses(
    pre,
    post,
    """dby_event/dt = -by_event / (10*ms) : 1 (event-driven)
       dby_clock/dt = -by_clock / (10*ms) : 1 (clock-driven)""",
    on_pre="by_event += 1\nby_clock += 1",
    method="exact",
)
synapses.connect()
monitor = StateMonitor(synapses, ["by_event", "by_clock"], record=True)
run(21 * ms)
event, clock = float(synapses.by_event[0]), float(synapses.by_clock[0])
recorded = monitor.by_event[0][20:]
print(f"after 20 ms: event-driven {event}, clock-driven {clock:.4f}, exp(-2) {exp(-2):.4f}")
print("recorded, event-driven:", recorded[::40])
assert event == 1.0 and set(recorded) == {1.0}
assert abs(clock - 0.1367) < 1e-3
PY
echo "as found: an event-driven trace is read as its last event left it"
