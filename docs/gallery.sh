#!/usr/bin/env bash
# Draws every picture and page that the program makes, of small runs, into a new folder, and index.html there,
# which shows them all: docs/gallery.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?usage: docs/gallery.sh FOLDER}")
cd "$(dirname "$0")/.."
mkdir "$folder"
cargo build --release --quiet
hebbian() { cargo run --release --quiet -- "$@"; }
train() {
  echo "$1 $2" >&2
  hebbian "$1" "$2" --device cpu --quiet --out "$folder/$3" "${@:4}" >/dev/null
}
train train images images --updates 150 --set task.cycles=1 --set task.shown=5
train train patterns patterns --updates 300 --networks 3 --set task.bits=64
train train omniglot omniglot --updates 30 --set task.channels=8
train train copy copy --updates 300 --set task.length=5 --set task.delay=10 --set task.neurons=32
train train maze maze --updates 20 --set network.rule=modulated --set task.size=9
train train cue-reward cue-reward --updates 20
train train patterns sweep --updates 60 --set task.bits=48 --networks 3 \
  --sweep schedule.rate=1e-3,1e-2 --sweep network.eta=0.01,0.1
train compare patterns compare --updates 60 --set task.bits=32
for run in images patterns copy maze cue-reward; do
  hebbian inspect "$folder/$run" --device cpu --quiet >/dev/null
done
for run in images patterns; do
  hebbian recall "$folder/$run" capacity --most 5 --episodes 20 --device cpu --quiet >/dev/null
done
for run in images patterns copy; do
  hebbian export "$folder/$run" --page "$folder/$run/page.html" --quiet
done
recall() {
  hebbian recall "$folder/$1" present "$2" --device cpu --quiet >/dev/null
  hebbian recall "$folder/$1" complete "$2" --hide bottom --device cpu --quiet >/dev/null
}
recall images docs/page/off-light.png
printf '1100101001101001%.0s' 1 2 3 4 >"$folder/pattern.txt"
recall patterns "$folder/pattern.txt"

cd "$folder"
# files of these kinds; those of a study's members look as other runs' do
drawn() {
  for kind in "$@"; do
    find . -name "*.$kind" -not -name index.html -not -path './sweep/*/*' -not -path './compare/*/*'
  done | sort
}
{
  cat <<'HTML'
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>All that the program draws</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; margin: 1rem; overflow-wrap: anywhere } iframe, img { max-width: 100%; border: 1px solid } iframe { width: 100%; height: 36rem }</style>
<h1>All that the program draws</h1>
HTML
  drawn png svg |
    while read -r file; do echo "<h2>$file</h2><img src=\"$file\" alt=\"$file\">"; done
  drawn html |
    while read -r file; do echo "<h2><a href=\"$file\">$file</a></h2><iframe src=\"$file\" title=\"$file\"></iframe>"; done
} >index.html
echo "$folder/index.html"
