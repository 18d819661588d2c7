#!/usr/bin/env bash
# Kills training with SIGKILL at random moments and resumes it, then compares the end with
# a run that nobody disturbed: final parameters byte for byte, every record of
# metrics.jsonl but its seconds. Then kills training that writes a checkpoint after every
# update, and looks for torn, lost or left-over files after each resume.
#
#   benches/kill_resume.sh [KILLS] [KILLS WHILE WRITING] [SEED]   (HEBBIAN: another binary)
set -euo pipefail
kills=${1:-50}
writing=${2:-1000}
RANDOM=${3:-1}
hebbian=${HEBBIAN:-$(cd "$(dirname "$0")/.." && pwd)/target/release/hebbian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# a random time from 0 to $1 milliseconds, in seconds
moment() {
  local ms=$((RANDOM % $1))
  printf '%d.%03d' $((ms / 1000)) $((ms % 1000))
}

# starts "$@" in the background and kills it after $after seconds; 0 if it was still at work
killed_after() {
  "$hebbian" "$@" > "$work/out" 2> "$work/err" &
  local id=$!
  sleep "$after"
  kill -9 "$id" 2> "$work/kill" || true
  local code=0
  wait "$id" 2> /dev/null || code=$?
  case $code in
    137) return 0 ;;
    0) return 1 ;;
    *) echo "exit code $code:" >&2; cat "$work/err" >&2; exit 1 ;;
  esac
}

records() { sed 's/"seconds":[^,}]*//' "$1/metrics.jsonl"; }

same_end() {
  cmp "$work/calm/checkpoints/final.safetensors" "$1/checkpoints/final.safetensors"
  cmp <(records "$work/calm") <(records "$1")
}

no_rubbish() {
  local odd
  odd=$(find "$1" -type f | grep -vE '/(config.toml|environment.json|metrics.jsonl|report.html|learning_curve.svg|events.out.tfevents.[^/]*|checkpoints/(final|update-[0-9]+).safetensors)$' || true)
  if [ -n "$odd" ]; then echo "left over: $odd" >&2; exit 1; fi
  local n
  n=$(find "$1/checkpoints" -name 'update-*' | wc -l)
  if [ "$n" -gt 3 ]; then echo "$n checkpoints" >&2; exit 1; fi
}

echo "undisturbed"
run=(patterns --updates 800 --device cpu --quiet --set checkpoint.updates=7)
"$hebbian" train "${run[@]}" --out "$work/calm" > "$work/out"

run_dir=$work/killed
n=0
attempts=0
finished=0
while [ "$n" -lt "$kills" ]; do
  attempts=$((attempts + 1))
  after=$(moment 1500)
  if [ -f "$run_dir/config.toml" ]; then
    command=(train --resume "$run_dir" --device cpu --quiet)
  else
    rm -rf "$run_dir"
    command=(train "${run[@]}" --out "$run_dir")
  fi
  if killed_after "${command[@]}"; then
    n=$((n + 1))
  else
    # it ended before the kill: once more from the start
    finished=$((finished + 1))
    same_end "$run_dir"
    rm -rf "$run_dir"
  fi
done
"$hebbian" train --resume "$run_dir" --quiet > "$work/out"
same_end "$run_dir"
no_rubbish "$run_dir"
echo "$n kills in $attempts starts, $((finished + 1)) runs to the end: each ends with the same bytes"

run_dir=$work/writing
run=(patterns --preset small --updates 1000000 --device cpu --quiet --set checkpoint.updates=1)
n=0
torn=0
last=0
while [ "$n" -lt "$writing" ]; do
  after=$(moment 120)
  if [ -f "$run_dir/config.toml" ]; then
    command=(train --resume "$run_dir" --quiet)
  else
    rm -rf "$run_dir"
    command=(train "${run[@]}" --out "$run_dir")
  fi
  killed_after "${command[@]}" && n=$((n + 1))
  [ -d "$run_dir/checkpoints" ] || continue
  newest=$(find "$run_dir/checkpoints" -name 'update-*.safetensors' | sed 's/.*update-//; s/.safetensors//' | sort -n | tail -1)
  if [ "${newest:-0}" -lt "$last" ]; then echo "lost: $last, then ${newest:-none}" >&2; exit 1; fi
  last=${newest:-0}
  unfinished=$(find "$run_dir" -name '.hebbian-*' | wc -l)
  torn=$((torn + unfinished))
done
# going on takes the last checkpoint, which must be whole, and clears up
"$hebbian" train --resume "$run_dir" --updates "$((last + 1))" --quiet > "$work/out"
no_rubbish "$run_dir"
echo "$n kills while writing, up to update $last: no checkpoint torn or lost;" \
  "$torn half-written files under temporary names, all cleared away by the next start"
