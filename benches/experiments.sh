#!/usr/bin/env bash
# The README's table of the papers' experiments: five networks of each, on the CPU, with their curves.
# Usage: benches/experiments.sh FOLDER OMNIGLOT [NAME...], such as benches/runs/DATE-MACHINE/experiments;
# OMNIGLOT is a folder with the two small background sets of Omniglot, NAME one of those below (else all).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
out=$(realpath "$1")
data=$(realpath "$2")
only=" ${*:3} "
cargo build --release --quiet
hebbian=$PWD/target/release/hebbian
runs=$(mktemp -d)
trap 'rm -r "$runs"' EXIT
cd "$runs"
task() { # NAME TASK [FLAG...]
  local name=$1
  shift
  [[ $only = "  " || $only = *" $name "* ]] || return 0
  local start=$EPOCHREALTIME
  "$hebbian" train "$@" --device cpu --networks 5 --quiet --json --out "$name" > "$out/$name.json"
  cp "$name/learning_curve.svg" "$out/$name.svg"
  echo "$EPOCHREALTIME $start" |
    awk -v name="$name" '{ printf "%s: five networks in %.0f seconds\n", name, $1 - $2 }' | tee -a "$out/seconds.txt"
}
task copy copy
task cue-reward cue-reward
task cue-reward-plain cue-reward --rule decay
task maze maze
task maze-not-plastic maze --rule none --set network.clip=0
task omniglot omniglot --data "$data"
