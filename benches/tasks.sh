#!/usr/bin/env bash
# The README's table of tasks: seconds that each takes and the scores it ends with, on the CPU.
# Usage: benches/tasks.sh > benches/runs/DATE-MACHINE/tasks.txt
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet
runs=$(mktemp -d)
trap 'rm -r "$runs"' EXIT
n=0
task() {
  n=$((n + 1))
  echo "== train $*"
  local start=$EPOCHREALTIME
  target/release/hebbian train "$@" --device cpu --quiet --out "$runs/$n"
  echo "$EPOCHREALTIME $start" | awk '{ printf "seconds %.1f\n\n", $1 - $2 }'
}
task patterns
task patterns --preset small
task images
task patterns --preset paper --updates 500
