"""From a finding to what it supports, in words that one can defend.

- A finding is evidence for one of two propositions. How strongly, is graded by rules that stand
  here, and no grade is above "moderate": the detector's false-alarm rate was measured on too few
  photos, and its hit rate on fills of other origin is too low, for more.
- No wording says that a photo was or was not edited, and none gives a probability of it: that
  depends on how many of the photos looked at were.
- A photo without a trace supports neither proposition, as most fills of other origin are missed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from overpaint.detection.result import WHOLE, WHOLE_EDIT, percent, probability
from overpaint.report.contents import Finding, Opinion
from overpaint.report.stability import SHIFT, STAYS, Tried

PROPOSITION = "A part of this photo was filled in by an inpainting method."
ALTERNATIVE = "No part of this photo was filled in by an inpainting method."

LIMITS = (
    "The detector looks for statistical traces of inpainting. Other edits (montage, moved content, "
    "retouching, colour, whole generated pictures) are not what it was made for, and may or may "
    "not leave a trace.",
    "A photo without a trace may have been edited: see what the detector is known to miss.",
    "A false-alarm rate is the share of untouched photos of a test set that are marked. It is not "
    "the probability that this photo was edited, which depends on how many of the photos looked at "
    "were.",
    "Scores of different detectors, and of photos of different quality bands, are not to be "
    "compared.",
    "The views are worked out from the decoded pixels. They show where to look and prove nothing "
    "by themselves.",
    "Marks and metadata can be removed and forged. That there are none says nothing.",
)


_VERDICTS = ("strong trace", "inconclusive", "no trace found")


def finding_of(said: Mapping[str, Any]) -> Finding:
    """From the record of a detection (`detection.report.record`)."""
    return Finding(
        model=said["model"],
        verdict=said["band"],
        reason=None if said["band"] in _VERDICTS else said["false_alarm_note"],
        score=said["score"],
        calibrated=said["calibrated"],
        quality=said["quality"],
        threshold=said["threshold"],
        window=said["window"],
        fraction=said["fraction"],
        num_regions=said["num_regions"],
        false_alarm_rate=said["false_alarm_rate"],
        false_alarm_bound=said["false_alarm_bound"],
        num_photos=said["num_photos"],
        false_alarm_note=said["false_alarm_note"],
        edits=dict(said["edits"]),
        notes=list(said["notes"]),
    )


def extent(finding: Finding) -> str:
    """What is marked: "3.1 % of the photo in 2 regions"."""
    if not finding.num_regions:
        return "nothing" if not finding.fraction else f"{percent(finding.fraction)} in specks"
    regions = "1 region" if finding.num_regions == 1 else f"{finding.num_regions} regions"
    return f"{percent(finding.fraction)} of the photo in {regions}"


def false_alarms(finding: Finding) -> str:
    """The false-alarm rate of the photo's quality band in one sentence."""
    threshold = probability(finding.threshold)
    at = f"At the threshold {threshold}, for photos of the quality {finding.quality}"
    if finding.false_alarm_rate is None:
        return f"{at}, the false-alarm rate is unknown: {finding.false_alarm_note}."
    said = (
        f"{at}, {percent(finding.false_alarm_rate)} of untouched photos have more than 1 % of "
        "their area marked"
    )
    if finding.false_alarm_bound is not None:
        bound = percent(finding.false_alarm_bound)
        said += f"; {finding.num_photos} photos bound the rate by {bound} with 95 % confidence"
    return f"{said}."


def opinion(
    finding: Finding, others: Sequence[Finding], tried: Sequence[Tried], largest: float | None
) -> Opinion:
    """finding: of the photo; others: of each detector, where `finding` is their mean. largest:
    share of the largest region that stays after the shift by one pixel; None without a region."""
    verdicts = [one.verdict for one in others] or [finding.verdict]
    reasons = [false_alarms(one) for one in (others or [finding])]
    whole = finding.fraction > WHOLE
    stays = largest is not None and largest >= STAYS
    if "strong trace" in verdicts:
        alone = all(v == "strong trace" for v in verdicts)
        reasons += _against(whole, stays, alone, finding, tried)
        grade = "moderate support" if stays and alone and not whole else "limited support"
        words = (
            f"The finding gives {grade} for the first proposition over the second: a trace like "
            f"that of inpainting, {extent(finding)}, above a threshold that few untouched photos "
            "reach."
        )
    elif "inconclusive" in verdicts:
        grade = "no support either way"
        words = (
            f"Inconclusive: what is seen ({extent(finding)} above the threshold) is more than in "
            "most untouched photos and less than the threshold of a trace asks for. It supports "
            "neither proposition."
        )
    elif "no trace found" in verdicts:
        grade = "no support either way"
        words = (
            "No trace was found. As most fills of other origin are missed, that supports neither "
            "proposition."
        )
    else:
        grade = "no statement"
        reasons = [f"{one.model}: {one.reason}" for one in (others or [finding]) if one.reason]
        words = f"No statement can be made: {verdicts[0]}. What is shown below is not a finding."
    return Opinion(grade, PROPOSITION, ALTERNATIVE, words, reasons)


def _against(
    whole: bool, stays: bool, alone: bool, finding: Finding, tried: Sequence[Tried]
) -> list[str]:
    """What takes weight from a strong trace, and what does not, in words."""
    found = []
    if whole:
        found.append(f"The trace covers {WHOLE_EDIT}.")
    moved = next((t for t in tried if t.change.name == SHIFT), None)
    if moved is None or moved.mask is None:
        found.append("Whether the region stays when the photo is shifted could not be tried.")
    elif stays:
        found.append("The largest region stays when the photo is shifted by one pixel.")
    else:
        found.append("The largest region goes when the photo is shifted by one pixel.")
    if not alone:
        found.append("The detectors do not agree.")
    for kind, rate in sorted(finding.edits.items(), key=lambda item: (-item[1], item[0])):
        if rate >= 0.05:
            found.append(f"{percent(rate)} of photos with {kind} and without inpainting reach it.")
    return found
