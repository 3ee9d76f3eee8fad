#!/usr/bin/env bash
# Train on all GPUs of a machine: one process each, started and, should one die, restarted by torchrun.
#
#   examples/multi_gpu.sh SHARDS [OUT [OPTIONS OF THE TRAINER]]
#   examples/multi_gpu.sh shards/scale_4x runs/all_gpus --model standard --batch-size 16
#
# The batch size is that of each process: 8 GPUs with 16 patches make steps of 128. PROCESSES is their number (default:
# the GPUs or, without any, the CPUs). OUT is the folder of the run. After an interruption, run the same command again:
# it continues. Several machines: docs/how-to/multiple-gpus.md.
#
# Time: 100 steps of `ultra_lite` with 2 x 8 patches of 64 px take 10 s of CPU time. Hardware: GPUs; tested in two
# processes on a CPU with 2 cores, not with NCCL. Output there, on 723 samples of 256 px, among others:
#
#   Device   cpu (1 threads), bfloat16 autocast; 1 data worker, 2.5 MB shared memory
#   Ranks    2 processes, 8 patches per step each
#   step 100/100, 88.62 steps/s, loss 0.0238, lr 9.1e-05, 1418 patches/s, data wait 4.5%
#   bicubic  24.72 dB  0.4492  23.39 dB  0.4150
#   network  24.50 dB  0.4555  23.15 dB  0.4220
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: $0 SHARDS [OUT [OPTIONS OF THE TRAINER]]" >&2
    exit 2
fi
out=${2:-runs/all_gpus}
run=(--out "$(dirname "$out")" --run "$(basename "$out")")
if [ -f "$out/config.yaml" ]; then
    run+=(--resume)
else
    run+=(--shards "$1" --save-every 500 "${@:3}")
fi
torchrun --standalone --nproc-per-node "${PROCESSES:-auto}" --max-restarts 3 -m -- trainer "${run[@]}"
