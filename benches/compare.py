"""Seconds per update and peak memory, hebbian beside its peers, in one run.

    cargo build --release
    python benches/compare.py benches/runs/DATE-DEVICE      # needs torch

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
    peer = [sys.executable, str(ROOT / "benches" / "peers" / "torch_step.py"), *sizes]
    return peer + (["--compile"] if program == "torch compile" else [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default="hebbian,torch eager,torch compile")
    options = parser.parse_args()
    programs = options.programs.split(",")
    results = {}
    for round_ in range(options.rounds):
        for shape in SHAPES:
            for program in programs:
                environment = os.environ | (MALLOC if program != "hebbian" else {})
                # compilation takes minutes at T = 106: once is enough
                if program == "torch compile" and round_ > 0:
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
    lines = ["| N, T, B | " + " | ".join(programs) + " |", "| --- " * (len(programs) + 1) + "|"]
    for shape in SHAPES:
        cells = []
        for program in programs:
            good = [r for r in results[f"{shape}"][program] if "failed" not in r]
            if not good:
                cells.append("failed")
                continue
            seconds = statistics.median(r["seconds_per_update"] for r in good)
            memory = max(r["peak_memory_bytes"] for r in good)
            cells.append(f"{seconds:.4f} s, {memory / 2**20:.0f} MiB")
        lines.append(f"| {shape[0]}, {shape[1]}, {shape[2]} | " + " | ".join(cells) + " |")
    (options.folder / "update.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
