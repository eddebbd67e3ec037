"""Training of EdgeConnect: its phases, and its losses against values worked out by hand."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.edgeconnect import EdgeConnect
from overpaint.layers.patchgan import PatchDiscriminator
from overpaint.layers.perceptual import Backbone
from overpaint.training.distributed import Processes
from overpaint.training.inpainting.edgeconnect import (
    EdgeConnectLoss,
    EdgeConnectTask,
    find_features,
)

EDGES, REAL_EDGES, JOINT = 2, 3, 4
"""Steps in each of the three phases."""


class Gain(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.value * x


class Simple(nn.Module):
    """A discriminator with one feature, 2 x, and the logits 3 x."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Gain(2.0), nn.LeakyReLU(0.2), Gain(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Itself(Backbone):
    """The picture is its only feature."""

    perceptual_layers = ("picture",)
    style_layers = ("picture",)

    def forward(self, image: Tensor, layers: object) -> dict[str, Tensor]:
        return {"picture": image}


def wrong_by(logits: Tensor) -> float:
    """Cross-entropy of logits and the label 0."""
    return (1 + logits.exp()).log().mean().item()


class TestEdgeConnectTask(InpaintingTaskContract):
    inpainter = "edgeconnect"
    model: ClassVar = {"width": 4, "num_blocks": 1}
    loss: ClassVar = {
        "perceptual_weight": 0,
        "style_weight": 0,
        "edge_steps": REAL_EDGES,
        "real_edge_steps": 1,
        "discriminator_width": 4,
    }
    step = JOINT

    def parts(
        self, photos: PhotoSource, **loss: float
    ) -> tuple[EdgeConnectTask, EdgeConnect, dict[str, Tensor]]:
        task = self.task(photos, **loss)
        assert isinstance(task, EdgeConnectTask)
        return task, task.model, self.batch(task)

    def test_the_defaults_are_as_published(self) -> None:
        loss = EdgeConnectLoss()
        assert (loss.edge_adversarial_weight, loss.feature_matching_weight) == (1, 10)
        features = (loss.perceptual_weight, loss.style_weight)
        assert (loss.l1_weight, *features, loss.adversarial_weight) == (1, 0.1, 250, 0.1)
        assert loss.edge_steps == loss.real_edge_steps == 2_000_000

    @pytest.mark.parametrize(
        ("step", "judged", "trained"),
        [
            (EDGES, ["edge_discriminator"], ["edge_generator"]),
            (REAL_EDGES, ["discriminator"], ["inpaint_generator"]),
            (
                JOINT,
                ["edge_discriminator", "discriminator"],
                ["edge_generator", "inpaint_generator"],
            ),
        ],
    )
    def test_phases(
        self, photos: PhotoSource, step: int, judged: list[str], trained: list[str]
    ) -> None:
        task, model, batch = self.parts(photos)
        (first, loss), *others = task.compute_losses(batch, step)
        assert [first, *(name for name, _ in others)] == ["model", *judged]
        loss.backward()
        reached = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
        assert sorted(reached) == trained

    @pytest.mark.parametrize("step", [REAL_EDGES, JOINT])
    def test_it_paints_along_real_edges_and_then_along_predicted_ones(
        self, photos: PhotoSource, step: int
    ) -> None:
        task, model, batch = self.parts(photos)
        image, mask = batch["image"], batch["mask"]
        seen: list[Tensor] = []
        model.inpaint_generator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        next(task.compute_losses(batch, step))
        real = model.eval().find_edges(image)
        assert (real * mask).any()
        wanted = real if step == REAL_EDGES else model.run_stages(image, mask).edges
        hole = mask == 1
        found = seen[0][:, 3:]
        # Spectral norm moves a little with each pass in training.
        torch.testing.assert_close(found[hole], wanted[hole], atol=0.02, rtol=0)
        assert torch.equal(found, real) == (step == REAL_EDGES)

    def test_inpainting_losses_reach_the_edge_generator_in_the_joint_phase(
        self, photos: PhotoSource
    ) -> None:
        weights = {"edge_adversarial_weight": 0, "feature_matching_weight": 0}
        task, model, batch = self.parts(photos, **weights)
        next(task.compute_losses(batch, JOINT))[1].backward()
        assert all(p.grad is not None and p.grad.any() for p in model.edge_generator.parameters())

    def test_edge_losses_by_hand(self, photos: PhotoSource) -> None:
        task, model, batch = self.parts(photos)
        task.modules["edge_discriminator"] = Simple()
        image, model_state = batch["image"], {k: v.clone() for k, v in model.state_dict().items()}
        (_, generator), (_, discriminator) = task.compute_losses(batch, EDGES)
        model.load_state_dict(model_state)  # the vectors of spectral norm as they were
        predicted = model.run_stages(image, batch["mask"]).predicted.detach()
        red, green, blue = image.unbind(1)
        grey = (0.2125 * red + 0.7154 * green + 0.0721 * blue)[:, None]
        real, fake = (torch.cat([grey, x], 1) for x in (model.find_edges(image), predicted))
        # Features are 2 x and 3 x; grey is half of what is compared, and equal.
        matching = (2 + 3) * (predicted - model.find_edges(image)).abs().mean().item() / 2
        assert generator.item() == pytest.approx(wrong_by(-3 * fake) + 10 * matching, rel=1e-5)
        wanted = (wrong_by(-3 * real) + wrong_by(3 * fake)) / 2
        assert discriminator.item() == pytest.approx(wanted, rel=1e-5)

    def test_inpainting_losses_by_hand(self, photos: PhotoSource) -> None:
        task, model, batch = self.parts(photos)
        task.modules["discriminator"] = Simple()
        image, mask = batch["image"], batch["mask"]
        (_, generator), (_, discriminator) = task.compute_losses(batch, REAL_EDGES)
        fill = model.paint(image, model.find_edges(image), mask).detach()
        l1 = (fill - image).abs().sum() / (3 * mask.sum())  # of all pixels, by the hole's number
        wanted = l1.item() + 0.1 * wrong_by(-3 * fill)
        assert generator.item() == pytest.approx(wanted, rel=1e-5)
        wanted = (wrong_by(-3 * image) + wrong_by(3 * fill)) / 2
        assert discriminator.item() == pytest.approx(wanted, rel=1e-5)

    def test_the_style_is_that_of_the_hole(self, photos: PhotoSource) -> None:
        weights = {"l1_weight": 0, "adversarial_weight": 0}
        task, model, batch = self.parts(photos, **weights)
        task.backbone = Itself()
        task.terms = task.terms.model_copy(update={"perceptual_weight": 0.1, "style_weight": 250})
        image, mask = batch["image"], batch["mask"]
        loss = next(task.compute_losses(batch, REAL_EDGES))[1].item()
        fill = model.paint(image, model.find_edges(image), mask).detach()
        grams = [
            torch.einsum("bchw,bdhw->bcd", x, x) / x[0].numel() for x in (fill * mask, image * mask)
        ]
        style = (grams[0] - grams[1]).abs().mean().item()
        perceptual = (fill - image).abs().mean().item()
        assert loss == pytest.approx(0.1 * perceptual + 250 * style, rel=1e-5)

    def test_discriminators_learn_at_a_tenth_of_the_rate(self, photos: PhotoSource) -> None:
        run = self._run(photos)
        with Processes("cpu") as processes:
            run.train_step(self.batch(run.task), processes)  # type: ignore[arg-type]
        rates = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
        for name in ("edge_discriminator", "discriminator"):
            assert rates[name] == pytest.approx(rates["model"] / 10)


def test_features_are_activations_and_logits() -> None:
    discriminator = PatchDiscriminator(2, width=4).eval()
    x = torch.rand(1, 2, 64, 64)
    *activated, logits = find_features(discriminator, x)
    assert [tuple(f.shape[1:]) for f in activated] == [
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
        (32, 7, 7),
    ]
    assert torch.equal(logits, discriminator(x))
    first = torch.nn.functional.conv2d(x, discriminator.layers[0].weight, stride=2, padding=1)  # type: ignore[arg-type]
    torch.testing.assert_close(activated[0], torch.where(first > 0, first, 0.2 * first))
