#!/usr/bin/env bash
# Builds everything and runs every test. The GPU tests need an adapter: where there is
# none, installs Mesa's software Vulkan driver with the system's package manager.
set -euo pipefail
cd "$(dirname "$0")/.."

adapters() {
  cargo run --release --quiet -- devices --json | grep -q '"device":"gpu:'
}

cargo build --release
if ! adapters; then
  echo "no GPU adapter: installing a software Vulkan driver" >&2
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  if command -v apt-get >/dev/null; then
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq mesa-vulkan-drivers libvulkan1
  elif command -v dnf >/dev/null; then
    $as_root dnf install -y mesa-vulkan-drivers vulkan-loader
  elif command -v pacman >/dev/null; then
    $as_root pacman -S --noconfirm vulkan-swrast vulkan-icd-loader
  else
    echo "no package manager known here: install a Vulkan driver and its loader" >&2
    exit 1
  fi
  adapters || { echo "still no GPU adapter; the GPU tests would fail" >&2; exit 1; }
fi
cargo test --release --no-fail-fast --package hebbian --package hebbian-core "$@"
# narrower vectors, where there are any, and single numbers
devices=$(cargo run --release --quiet -- devices --json)
case "$devices" in
  *'"instructions":"AVX-512"'*)
    HEBBIAN_SIMD=avx2 cargo test --release --no-fail-fast --test it -- \
      random_shapes fixtures --skip fixtures::gpu ;;
  *'"instructions":"'*) ;;
  *) echo "no instructions named: $devices" >&2; exit 1 ;;
esac
HEBBIAN_SIMD=scalar cargo test --release --no-fail-fast --test it -- \
  fixtures --skip fixtures::gpu
# the Python package, as a wheel
bash python/tests/run.sh
# the page of a trained network, in a browser
bash tests/page/run.sh
