"""Losses, as functions of logits or images; none lives inside a network."""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor, mask: Tensor, gamma: float = 2.0, positive_weight: float = 1.0
) -> Tensor:
    """Focal loss (Lin et al. 2017; NIX-Net eq. 4, which has no class weight), mean over pixels.

    logits, mask: (b, 1, h, w), mask in {0, 1} with 1 = inpainted; positive_weight: of inpainted
    pixels against 1 of the others. -> scalar.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    # The bound keeps the derivative of a root (gamma below 1) finite where nothing is wrong.
    probability_of_error = (1 - torch.exp(-cross_entropy)).clamp(min=1e-12)
    loss = probability_of_error**gamma * cross_entropy
    return (loss * (1 + (positive_weight - 1) * mask)).mean()


def soft_iou_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - intersection over union of probability and mask, mean over the inpainted pictures.

    Rahman and Wang 2016. Unlike a weight of inpainted pixels it has no preferred share of doubtful
    pixels: it takes in as many as raise each picture's IoU. logits, mask: (b, 1, h, w), as in
    `focal_loss`. -> scalar; pictures without an inpainted pixel, whose IoU is not defined, are
    left out, and a batch of these alone gives 0.
    """
    probability, mask = torch.sigmoid(logits).flatten(1), mask.flatten(1)
    intersection = (probability * mask).sum(dim=1)
    union = (probability + mask - probability * mask).sum(dim=1)
    inpainted = mask.amax(dim=1)
    loss = (1 - intersection / union.clamp(min=1)) * inpainted
    return loss.sum() / inpainted.sum().clamp(min=1)


def weighted_cross_entropy(logits: Tensor, target: Tensor, positive_weight: float) -> Tensor:
    """Binary cross-entropy, its mean weighted by `positive_weight` where the target is 1, else 1.

    The weights are divided by their sum, so their ratio alone counts. logits, target: of one shape,
    target in {0, 1}. -> scalar.
    """
    weight = 1 + (positive_weight - 1) * target
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return cross_entropy / weight.sum()


def balanced_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy in which the two classes of the batch count alike (median frequency weights).

    Eigen and Fergus 2015. logits, mask: (b, 1, h, w), as in `focal_loss`. -> scalar: the mean of
    the two classes' means, or the plain mean where there is one class only.
    """
    share = mask.mean()
    weight = torch.where(mask == 1, 0.5 / share, 0.5 / (1 - share))
    weight = torch.where((share > 0) & (share < 1), weight, 1.0)
    return F.binary_cross_entropy_with_logits(logits, mask, weight)


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice coefficient of probability and mask, mean over the pictures (Milletari et al. 2016).

    With squares below and 1 added above and below, so that an untouched picture has a loss: it
    counts any alarm. logits, mask: (b, 1, h, w), as in `focal_loss`. -> scalar.
    """
    probability, mask = torch.sigmoid(logits).flatten(1), mask.flatten(1)
    both = 2 * (probability * mask).sum(dim=1) + 1
    either = (probability.square() + mask.square()).sum(dim=1) + 1
    return (1 - both / either).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Negative of the adversarial term of NIX-Net eq. 1, which D maximises; takes logits."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating form of the adversarial term for G (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss (Lim and Ye 2017): real logits above 1, fake ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """The generator's side of the hinge and of the Wasserstein loss: -D."""
    return -fake.mean()


def gradient_square(output: Tensor, image: Tensor) -> Tensor:
    """Squared norm of the gradient of each picture's summed output: (b,), itself differentiable.

    image: (b, c, h, w), a leaf that requires a gradient. Half its mean is the R1 penalty (Mescheder
    et al. 2018); its root against 1 is that of WGAN-GP (Gulrajani et al. 2017).
    """
    (gradient,) = torch.autograd.grad(output.float().sum(), image, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in (b, c, h, w): along rows plus along columns."""
    across = (image[..., 1:] - image[..., :-1]).abs().mean()
    return across + (image[..., 1:, :] - image[..., :-1, :]).abs().mean()


def euclidean(reconstruction: Tensor, image: Tensor) -> Tensor:
    """||G(I) - I||_2 of eq. 1: the norm of each picture's error, mean over the batch.

    Not squared and not divided by the number of pixels: at 128 px and 30 dB it is about 7, which
    with the paper's factor 0.1 balances the adversarial term.
    """
    return (reconstruction - image).flatten(1).norm(dim=1).mean()


def absolute(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute error times the square root of the size: L1 on the scale of `euclidean`."""
    return (reconstruction - image).abs().mean() * image[0].numel() ** 0.5
