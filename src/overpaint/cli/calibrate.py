"""`overpaint calibrate`: fit a detector's thresholds and score, and store them with its weights."""

from typing import Annotated

import typer

from overpaint.terminal import say


def calibrate(
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
            help="Who redraws the inpainted samples: shipped name, weights file, or taef2:FOLDER; "
            "repeatable. Default: the shipped ones but the held-out one.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=1,
            help="Side of the window, pixels, odd, that logits are averaged over; 1 for none. "
            "Default: that of the shipped detector.",
        ),
    ] = None,
    variants: Annotated[
        int, typer.Option("--variants", min=1, help="Of each photo, in each quality band.")
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the variants and of the masks.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
) -> None:
    """Write NAME.calibration.json beside the weights, and name it in their record.

    For each quality band: the threshold that 1 % of untouched validation photos reach, a lower
    one for 10 %, and the score.
    """
    from overpaint.evaluation.calibrate import WINDOW, calibrate_weights
    from overpaint.evaluation.parts import HELD_OUT, autoencoder_records
    from overpaint.inference.calibration import sigmoid

    if not bank:
        bank = [str(r.path) for r in autoencoder_records() if r.name != HELD_OUT]
    record, calibration = calibrate_weights(
        weights,
        photos,
        bank,
        window=WINDOW if window is None else window,
        variants=variants,
        seed=seed,
        device=device,
        report=lambda line: say(line, err=True),
    )
    say(record.folder / str(record.calibration))
    for name, band in calibration.bands.items():
        say(
            f"{name:<10} threshold {sigmoid(band.threshold_logit):.4f}, "
            f"inconclusive from {sigmoid(band.inconclusive_logit):.4f}, "
            f"{band.num_untouched} untouched and {band.num_inpainted} inpainted"
        )
