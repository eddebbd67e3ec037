"""A backbone for losses worked out by hand."""

from collections.abc import Collection

from torch import Tensor

from overpaint.layers.perceptual import Backbone


class Pixels(Backbone):
    """Its features are the picture's own pixels, in one layer of content and one of style."""

    perceptual_layers = ("content",)
    style_layers = ("style",)

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, image)
