#!/usr/bin/env bash
# Brian2 2.9.0 with NumPy 2.4.6, which its metadata (numpy>=1.23.5) allow and pip takes by itself.
# Guess: a release that asks for NumPy without an upper bound imports with this year's.
# Found: importing it raises AttributeError, for it wraps numpy.ndarray.ptp, which NumPy 2.4 has no
# longer; with NumPy 2.3.5 it imports.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install --quiet brian2==2.9.0 numpy==2.4.6
"$pip" check
"$folder/venv/bin/python" - <<'PY'
import importlib.metadata

bounds = [r for r in importlib.metadata.requires("brian2") if r.startswith("numpy")]
print(bounds)
assert bounds == ["numpy>=1.23.5"]
try:
    import brian2
except AttributeError as error:
    print("AttributeError:", error)
    assert "ptp" in str(error)
else:
    raise SystemExit("it imports")
PY
"$pip" install --quiet numpy==2.3.5
"$folder/venv/bin/python" -c 'import brian2; print("with NumPy 2.3.5:", brian2.__version__)'
echo "as found: no import with NumPy 2.4"
