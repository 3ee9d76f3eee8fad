#!/usr/bin/env bash
# Fine-tune a published network on your own photos, and compare it with what it was before.
#
#   examples/fine_tune.sh WEIGHTS PHOTOS [OUT [OPTIONS OF THE TRAINER]]
#   examples/fine_tune.sh realesr-general-x4v3.pth ~/photos build/fine_tune --steps 5000
#
# WEIGHTS is a file of any network that `trainer --init` accepts: realesr-general-x4v3.pth, realesr-animevideov3.pth or
# RealESRGAN_x4plus.pth of Real-ESRGAN, and those of its architectures and of spandrel's on OpenModelDB. With SCALE=2
# before the command, the network is one for 2x; with SIZE=256, HR has 256 px. The steps are 1000 unless --steps says
# otherwise, the loss is L1. That of networks trained against a discriminator makes their results smoother: for sharp
# ones, add `--preset compact-finetune` (SRVGGNetCompact) or `--preset realesrgan`. Both need the weights of VGG19.
#
# Time: 200 steps of 4 patches of 128 px, with 60 photos, take 38 s of CPU time. Hardware: a CPU with 2 cores for small
# networks, a GPU for others. Output of this, in which WEIGHTS was a stand-in for realesr-general-x4v3.pth (the network
# `lite`, trained for 300 steps on LR by `area`), because no published file was at hand:
#
#                               PSNR-Y  SSIM-Y      PSNR    SSIM
#   bicubic                   25.78 dB  0.6491  23.43 dB  0.5867
#   general-x4.pth            25.41 dB  0.6195  23.05 dB  0.5489
#   fine_tune/tuned/best.pth  25.94 dB  0.6713  23.60 dB  0.6001
#
# OUT/compare.html is a page with sliders over the images in which original and result differ most.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 WEIGHTS PHOTOS [OUT [OPTIONS OF THE TRAINER]]" >&2
    exit 2
fi
weights=$1 photos=$2 out=${3:-build/fine_tune} scale=${SCALE:-4}
shards=$out/shards/scale_${scale}x

# A tenth of the photos is for validation; the others have four LR images each, in turn.
python -m shardgen generate -i "$photos" -o "$out/shards" -s "$scale" --size "${SIZE:-512}" --no-up \
    --degradation realesrgan --variants 4 --val-fraction 0.1 --auto
python -m trainer --shards "$shards" --init "$weights" --lr 1e-4 --steps 1000 --out "$out" --run tuned "${@:4}"
python -m trainer evaluate --weights "$weights" --weights "$out/tuned/best.pth" --shards "$shards" \
    --compare-page "$out/compare.html"
