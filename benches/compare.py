"""Seconds per update and peak memory, hebbian beside its peers, in one run.

    cargo build --release
    python benches/compare.py benches/runs/DATE-DEVICE      # needs torch and jax

Runs every shape on every program in turn, `--rounds` times, takes medians over rounds (so
that a machine whose speed drifts treats all alike), and writes `update.json` and
`update.md` into the folder.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHAPES = [(1001, 106, 1), (1001, 106, 4), (100, 100, 64), (51, 11, 256)]
PEERS = {
    "torch eager": ("torch_step.py", []),
    "torch compile": ("torch_step.py", ["--compile"]),
    "torch P form": ("torch_step.py", ["--p-form"]),
    "jax": ("jax_step.py", []),
    "jax checkpoint": ("jax_step.py", ["--checkpoint"]),
}
# without these PyTorch's large tensors are mapped and unmapped at every step
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "34359738368",
    "MALLOC_TOP_PAD_": "268435456",
}


def command(program, shape):
    n, t, b = map(str, shape)
    sizes = ["--neurons", n, "--steps", t, "--batch", b]
    if program == "hebbian":
        binary = str(ROOT / "target" / "release" / "hebbian")
        return [binary, "bench", "--device", "cpu", "--json", "--quiet", *sizes]
    script, flags = PEERS[program]
    return [sys.executable, str(ROOT / "benches" / "peers" / script), *sizes, *flags]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default=",".join(["hebbian", *PEERS]))
    options = parser.parse_args()
    programs = options.programs.split(",")
    results = {}
    for round_ in range(options.rounds):
        for shape in SHAPES:
            for program in programs:
                environment = os.environ | (MALLOC if program != "hebbian" else {})
                # these compile for up to minutes, or are far behind: once is enough
                if program in ("torch compile", "jax", "jax checkpoint") and round_ > 0:
                    continue
                try:
                    out = subprocess.run(command(program, shape), env=environment, check=True,
                                         capture_output=True, text=True, timeout=420)
                    record = json.loads(out.stdout.splitlines()[-1])
                except (subprocess.SubprocessError, json.JSONDecodeError) as error:
                    record = {"failed": str(error)[:200]}
                print(shape, program, record, file=sys.stderr, flush=True)
                results.setdefault(f"{shape}", {}).setdefault(program, []).append(record)

    options.folder.mkdir(parents=True, exist_ok=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.processor())
    environment = {"cpu": cpu, "threads": os.cpu_count(), "system": platform.platform()}
    with open(options.folder / "update.json", "w") as file:
        json.dump({"environment": environment, "results": results}, file, indent=1)
    peers = [program for program in programs if program != "hebbian"]
    lines = ["| N, T, B | " + " | ".join(programs) + " | times the fastest |",
             "| --- " * (len(programs) + 2) + "|"]
    for shape in SHAPES:
        cells, medians = [], {}
        for program in programs:
            good = [r for r in results[f"{shape}"][program] if "failed" not in r]
            if not good:
                cells.append("failed")
                continue
            medians[program] = statistics.median(r["seconds_per_update"] for r in good)
            memory = max(r["peak_memory_bytes"] for r in good)
            cells.append(f"{medians[program]:.4f} s, {memory / 2**20:.0f} MiB")
        fastest = min((medians[p] for p in peers if p in medians), default=0)
        cells.append(f"{fastest / medians.get('hebbian', float('inf')):.1f}")
        lines.append(f"| {shape[0]}, {shape[1]}, {shape[2]} | " + " | ".join(cells) + " |")
    (options.folder / "update.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
