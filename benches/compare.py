"""Seconds per update and peak memory, hebbian beside its peers, in one run.

    cargo build --release
    python benches/compare.py benches/runs/DATE-DEVICE      # needs torch and jax
    python benches/compare.py benches/runs/DATE-DEVICE --device gpu  # on NVIDIA, also triton

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
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
# N, T, B, P
SHAPES = {
    "cpu": [(1001, 106, 1, 1), (1001, 106, 4, 1), (100, 100, 64, 1), (51, 11, 256, 1)],
    "gpu": [(1001, 106, 32, 1), (1001, 106, 128, 1), (100, 100, 132, 1), (100, 100, 1024, 1),
            (128, 100, 1056, 1), (100, 100, 16, 64)],
}
PEERS = {
    "torch eager": ("torch_step.py", []),
    "torch compile": ("torch_step.py", ["--compile"]),
    "torch graphs": ("torch_step.py", ["--graphs"]),
    "torch P form": ("torch_step.py", ["--p-form"]),
    "triton": ("triton_step.py", []),
    "jax": ("jax_step.py", []),
    "jax checkpoint": ("jax_step.py", ["--checkpoint"]),
}
ON_NVIDIA = ("torch graphs", "triton")
# without these PyTorch's large tensors are mapped and unmapped at every step
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "34359738368",
    "MALLOC_TOP_PAD_": "268435456",
}


def command(program, shape, device):
    """None where the peer has no such case: populations are hebbian's alone."""
    n, t, b, p = shape
    # of short updates more, for a steady median
    updates = min(150, max(5, 10**9 // (n * n * t * b * p)))
    n, t, b, p = map(str, shape)
    sizes = ["--neurons", n, "--steps", t, "--batch", b, "--updates", str(updates)]
    if program == "hebbian":
        binary = str(ROOT / "target" / "release" / "hebbian")
        sizes += ["--networks", p]
        return [binary, "bench", "--device", device, "--json", "--quiet", *sizes]
    if p != "1":
        return None
    script, flags = PEERS[program]
    if script == "torch_step.py" and device == "gpu":
        flags = [*flags, "--device", "cuda"]
    return [sys.executable, str(ROOT / "benches" / "peers" / script), *sizes, *flags]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--programs")
    options = parser.parse_args()
    usual = [peer for peer in PEERS if options.device == "gpu" or peer not in ON_NVIDIA]
    programs = options.programs.split(",") if options.programs else ["hebbian", *usual]
    shapes = SHAPES[options.device]
    results = {}
    options.folder.mkdir(parents=True, exist_ok=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.processor())
    environment = {"cpu": cpu, "threads": os.cpu_count(), "system": platform.platform()}
    for round_ in range(options.rounds):
        for shape in shapes:
            for program in programs:
                arguments = command(program, shape, options.device)
                variables = os.environ | (MALLOC if program != "hebbian" else {})
                # far behind, or compiled for minutes: once is enough
                once = ("torch graphs", "jax", "jax checkpoint")
                if arguments is None or (program in once and round_ > 0):
                    continue
                # what ran before may still be giving back its memory and its helpers
                time.sleep(5)
                try:
                    out = subprocess.run(arguments, env=variables, check=True,
                                         capture_output=True, text=True, timeout=420)
                    record = json.loads(out.stdout.splitlines()[-1])
                    if program == "hebbian" and options.device == "gpu":
                        # as for the peers: the device's memory, not the process's
                        record["peak_memory_bytes"] = record["planned_memory_bytes"]
                except (subprocess.SubprocessError, json.JSONDecodeError) as error:
                    record = {"failed": str(error)[:200]}
                print(shape, program, record, file=sys.stderr, flush=True)
                results.setdefault(f"{shape}", {}).setdefault(program, []).append(record)
                with open(options.folder / "update.json", "w") as file:
                    json.dump({"environment": environment, "results": results}, file, indent=1)

    peers = [program for program in programs if program != "hebbian"]
    lines = ["| N, T, B, P | " + " | ".join(programs) + " | times the fastest |",
             "| --- " * (len(programs) + 2) + "|"]
    for shape in shapes:
        cells, medians = [], {}
        for program in programs:
            records = results[f"{shape}"].get(program, [])
            good = [r for r in records if "failed" not in r]
            if not good:
                cells.append("failed" if records else "")
                continue
            medians[program] = statistics.median(r["seconds_per_update"] for r in good)
            memory = max(r["peak_memory_bytes"] for r in good)
            cells.append(f"{medians[program]:.4f} s, {memory / 2**20:.0f} MiB")
        fastest = min((medians[p] for p in peers if p in medians), default=0)
        cells.append(f"{fastest / medians.get('hebbian', float('inf')):.1f}" if fastest else "")
        lines.append(f"| {', '.join(map(str, shape))} | " + " | ".join(cells) + " |")
    (options.folder / "update.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
