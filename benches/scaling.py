"""How the time of one update grows: with T, B and N, over rules, threads and instructions.

    cargo build --release
    python benches/scaling.py benches/runs/DATE-DEVICE [--series "rule texts"]

Every point is measured `--rounds` times in turn with the others of its series, the best of
each round taken and their median written to `scaling.json` and `scaling.md` (named after the series
where one is asked for).
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

BINARY = Path(__file__).parent.parent / "target" / "release" / "hebbian"
# rules that run by the general plan
TEXTS = ("covariance", "bcm", "pre-trace", "abcd", "delta", "soft-clip")
# name, and points: (label, arguments, environment)
SERIES = [
    ("T, at N=100 B=16", [(t, {"steps": t}, {}) for t in (30, 100, 300)]),
    ("B, at N=100 T=50", [(b, {"batch": b, "steps": 50}, {}) for b in (8, 24, 80)]),
    ("N, at T=20 B=2", [(n, {"neurons": n, "steps": 20, "batch": 2}, {})
                        for n in (128, 400, 1280)]),
    ("threads, at N=100 T=100 B=16", [(k, {}, {"RAYON_NUM_THREADS": str(k)}) for k in (1, 2)]),
    ("threads, at N=1001 T=50 B=1", [
        (k, {"neurons": 1001, "steps": 50, "batch": 1}, {"RAYON_NUM_THREADS": str(k)})
        for k in (1, 2)]),
    ("rule, at N=100 T=100 B=16", [(r, {"rule": r}, {}) for r in
                                   ("decay", "none", "oja", "modulated", "retroactive")]
     + [("modulated, clip", {"rule": "modulated", "clip": 1}, {})]),
] + [
    (f"rule, at N={n} T={t} B={b}", [
        (label, {"neurons": n, "steps": t, "batch": b} | rule, {}) for label, rule in
        (("decay", {}), ("decay, clip", {"clip": 1}), ("modulated", {"rule": "modulated"}),
         ("modulated, clip", {"rule": "modulated", "clip": 1}))])
    for n, t, b in ((51, 11, 256), (1001, 50, 1))
] + [
    (f"rule texts, at N={n} T={t} B={b}", [
        (label, {"neurons": n, "steps": t, "batch": b, "updates": 5} | rule, {}) for label, rule in
        [("decay", {}), ("decay, clip", {"clip": 1})] + [(r, {"rule": r}) for r in TEXTS]])
    for n, t, b in ((100, 100, 64), (1001, 106, 4))
] + [
    ("instructions, at N=100 T=100 B=16", [("widest", {}, {}),
                                           ("avx2", {}, {"HEBBIAN_SIMD": "avx2"})]),
]
DEFAULTS = {"neurons": 100, "steps": 100, "batch": 16, "updates": 9}


def measure(changes, environment):
    sizes = DEFAULTS | changes
    arguments = [str(BINARY), "bench", "--device", "cpu", "--json", "--quiet"]
    for key, value in sizes.items():
        arguments += [f"--{key}", str(value)]
    out = subprocess.run(arguments, env=os.environ | environment, check=True,
                         capture_output=True, text=True)
    return json.loads(out.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--series", default="", help="only series whose name begins so")
    options = parser.parse_args()
    raw, lines = {}, []
    for name, points in SERIES:
        if not name.startswith(options.series):
            continue
        records = {str(label): [] for label, _, _ in points}
        for _ in range(options.rounds):
            for label, changes, environment in points:
                records[str(label)].append(measure(changes, environment))
        raw[name] = records
        first = None
        lines += [f"| {name} | seconds | times the first |", "| --- | --- | --- |"]
        for label, found in records.items():
            seconds = statistics.median(r["seconds_best"] for r in found)
            first = first or seconds
            lines.append(f"| {label} | {seconds:.5f} | {seconds / first:.2f} |")
        lines.append("")
    options.folder.mkdir(parents=True, exist_ok=True)
    stem = options.series.replace(" ", "_") or "scaling"
    (options.folder / f"{stem}.json").write_text(json.dumps(raw, indent=1))
    (options.folder / f"{stem}.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
