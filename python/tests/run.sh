#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own, and tests it there: the package's
# source is not on Python's path. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
env=$PWD/target/python
if ! [ -x "$env/bin/python" ]; then
  python3 -m venv "$env" || {
    echo "python3 has no venv: install it (on Debian: apt-get install python3-venv)" >&2
    exit 1
  }
fi
"$env/bin/pip" install --quiet --requirement python/tests/requirements.txt
rm -rf target/wheels
"$env/bin/maturin" build --release --quiet --manifest-path python/Cargo.toml --out target/wheels
"$env/bin/pip" install --quiet --force-reinstall --no-deps target/wheels/*.whl
size=$(stat -c %s target/wheels/*.whl)
echo "wheel: $size bytes"
[ "$size" -lt 15000000 ] || { echo "a wheel of at least 15 MB" >&2; exit 1; }
cd python/tests
"$env/bin/python" -m pytest --quiet -p no:cacheprovider "$@"
# the examples, small
cd "$(mktemp -d)"
for example in "patterns.py --updates 3 --bits 30" "own_rule.py --updates 3" "memory_task.py --iterations 3" \
  "omniglot.py --updates 2" "sweep.py --updates 20" "rewarded_rule.py --updates 3"; do
  "$env/bin/python" "$OLDPWD/../examples/"$example > /dev/null
done
