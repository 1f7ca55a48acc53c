#!/usr/bin/env bash
# Everything that needs a GPU, in at most eight minutes, on a machine with PyTorch and this checkout.
#   bash benchmarks/gpu.sh [--output FOLDER] [--seconds 450] [--device cuda|cpu] [--quick]
# Packages that are missing there can be brought as wheels: where there is a package index, `pip wheel -w wheels -c constraints.txt .`
# makes them (for the same Python; remove those of torch, of CUDA and of this package); then WHEELS=wheels here.
# The result is FOLDER/gpu.json, with the name of the device; keep it as benchmarks/results/gpu.json.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
cd "$root/benchmarks"
exec "$python" gpu.py "$@"
