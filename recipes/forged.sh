#!/usr/bin/env bash
# Photos filled in by the small inpainters and the classical methods, 256 px, for tests and training.
#
#   recipes/forged.sh DATA                                    20 test photos by each, for measurements
#   recipes/forged.sh DATA FOLDER NUM SEED PART NAME ...      others; PART may be all
#
# They are written to runs/forged/FOLDER/NAME. DATA is as for recipes/run.sh; the inpainters'
# weights are those of its step "inpainters".
set -euo pipefail
DATA=${1:?usage: recipes/forged.sh DATA [FOLDER NUM SEED PART NAME ...]}
shift
if [ $# -eq 0 ]; then
  set -- test 20 0 test safepaint-s glcic-s deepfill_v1-s deepfill_v2-s edgeconnect-s madf-s ctsdg-s \
    aotgan-s lama-s fcf-s telea navier-stokes biharmonic patchmatch
fi
FOLDER=$1 NUM=$2 SEED=$3 PART=()
if [ "$4" != all ]; then PART=(--part "$4"); fi
shift 4
for name in "$@"; do
  model=$name
  if [ -f "benchmarks/weights/$name.safetensors" ]; then
    model=benchmarks/weights/$name.safetensors
  fi
  overpaint forge "$DATA/photos" --inpainter "$model" "${PART[@]}" --num "$NUM" --seed "$SEED" \
    --masks free-form --masks brush --masks lama-medium --masks boxes \
    --masks objects:masks/person --assets "$DATA" --out "runs/forged/$FOLDER/$name"
done
