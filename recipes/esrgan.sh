#!/usr/bin/env bash
# The super-resolution GANs that redraw photos for the universal data (overpaint.data.superresolution),
# from npm: MIT, Copyright 2022 Kevin Scott. Needs npm; 130 MB.
#
#   recipes/esrgan.sh [FOLDER]      default: runs/esrgan, as in the recipes
#
# The files must not be committed. A package whose content differs from the one used in training is
# refused.
set -euo pipefail
FOLDER=${1:-runs/esrgan}
SHA256="\
b53070ff01363e74d33138106dcc72b58d341c9fb7e8fd648554a4e7744142b5  upscalerjs-esrgan-slim-1.0.0.tgz
367471ded0629387b9aabc75183be0b80d39d46c3f509945ebde4f5bf7a49627  upscalerjs-esrgan-medium-1.0.0.tgz
3d38971084d8281bf68da443085c7eb65355fb28aa81b33b54f950cca6328a15  upscalerjs-esrgan-thick-1.0.0.tgz"

mkdir -p "$FOLDER"
cd "$FOLDER"
for size in slim medium thick; do
  package=upscalerjs-esrgan-$size-1.0.0.tgz
  [ -f "$package" ] || npm pack --silent "@upscalerjs/esrgan-$size@1.0.0"
  grep "$package" <<< "$SHA256" | sha256sum --check
  mkdir -p "$size"
  tar -xzf "$package" -C "$size" --strip-components=1 package/LICENSE
  tar -xzf "$package" -C "$size" --strip-components=2 package/models
done
