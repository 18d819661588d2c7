#!/usr/bin/env bash
# Tests what `hebbian export` writes: the page in headless Chromium, on WebGPU's software adapter and in
# JavaScript; the engine's kernels in Chromium; the documentation's NumPy lines. Installs what it needs into
# target/page, and Chromium with the system's package manager. With --shots it writes the pictures of
# docs/page instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/page
mkdir -p "$work"

install() {
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  if command -v apt-get >/dev/null; then
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
  elif command -v dnf >/dev/null; then
    $as_root dnf install -y "$@" >&2
  elif command -v pacman >/dev/null; then
    $as_root pacman -S --noconfirm "$@" >&2
  else
    echo "not found, install it with the system's package manager: $*" >&2
    exit 1
  fi
}
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
  install chromium
  browser=$(command -v chromium || command -v chromium-browser)
fi
command -v npm >/dev/null || install nodejs npm

npm install --silent --no-audit --no-fund --no-save --prefix "$work" playwright-core@1.65.1 axe-core@4.14.1
if ! [ -x "$work/python/bin/pip" ]; then
  python3 -m venv "$work/python"
fi
"$work/python/bin/pip" install --quiet numpy==2.2.6 safetensors==0.7.0

cargo build --release --quiet
target=$(cargo metadata --format-version 1 --no-deps | "$work/python/bin/python" -c \
  'import json, sys; print(json.load(sys.stdin)["target_directory"])')
hebbian=$target/release/hebbian
rm -rf "$work/files"
mkdir "$work/files"
export HEBBIAN=$hebbian WORK=$work BROWSER=$browser PYTHON=$work/python/bin/python
train() { "$hebbian" train --quiet --json --device cpu --out "$work/files/$1" "${@:2}" >/dev/null; }
if [ "${1:-}" = --shots ]; then
  train images images
  "$hebbian" export "$work/files/images" --page "$work/files/page.html" --quiet
  PAGE=$work/files/page.html SHOTS=$PWD/docs/page node tests/page/shots.mjs
  # 256 colours tell as much, chosen so that rare ones are among them
  "$work/python/bin/pip" install --quiet pillow==12.0.0
  "$work/python/bin/python" -c 'import sys; from PIL import Image
for path in sys.argv[1:]: Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)' \
    docs/page/*.png
  exit
fi
# small networks, and one by each of the other rules, leaks and activations
train images images --updates 150 --set task.cycles=1 --set task.shown=5
train patterns patterns --updates 300 --set task.bits=90
train copy copy --updates 150 --set task.length=4 --set task.delay=6 --set task.neurons=24
small=(patterns --updates 20 --set task.bits=30 --set task.cycles=1)
train oja "${small[@]}" --rule oja --set network.alpha=neuron --set network.activation=sigmoid \
  --set network.bias=neuron
train modulated "${small[@]}" --rule modulated --set network.clip=0.5 --set network.leak=membrane
train retroactive "${small[@]}" --rule retroactive --set network.alpha=network \
  --set network.leak=rate --set network.activation=softmax --set task.gain=1
train none "${small[@]}" --rule none --set network.activation=relu --set task.gain=1
train linear "${small[@]}" --set network.activation=linear --set task.gain=1
train softplus "${small[@]}" --set network.activation=softplus --set task.gain=1
train gelu "${small[@]}" --set network.activation=gelu --set task.gain=1
"$hebbian" doctor --shaders "$work/files/shaders" >/dev/null
HEBBIAN_JOBS=$work/files/jobs.json cargo test --release --quiet --lib updates_for_a_browser -- --ignored >/dev/null

timeout 1200 node tests/page/page.mjs
