#!/bin/bash
# Runs as many trainings of a list as fit on a machine that is available for a limited time, and packs their small results.
#
#   bash benchmarks/device_study.sh CORES SECONDS [LIST] [GPU_WORKERS]
#
# One run a core, one thread each; GPU_WORKERS of them (default 5 where there is a GPU, else 0) use the GPU. Reads study_data/
# (conf/study/completeness.yaml says how it is made; study_data/e_form_seed0.ckpt is the network to fine-tune) and wheels of
# missing packages in .whl/, if it is there. Runs lie in $RUNS (default multirun/), and a second call goes on.
# Writes $OUT/study.tar.gz (metrics, predictions, logs) and $OUT/weights.tar.gz (checkpoints without optimizer).
# SECONDS is the time for everything: setting up takes about a minute of it, and half a minute is kept for the end.
set -u
cores=$1 seconds=$2 list=${3:-benchmarks/queues/device.txt}
out=${OUT:-multirun} runs=${RUNS:-multirun} python=${PYTHON:-python3}
site=${SITE:-/tmp/potnet_site}
begin=$(date +%s)
if [ -d .whl ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl || exit 1
fi
# Runs record the version of this package, which is read from its metadata.
mkdir -p "$site/potnet-0.1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: potnet\nVersion: 0.1.0\n' >"$site/potnet-0.1.0.dist-info/METADATA"
export PYTHONPATH=$PWD/src:$site OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
export POTNET_CACHE=${POTNET_CACHE:-/tmp/potnet_cache} PYTHONUNBUFFERED=1
gpu_workers=${4:-$("$python" -c 'import torch; print(5 if torch.cuda.is_available() else 0)')}
# What cannot work should fail at once.
"$python" -m potnet.train --cfg job >/dev/null || exit 1
echo "set up: $(($(date +%s) - begin)) s, $gpu_workers workers use the GPU"
if [ -n "${PREPARE-benchmarks/queues/prepare.txt}" ]; then
    "$python" benchmarks/run_queue.py "${PREPARE-benchmarks/queues/prepare.txt}" --cores "$cores" --unpinned --seconds 90 \
        --runs "$runs" >/dev/null
    grep -h '^features' "$runs"/logs/prepare_*.log
    echo "features: $(($(date +%s) - begin)) s"
fi
"$python" benchmarks/run_queue.py "$list" --cores "$cores" --gpu-workers "$gpu_workers" \
    --seconds $((seconds - ($(date +%s) - begin) - 30)) \
    --runs "$runs" --results "$out/study.tar.gz" --weights "$out/weights.tar.gz" --export '[pt]*'
echo "all: $(($(date +%s) - begin)) s"
ls -l "$out"/*.tar.gz
