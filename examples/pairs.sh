#!/usr/bin/env bash
# Train on pairs of HR and LR images that exist already: folders -> shards -> training -> evaluation, for each scale.
#
#   examples/pairs.sh HR LR [OUT [OPTIONS OF THE TRAINER]]
#   VAL_HR=DIV2K_valid_HR VAL_LR=DIV2K_valid_LR_bicubic/X4 \
#       examples/pairs.sh DIV2K_train_HR DIV2K_train_LR_bicubic/X4 build/pairs --model lite --epochs 100
#
# docs/how-to/pairs.md says by which names pairs are found. VAL_HR and VAL_LR are folders of pairs for validation;
# without them, 2 % of the pairs are kept for it. SIZE is the edge of HR tiles in px (default: by the images).
#
# Time: 300 steps of `ultra_lite` on 60 pairs of 512 px, with SIZE=256, take 61 s of CPU time. Hardware: a CPU with 2
# cores for `ultra_lite`, a GPU for others. Output of this, with LR by MATLAB's bicubic:
#
#             PSNR-Y  SSIM-Y      PSNR    SSIM
#   bicubic  35.17 dB  0.8560  33.67 dB  0.8419
#   network  35.72 dB  0.8643  33.93 dB  0.8462
#
# OUT/scale_4x.html shows the images in which the network differs most from bicubic.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 HR LR [OUT [OPTIONS OF THE TRAINER]]" >&2
    exit 2
fi
out=${3:-build/pairs}

python -m shardgen pack --hr "$1" --lr "$2" -o "$out/shards" ${SIZE:+--size "$SIZE"} \
    ${VAL_HR:+--val "$VAL_HR" --val-lr "$VAL_LR"} --auto
for shards in "$out"/shards/scale_*x; do
    run=${shards##*/}
    python -m trainer --shards "$shards" --out "$out" --run "$run" "${@:4}"
    python -m trainer evaluate --weights "$out/$run/best.pth" --shards "$shards" --compare-page "$out/$run.html"
done
