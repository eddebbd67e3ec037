"""`overpaint train autoencoder|detector|inpainter`: photos and a recipe to weights and a record.

The same command resumes a run that was stopped. Exit codes: 0 trained and exported; 1 the run
could not go on, or was stopped (all is saved then), or some photos could not be found or searched;
2 the command or the recipe is wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.problems import Problems
from overpaint.errors import OverpaintError, TrainingError
from overpaint.terminal import say

if TYPE_CHECKING:
    from overpaint.training.config import Section
    from overpaint.weights import WeightsRecord

app = typer.Typer(no_args_is_help=True, help="Train a model by a recipe and export its weights.")

Config = Annotated[Path, typer.Option("--config", help="Recipe, YAML.")]
Photos = Annotated[
    list[str],
    typer.Option(
        "--photos",
        help="Folder, glob, list or archive of photos, or a set by name: places2:ROOT; repeatable.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run. Default: runs/NAME.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change of the recipe: --set loop.steps=100; repeatable."),
]
Export = Annotated[
    Path | None,
    typer.Option("--export", help="Folder for weights and record. Default: the run's folder."),
]
Device = Annotated[str, typer.Option("--device", help="Device: cpu or cuda.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Photo to leave out, by file name; repeatable."),
]
Assets = Annotated[
    Path,
    typer.Option("--assets", help="Folder below which the files named in the recipe lie."),
]


@app.command()
def autoencoder(
    config: Config,
    photos: Photos,
    out: Out = None,
    overrides: Set = None,
    export: Export = None,
    device: Device = "cpu",
    exclude: Exclude = None,
) -> None:
    """Train one autoencoder of the bank (NIX-Net eq. 1)."""
    from overpaint.training.autoencoder import AutoencoderRun
    from overpaint.training.runs import train_autoencoder

    _train(
        AutoencoderRun, train_autoencoder, config, photos, out, overrides, export, device, exclude
    )


@app.command()
def detector(
    config: Config,
    photos: Photos,
    out: Out = None,
    overrides: Set = None,
    export: Export = None,
    device: Device = "cpu",
    exclude: Exclude = None,
    assets: Assets = Path(),
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of cached reconstructions. Default: OUT/cache."),
    ] = None,
    export_only: Annotated[
        bool,
        typer.Option(
            "--export-only",
            help="Weights of an unfinished run, of its last checkpoint; nothing is trained.",
        ),
    ] = False,
) -> None:
    """Train a detector, by the loss of its paper, on universal data made from PHOTOS.

    The recipe names the bank that redraws, and folders of `overpaint forge`, if any.
    """
    from overpaint.training.detection.base import DetectorRun
    from overpaint.training.runs import train_detector

    def train(
        run: DetectorRun, photos: list[str], folder: Path, export: Path, **shared: Any
    ) -> Any:
        own: dict[str, Any] = {
            "assets": assets,
            "cache": cache or folder / "cache",
            "export_only": export_only,
        }
        return train_detector(run, photos, folder, export, **shared, **own)

    _train(DetectorRun, train, config, photos, out, overrides, export, device, exclude)


@app.command()
def inpainter(
    config: Config,
    photos: Photos,
    out: Out = None,
    overrides: Set = None,
    export: Export = None,
    device: Device = "cpu",
    exclude: Exclude = None,
    assets: Assets = Path(),
) -> None:
    """Train an inpainter on PHOTOS with random holes, by the losses of its paper."""
    from overpaint.training.inpainting.base import InpainterRun
    from overpaint.training.runs import train_inpainter

    train = partial(train_inpainter, assets=assets)
    _train(InpainterRun, train, config, photos, out, overrides, export, device, exclude)


def _train(
    kind: "type[Section]",
    train: Callable[..., "WeightsRecord | None"],
    config: Path,
    photos: list[str],
    out: Path | None,
    overrides: list[str] | None,
    export: Path | None,
    device: str,
    exclude: list[str] | None,
) -> None:
    """Read the recipe, train by it, and print the result; exit with 1 or 2 after a problem."""
    from overpaint.training.config import load_config

    problems = Problems()
    with _catch_errors():
        run: Any = load_config(kind, config, overrides or ())
        folder = out or Path("runs") / run.name
        record = train(
            run,
            photos,
            folder,
            export or folder,
            recipe=config,
            overrides=overrides or (),
            exclude=exclude or (),
            device=device,
            problem=problems,
        )
    if record is not None:
        figures = ", ".join(f"{k} {v:.4g}" for k, v in record.validation.items())
        say(f"{record.path}: {record.parameters} parameters; validation: {figures}")
    problems.exit()


@contextmanager
def _catch_errors() -> Iterator[None]:
    try:
        yield
    except OverpaintError as error:
        say(f"overpaint train: {error}", err=True)
        raise typer.Exit(1 if isinstance(error, TrainingError) else 2) from error
