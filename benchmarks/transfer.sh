#!/bin/bash
# Everything that the networks which ship are made of, and the errors of each and of their means: some four
# hours of one core.
#
#   bash benchmarks/transfer.sh mp_megnet_2018.jsonl.gz matbench_gvrh_part.jsonl.gz [CORES]
#
# Stopped, it goes on where it was when it is given again: finished runs and files are kept. Runs lie in multirun/, data in
# study_data/. docs/network.md has what it gave.
set -eu
megnet=${1:?give mp_megnet_2018.jsonl.gz} gvrh=${2:?give matbench_gvrh_part.jsonl.gz} cores=${3:-$(nproc)}
data=study_data
run() { python benchmarks/run_queue.py "$1" --cores "$cores" --unpinned --seconds 86400 --runs multirun; }
mkdir -p $data
[ -f $data/mp20.jsonl.gz ] || python benchmarks/small_crystals.py "$megnet" $data/mp20.jsonl.gz
[ -f $data/more_shear_moduli.jsonl.gz ] || python benchmarks/more_shear_moduli.py "$gvrh" $data/more_shear_moduli.jsonl.gz
run benchmarks/queues/transfer_labelling.txt
[ -f $data/mp20_moduli.jsonl.gz ] ||
    python benchmarks/pseudo_labels.py $data/mp20.jsonl.gz $data/mp20_moduli.jsonl.gz --models multirun/labelling/*_[0-9]
run benchmarks/queues/transfer.txt
for target in k_vrh formation_energy gap; do
    python benchmarks/ensemble.py multirun/transfer/${target}_[0-9] --json benchmarks/results/transfer_$target.json
done
python benchmarks/ensemble.py multirun/transfer/moduli_[0-9] --target g_vrh --json benchmarks/results/transfer_g_vrh.json
