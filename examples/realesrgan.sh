#!/usr/bin/env bash
# Train as Real-ESRGAN does: photos -> shards with its degradations -> stage 1 (L1) -> stage 2 (with a discriminator).
#
#   examples/realesrgan.sh PHOTOS VGG19 [OUT [OPTIONS OF THE TRAINER, FOR BOTH STAGES]]
#   examples/realesrgan.sh ~/photos vgg19-dcbb9e9d.pth build/realesrgan --model standard
#
# VGG19 is the file of weights for the perceptual loss of stage 2:
#   curl -fLO https://download.pytorch.org/models/vgg19-dcbb9e9d.pth
# Environment: STEPS1 and STEPS2, the steps of the stages (default: 1000000 and 400000, those of Real-ESRGAN, there with
# 48 patches each, here with 12; `--ranks 4` makes it 48); SIZE, the edge of HR in px (default: 512); FIT, `tile` for
# large photos such as those of DIV2K, each cut into tiles of SIZE (default: cover, the centre square of each, resized);
# VAL, a folder of photos for validation (default: 2 % of PHOTOS). After an interruption, run the same command again: it
# continues, with the settings that it was started with.
#
# `--model standard` is the network of RealESRGAN_x4plus; without it, the default of the device is trained.
#
# Time: on an H200, a step of `lite` takes 3 ms in stage 1 and 40 ms in stage 2. Hardware: a GPU. A trial on 2 CPU
# cores, with 60 photos and random weights in place of those of VGG19 (as tests/test_examples.py makes them), took 30 s of CPU time:
#
#   STEPS1=200 STEPS2=20 examples/realesrgan.sh PHOTOS VGG19 OUT --model ultra_lite --batch-size 4 --patch-size 64
#
# Output of it, of the one validation photo:
#
#             PSNR-Y  SSIM-Y      PSNR    SSIM
#   bicubic  20.44 dB  0.2817  18.94 dB  0.2335
#   stage1   20.72 dB  0.2971  19.21 dB  0.2479
#   stage2   20.75 dB  0.2992  19.23 dB  0.2498
#
# In a complete training, PSNR usually falls in stage 2 while images become sharper. OUT/compare.html compares the
# images of both stages, OUT/training.html their curves.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 PHOTOS VGG19 [OUT [OPTIONS OF THE TRAINER]]" >&2
    exit 2
fi
photos=$1 vgg19=$2 out=${3:-build/realesrgan}
[ -f "$vgg19" ] || { echo "$vgg19: no such file; the head of $0 says where to download it" >&2; exit 2; }

stage() { # NAME, then the options of a new run
    if [ -f "$out/$1/config.yaml" ]; then
        python -m trainer --out "$out" --run "$1" --resume
    else
        python -m trainer --out "$out" --run "$@"
    fi
}

python -m shardgen generate -i "$photos" -o "$out/shards" -s 4 --size "${SIZE:-512}" --degradation realesrgan \
    --fit "${FIT:-cover}" ${VAL:+--val "$VAL"} --variants 4 --auto
stage stage1 --shards "$out/shards/scale_4x" --preset realesrnet --steps "${STEPS1:-1000000}" "${@:4}"
stage stage2 --shards "$out/shards/scale_4x" --preset realesrgan --steps "${STEPS2:-400000}" "${@:4}" \
    --init "$out/stage1/model.pth" --perceptual-weights "$vgg19"
python -m trainer report "$out/stage1" "$out/stage2" -o "$out/training.html"
python -m trainer evaluate --weights "$out/stage1/model.pth" --weights "$out/stage2/model.pth" \
    --shards "$out/shards/scale_4x" --compare-page "$out/compare.html"
