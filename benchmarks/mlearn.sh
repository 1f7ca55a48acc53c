#!/bin/bash
# Runs benchmarks/mlearn.py on a machine that may lack packages: wheels in .whl/ are used where they are there.
#   bash benchmarks/mlearn.sh DATA CORES SECONDS [more arguments]
set -u
data=$1 cores=$2 seconds=$3; shift 3
out=${OUT:-.} runs=${RUNS:-multirun/mlearn} python=${PYTHON:-python3} site=${SITE:-/tmp/potnet_site}
begin=$(date +%s)
if [ -d .whl ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl || exit 1
fi
# Runs record the version of this package, which is read from its metadata.
mkdir -p "$site/potnet-0.1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: potnet\nVersion: 0.1.0\n' >"$site/potnet-0.1.0.dist-info/METADATA"
export PYTHONPATH=$PWD/src:$site OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
export POTNET_CACHE=${POTNET_CACHE:-/tmp/potnet_cache} PYTHONUNBUFFERED=1
# What cannot work should fail at once.
"$python" -m potnet.train experiment=mlearn data.path="$data" --cfg job >/dev/null || exit 1
echo "set up: $(($(date +%s) - begin)) s"
"$python" benchmarks/mlearn.py "$data" --cores "$cores" --seconds $((seconds - ($(date +%s) - begin))) \
    --runs "$runs" --output "$out/mlearn.tar.gz" "$@"
echo "all: $(($(date +%s) - begin)) s"
