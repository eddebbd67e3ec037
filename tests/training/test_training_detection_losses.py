"""The loss of each detector against values worked out by hand."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.detection_task_contract import DetectionTaskContract, Redrawn
from overpaint import weights
from overpaint.detectors.base import Findings
from overpaint.detectors.psccnet import Stages
from overpaint.errors import ConfigError
from overpaint.registry import detectors
from overpaint.training.detection.base import DetectorTask, make_detection_task
from overpaint.training.detection.iidnet import IIDNetTask
from overpaint.training.detection.ldicn import LDICNTask
from overpaint.training.detection.mantranet import ManTraNetTask
from overpaint.training.detection.nixnet import NIXNetTask
from overpaint.training.detection.psccnet import PSCCNetTask
from overpaint.training.detection.trufor import TRAINED, TruForTask, confidence_loss

LOG_2, LOG_3 = math.log(2), math.log(3)  # a logit of log 3 is a probability of 3/4
HIT, MISS = math.log(4 / 3), math.log(4)  # cross-entropies of a probability of 3/4


class Says(nn.Module):
    """A detector that finds the same in every picture."""

    def __init__(self, logits: Tensor, **found: Any) -> None:
        super().__init__()
        self.found = Findings(logits, **found)

    def examine(self, image: Tensor) -> Findings:
        return self.found

    def forward(self, image: Tensor) -> Tensor:
        return self.found.logits


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def loss(task: DetectorTask[Any, Any], logits: Tensor, mask: Tensor, **found: Any) -> float:
    task.modules["model"] = Says(logits, **found)
    return task.compute_loss(torch.zeros(1), mask).item()


class TestNIXNetTask(DetectionTaskContract):
    kind = NIXNetTask
    detector = "nixnet"
    model: ClassVar = {"widths": [4, 4, 4]}
    wrong = "focal_gama", "focal_gamma"

    def test_loss_by_hand(self) -> None:
        logits, mask = pixels(LOG_3, 0), pixels(1, 0)
        focal = ((1 / 4) ** 2 * HIT + (1 / 2) ** 2 * LOG_2) / 2
        assert loss(self.made(), logits, mask) == pytest.approx(focal)
        weighted = (3 * (1 / 4) * HIT + (1 / 2) * LOG_2) / 2
        iou = 1 - (3 / 4) / (1 + 1 / 2)
        task = self.made(focal_gamma=1, positive_weight=3, iou_weight=2)
        assert loss(task, logits, mask) == pytest.approx(weighted + 2 * iou)


class TestLDICNTask(DetectionTaskContract):
    kind = LDICNTask
    detector = "ldicn"
    model: ClassVar = {"width": 2}
    wrong = "kimd", "kind"

    def test_loss_by_hand(self) -> None:
        logits, mask = pixels(LOG_3, 0, LOG_3, 0), pixels(1, 0, 0, 0)
        focal = ((1 / 4) ** 2 * HIT + (3 / 4) ** 2 * MISS + 2 * (1 / 2) ** 2 * LOG_2) / 4
        assert loss(self.made(), logits, mask) == pytest.approx(focal)
        plain = (HIT + MISS + 2 * LOG_2) / 4
        assert loss(self.made(kind="cross_entropy"), logits, mask) == pytest.approx(plain)
        # One inpainted pixel counts as much as three untouched ones.
        balanced = (HIT + (MISS + 2 * LOG_2) / 3) / 2
        task = self.made(kind="balanced_cross_entropy")
        assert loss(task, logits, mask) == pytest.approx(balanced)


class TestManTraNetTask(DetectionTaskContract):
    kind = ManTraNetTask
    detector = "mantranet"
    model: ClassVar = {"width": 2, "num_hidden": 2, "windows": [7]}
    wrong = "positive_wieght", "positive_weight"

    def test_loss_by_hand(self) -> None:
        logits, mask = pixels(LOG_3, LOG_3, 0), pixels(1, 0, 1)
        assert loss(self.made(), logits, mask) == pytest.approx((HIT + MISS + LOG_2) / 3)
        weighted = (2 * HIT + MISS + 2 * LOG_2) / 3
        assert loss(self.made(positive_weight=2), logits, mask) == pytest.approx(weighted)


class TestIIDNetTask(DetectionTaskContract):
    kind = IIDNetTask
    detector = "iidnet"
    model: ClassVar = {"width": 2}
    wrong = "focal_alfa", "focal_alpha"

    def test_loss_by_hand(self) -> None:
        inpainted, untouched = ((pixels(LOG_3), pixels(m)) for m in (1, 0))
        hit = (1 / 4) * (1 / 4) ** 2 * HIT
        miss = (3 / 4) * (3 / 4) ** 2 * MISS
        assert loss(self.made(), *inpainted) == pytest.approx(hit + HIT)
        assert loss(self.made(), *untouched) == pytest.approx(miss + MISS)
        assert loss(self.made(cross_entropy_weight=0), *untouched) == pytest.approx(miss)


class Staged(nn.Module):
    def __init__(self, masks: Any, score: Tensor) -> None:
        super().__init__()
        self.found = Stages(masks, score)

    def run_stages(self, image: Tensor) -> Stages:
        return self.found


class TestPSCCNetTask(DetectionTaskContract):
    kind = PSCCNetTask
    detector = "psccnet"
    model: ClassVar = {"stem": 4, "widths": [2, 2, 2, 2]}
    wrong = "score_wieght", "score_weight"
    judges_photos = True

    def staged(self, masks: list[Tensor], score: Tensor, mask: Tensor, **settings: Any) -> float:
        task = self.made(**settings)
        task.modules["model"] = Staged(masks, score)
        return task.compute_loss(torch.zeros(1), mask).item()

    def doubtful(self, num: int) -> list[Tensor]:
        """Four scales of logits 0, whose balanced cross-entropies are log 2 each."""
        return [torch.zeros(num, 1, 8 >> i, 8 >> i) for i in range(4)]

    def test_the_score_by_hand(self) -> None:
        mask = torch.zeros(2, 1, 8, 8)
        mask[0, :, :, :4] = 1
        score = torch.tensor([LOG_3, LOG_3])
        # Three inpainted photos to an untouched one: that one weighs three times as much.
        expected = 4 * LOG_2 + (HIT + 3 * MISS) / 4
        assert self.staged(self.doubtful(2), score, mask) == pytest.approx(expected)
        even = 4 * LOG_2 + 2 * (HIT + MISS) / 2
        settings = {"inpainted_share": 0.5, "score_weight": 2}
        assert self.staged(self.doubtful(2), score, mask, **settings) == pytest.approx(even)

    def test_a_coarse_pixel_is_inpainted_where_more_than_half_of_it_is(self) -> None:
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., :2, :2] = 1
        mask[..., 0, 0] = 0  # three of four
        mask[..., 4:6, 4] = 1  # two of four
        masks = self.doubtful(1)
        masks[1][..., 0, 0] = masks[1][..., 2, 2] = LOG_3
        # Of 16 pixels one is inpainted; of the others, one is held to be.
        half = (HIT + (MISS + 14 * LOG_2) / 15) / 2
        # At 1/4 and 1/8 nothing is left: one class, plain means.
        expected = LOG_2 + half + 2 * LOG_2 + LOG_2
        assert self.staged(masks, torch.zeros(1), mask) == pytest.approx(expected)

    def test_samples_that_would_have_to_be_padded_are_refused(self) -> None:
        run = self.run()
        data = run.data.model_copy(update={"size": 60})
        with pytest.raises(ConfigError, match="multiple of 8"):
            make_detection_task(run.model_copy(update={"data": data}), Redrawn(), Redrawn())


class OfTruFor(DetectionTaskContract):
    kind = TruForTask
    detector = "trufor"
    model: ClassVar = {
        "widths": [8, 8, 8, 8],
        "heads": [1, 1, 1, 1],
        "depths": [1, 1, 1, 1],
        "head_width": 8,
        "noise_width": 4,
    }
    wrong = "dice_wieght", "dice_weight"
    judges_photos = True

    def trained(self, task: DetectorTask[Any, Any]) -> set[str]:
        parts = TRAINED[task.terms.phase]
        return {name for name in super().trained(task) if name.split(".")[0] in parts}


class TestTruForLocalisation(OfTruFor):
    def test_loss_by_hand(self) -> None:
        task, judged = self.made(), {"confidence": pixels(9, 9), "score": torch.zeros(1)}
        cross_entropy = (5 * HIT + LOG_2) / 6
        dice = 1 - (2 * (3 / 4) + 1) / ((3 / 4) ** 2 + (1 / 2) ** 2 + 1 + 1)
        expected = 0.3 * cross_entropy + 0.7 * dice
        logits, mask = pixels(LOG_3, 0), pixels(1, 0)
        assert loss(task, logits, mask, **judged) == pytest.approx(expected)

    def test_noiseprint_can_be_kept_as_it_is(self) -> None:
        task = self.made(freeze_noiseprint=True)
        task.model.train()
        gradients = self.gradients(task, True, False)
        assert {name.split(".")[0] for name in gradients} == {"encoder", "head"}
        assert not task.model.noiseprint.training


class TestTruForConfidence(OfTruFor):
    loss: ClassVar = {"phase": "confidence"}

    @pytest.fixture
    def start_from(self, tmp_path: Path) -> str:
        torch.manual_seed(2)
        model = detectors.create("trufor", **self.model)
        about: dict[str, Any] = dict.fromkeys(("data", "recipe", "commit", "licence"), "")
        about |= {"name": "first", "kind": "detector", "architecture": "trufor"}
        weights.save_weights(tmp_path, model, config=self.model, **about)
        return str(tmp_path / "first.json")

    def test_it_needs_the_first_phase(self) -> None:
        with pytest.raises(ConfigError, match=r"name the localisation's weights: start_from"):
            self.made()

    def test_what_is_frozen_does_not_move(self, task: DetectorTask[Any, Any]) -> None:
        before = deepcopy(task.model.state_dict())
        task.model.train()
        task.compute_loss(**self.batch(True, False))
        moved = {k for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])}
        assert {key.split(".")[0] for key in moved} == {"confidence"}  # its batch norm

    def test_confidence_by_hand(self) -> None:
        # 20 inpainted pixels, then 20 untouched ones; the band takes 7 and 5 of them.
        mask = torch.cat([torch.ones(20), torch.zeros(20)]).reshape(1, 1, 1, -1)
        logits = torch.full_like(mask, LOG_3)
        logits[..., 13:25] = -50
        wrong = confidence_loss(torch.full_like(mask, LOG_3), logits, mask)
        assert wrong.item() == pytest.approx((13 * 0 + 15 * (3 / 4 - 1 / 4) ** 2) / 28)
        doubtful = confidence_loss(torch.zeros_like(mask), logits, mask)
        assert doubtful.item() == pytest.approx(1 / 16)
        thin = pixels(0, 1, 0)
        assert confidence_loss(thin, thin, thin).item() == 0

    def test_confidence_does_not_teach_the_heatmap(self) -> None:
        logits = torch.zeros(1, 1, 9, 9, requires_grad=True)
        confidence = torch.ones(1, 1, 9, 9, requires_grad=True)
        confidence_loss(confidence, logits, torch.ones(1, 1, 9, 9)).backward()
        assert logits.grad is None
        assert confidence.grad is not None

    def test_score_by_hand(self, task: DetectorTask[Any, Any]) -> None:
        mask = torch.ones(2, 1, 20, 20)
        mask[1] = 0
        # Heatmap and confidence are sure and right, so that the score's half is left.
        logits = 100 * (2 * mask - 1)
        judged = {"confidence": torch.full_like(mask, 100), "score": torch.full((2,), LOG_3)}
        score = (0.5 / 0.7 * HIT + 0.5 / 0.3 * MISS) / 2
        assert loss(task, logits, mask, **judged) == pytest.approx(0.5 * score)

    def test_the_figure_is_that_of_what_is_trained(self, task: DetectorTask[Any, Any]) -> None:
        figures = task.validate(task.model.eval())
        assert figures["figure"] == -figures["second_phase_loss"] < 0
        with torch.no_grad():
            task.model.confidence.predict.bias.fill_(-30)  # trusts nothing
        assert task.validate(task.model)["figure"] < figures["figure"]
