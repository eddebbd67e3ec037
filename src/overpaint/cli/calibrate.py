"""`overpaint calibrate`: fit a detector's thresholds and score, and store them with its weights."""

from typing import Annotated

import typer

from overpaint.cli.problems import Problems
from overpaint.terminal import say

_OF_THRESHOLDS = {
    "bank": "--autoencoder",
    "window": "--window",
    "variants": "--variants",
    "rate": "--rate",
}
"""Options of all but ordinary edits, by parameter."""


def calibrate(
    context: typer.Context,
    weights: Annotated[str, typer.Argument(help="Shipped name or weights file of a detector.")],
    photos: Annotated[
        list[str],
        typer.Option(
            "--photos",
            help="Folder, glob, list or archive of untouched photos; repeatable. Only their "
            "validation split is used.",
        ),
    ],
    bank: Annotated[
        list[str] | None,
        typer.Option(
            "--autoencoder",
            help="Autoencoder that redraws the inpainted samples: name, weights file, or "
            "taef2:FOLDER; repeatable. Default: the shipped ones but the held-out one.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=1,
            help="Side of the window, pixels, odd, that logits are averaged over; 1 for none. "
            "Default: that of the shipped detectors.",
        ),
    ] = None,
    variants: Annotated[
        int,
        typer.Option("--variants", min=1, help="Number of variants of a photo in a quality band."),
    ] = 3,
    rate: Annotated[
        float,
        typer.Option(
            "--rate",
            min=0.0001,
            max=0.5,
            help="False-alarm rate, a share. It needs 1 / rate untouched photos in the validation "
            "split, a tenth of all: about 1,000 photos for 1 %.",
        ),
    ] = 0.01,
    edits: Annotated[
        int | None,
        typer.Option("--edits", min=0, help="Number of photos for ordinary edits. Default: all."),
    ] = None,
    edit_rate: Annotated[
        float,
        typer.Option(
            "--edit-rate",
            min=0,
            max=1,
            help="Share of photos after one kind of ordinary edit that may have a strong trace, "
            "whose threshold is raised where more would; 1 leaves it as it is.",
        ),
    ] = 0.05,
    only_edits: Annotated[
        bool,
        typer.Option("--only-edits", help="Ordinary edits alone, with the calibration there is."),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            help="Photo to leave out, by file name; repeatable. Leave out what training left out.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of variants and masks.")] = 0,
    overwrite_shipped: Annotated[
        bool,
        typer.Option(
            "--overwrite-shipped",
            help="Permission to write over the calibration of weights that come with overpaint.",
        ),
    ] = False,
    device: Annotated[str, typer.Option("--device", help="Device: cpu or cuda.")] = "cpu",
) -> None:
    """Write FILE.calibration.json beside FILE.safetensors, and name it in the weights' record.

    For each quality band: the threshold that at most 1 % of untouched validation photos reach, with
    the bound that their number allows; a lower one for 10 %; that of a strong trace, which at most
    5 % of photos after each kind of ordinary edit (blur, rotation, montage and others) have; and
    the score.

    Exit code 0: all photos were used. 1: some could not be found or searched, the rest is done; or
    the detector could not be calibrated.
    """
    from overpaint.detection.calibration import sigmoid
    from overpaint.evaluation.fit_calibration import WINDOW, add_edits, calibrate_weights
    from overpaint.evaluation.measurement import HELD_OUT, list_autoencoders

    if only_edits:
        _check_without_effect(context)
    problems = Problems()
    if only_edits:
        record, calibration = add_edits(
            weights,
            photos,
            num=edits,
            rate=edit_rate,
            seed=seed,
            exclude=exclude or (),
            overwrite_shipped=overwrite_shipped,
            device=device,
            report=_report,
            problem=problems,
        )
    else:
        if not bank:
            bank = [str(r.path) for r in list_autoencoders() if r.name != HELD_OUT]
        record, calibration = calibrate_weights(
            weights,
            photos,
            bank,
            window=WINDOW if window is None else window,
            variants=variants,
            rate=rate,
            edits=edits,
            edit_rate=edit_rate,
            seed=seed,
            exclude=exclude or (),
            overwrite_shipped=overwrite_shipped,
            device=device,
            report=_report,
            problem=problems,
        )
    say(record.folder / str(record.calibration))
    for name, band in calibration.bands.items():
        strong = ""
        if band.strong_logit is not None:
            strong = f"strong trace from {sigmoid(band.strong_logit):.4f}, "
        say(
            f"{name:<10} threshold {sigmoid(band.threshold_logit):.4f}, "
            f"inconclusive from {sigmoid(band.inconclusive_logit):.4f}, {strong}"
            f"{band.num_untouched} untouched and {band.num_inpainted} inpainted; false alarms "
            f"{band.false_alarm_rate:.2%}, at most {band.false_alarm_bound:.2%} with 95 % "
            f"confidence ({band.num_photos} photos)"
        )
    problems.exit()


def _check_without_effect(context: typer.Context) -> None:
    """Raise BadParameter for options that --only-edits would ignore."""
    for name, option in _OF_THRESHOLDS.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise typer.BadParameter(
                "has no effect with --only-edits, which keeps the thresholds that there are; leave "
                "one of the two away",
                param_hint=option,
            )


def _report(line: str) -> None:
    say(line, err=True)
