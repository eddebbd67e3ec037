"""What a finding supports, in words that an analyst can defend.

- A finding is evidence for one of two propositions. This module grades how strong it is. No grade
  is above "moderate", because the false-alarm rate was measured on too few photos and the hit rate
  on fills of other origin is too low.
- No wording says that a photo was or was not edited, or how probable that is: the probability also
  depends on the share of edited photos among those examined.
- A photo without a trace supports neither proposition: the detector misses most fills of other
  origin.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from overpaint.detection.result import (
    NOTABLE,
    WHOLE,
    WHOLE_EDIT,
    format_percent,
    format_probability,
)
from overpaint.report.contents import EditTest, Finding, Opinion
from overpaint.report.stability import SHIFT, STAYS, Trial

PROPOSITION = "A part of this photo was filled in by an inpainting method."
ALTERNATIVE = "No part of this photo was filled in by an inpainting method."

LIMITS = (
    "The detector looks for statistical traces of inpainting. It was not made for other edits "
    "(montage, moved content, retouching, colour, whole generated pictures), which may or may not "
    "leave a trace.",
    "A photo without a trace may have been edited: see what the detector is known to miss.",
    "A false-alarm rate is the share of untouched photos of a test set that are marked. It is not "
    "the probability that this photo was edited, which also depends on the share of edited photos "
    "among those examined.",
    "Scores of different detectors, or of photos of different quality bands, cannot be compared.",
    "The views are computed from the decoded pixels. They show where to look and prove nothing by "
    "themselves.",
    "Marks and metadata can be removed and forged. Their absence proves nothing.",
)


_VERDICTS = ("strong trace", "inconclusive", "no trace found")


def make_finding(said: Mapping[str, Any]) -> Finding:
    """From the record of a detection (`detection.report.make_record`)."""
    return Finding(
        model=said["model"],
        verdict=said["band"],
        reason=None if said["band"] in _VERDICTS else said["false_alarm_note"],
        doubt=said["doubt"],
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
        edits={kind: EditTest(**count) for kind, count in said["edits"].items()},
        notes=list(said["notes"]),
    )


def describe_extent(finding: Finding) -> str:
    """What is marked: "3.1 % of the photo in 2 regions"."""
    if not finding.num_regions:
        return (
            "nothing" if not finding.fraction else f"{format_percent(finding.fraction)} in specks"
        )
    regions = "1 region" if finding.num_regions == 1 else f"{finding.num_regions} regions"
    return f"{format_percent(finding.fraction)} of the photo in {regions}"


def describe_false_alarms(finding: Finding) -> str:
    """The false-alarm rate of the photo's quality band in one sentence."""
    threshold = format_probability(finding.threshold)
    at = f"At the threshold {threshold}, for photos of the quality {finding.quality}"
    if finding.false_alarm_rate is None:
        return f"{at}, the false-alarm rate is unknown: {finding.false_alarm_note}."
    said = (
        f"{at}, {format_percent(finding.false_alarm_rate)} of untouched photos have more than 1 % "
        "of their area marked"
    )
    if finding.false_alarm_bound is not None:
        bound = format_percent(finding.false_alarm_bound)
        said += f"; {finding.num_photos} photos bound the rate by {bound} with 95 % confidence"
    return f"{said}."


def describe_edits(finding: Finding) -> str:
    """How many untouched photos had a strong trace, by kind of edit: those with any, then the rest
    together."""
    some = {kind: test for kind, test in finding.edits.items() if test.strong_trace}
    said = [f"{kind}: {test} photos" for kind, test in some.items()]
    rest = [kind for kind in finding.edits if kind not in some]
    if rest:
        fewest = min(finding.edits[kind].photos for kind in rest)
        said.append(f"none of {fewest} photos or more each: {', '.join(rest)}")
    return "; ".join(said)


def form_opinion(
    finding: Finding,
    others: Sequence[Finding],
    tried: Sequence[Trial],
    largest: float | None,
    *,
    chosen: bool = False,
) -> Opinion:
    """finding: of the photo. others: of each detector, where `finding` is that of their mean.
    largest: share of the largest region that stays marked after the shift by one pixel; None
    without a region. chosen: the caller chose the threshold of the mask, which must not raise the
    grade."""
    verdicts = [one.verdict for one in others] or [finding.verdict]
    reasons = [describe_false_alarms(one) for one in (others or [finding])]
    whole = finding.fraction > WHOLE
    at = "its threshold" if not chosen else "the threshold chosen for this report"
    marked = f"At {at}, {describe_extent(finding)} is marked."
    stays = largest is not None and largest >= STAYS
    if "strong trace" in verdicts:
        alone = all(v == "strong trace" for v in verdicts)
        reasons += _list_reasons(whole, largest, alone, finding, tried)
        if chosen:
            reasons.append(
                "The threshold was chosen for this report; what it marks cannot raise the grade."
            )
        firm = stays and alone and not whole and not chosen
        grade = "moderate support" if firm else "limited support"
        words = (
            f"The finding gives {grade} for the first proposition over the second: a trace like "
            f"that of inpainting, above a threshold that few untouched photos reach. {marked}"
        )
    elif "inconclusive" in verdicts:
        grade = "no support either way"
        words = (
            "Inconclusive: what is seen is more than in most untouched photos, but not enough for "
            f"a strong trace. It supports neither proposition. {marked}"
        )
        doubts = [one.doubt for one in (others or [finding]) if one.doubt]
        reasons += [f"{doubt[0].upper()}{doubt[1:]}." for doubt in dict.fromkeys(doubts)]
    elif "no trace found" in verdicts:
        grade = "no support either way"
        words = (
            "No trace was found. That supports neither proposition, as the detector misses most "
            "fills of other origin."
        )
    else:
        grade = "no statement"
        reasons = [f"{one.model}: {one.reason}" for one in (others or [finding]) if one.reason]
        words = f"No statement can be made: {verdicts[0]}. What is shown below is not a finding."
    return Opinion(grade, PROPOSITION, ALTERNATIVE, words, reasons)


def _list_reasons(
    whole: bool, largest: float | None, alone: bool, finding: Finding, tried: Sequence[Trial]
) -> list[str]:
    """What weakens a strong trace, and what does not, in words."""
    found = []
    if whole:
        found.append(f"The trace covers {WHOLE_EDIT}.")
    moved = next((t for t in tried if t.change.name == SHIFT), None)
    if moved is None or moved.mask is None:
        found.append("Whether the region stays when the photo is shifted could not be tried.")
    elif largest is None:
        found.append("No region is marked that could stay when the photo is shifted.")
    elif largest >= STAYS:
        found.append("The largest region stays when the photo is shifted by one pixel.")
    else:
        found.append("The largest region goes when the photo is shifted by one pixel.")
    if not alone:
        found.append("The detectors do not agree.")
    rates = {kind: test.strong_trace / test.photos for kind, test in finding.edits.items()}
    found += [
        f"{finding.edits[kind]} photos with {kind} and without inpainting have one, too."
        for kind in sorted(rates, key=lambda kind: (-rates[kind], kind))
        if rates[kind] >= NOTABLE
    ]
    return found
