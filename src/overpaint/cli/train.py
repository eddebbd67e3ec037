"""`overpaint train autoencoder|detector`: from photos and a recipe to weights with a record."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train a model by a recipe and export its weights.")

Config = Annotated[Path, typer.Option("--config", help="Recipe, YAML.")]
Photos = Annotated[
    list[str], typer.Option("--photos", help="Folder, glob, list or archive of photos; repeatable.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run. Default: runs/NAME.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: --set loop.steps=100.")
]
Export = Annotated[
    Path | None,
    typer.Option("--export", help="Folder for weights and record. Default: the run's folder."),
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Photo to leave out, by file name; repeatable."),
]
Assets = Annotated[
    Path,
    typer.Option("--assets", help="Folder below which the recipe's taef2: and objects: lie."),
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
    from overpaint.training.config import load_config
    from overpaint.training.runs import train_autoencoder

    run = load_config(AutoencoderRun, config, overrides or ())
    folder = out or Path("runs") / run.name
    train_autoencoder(
        run, photos, folder, export or folder, recipe=config, exclude=exclude or (), device=device
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
) -> None:
    """Train a detector on universal data made from PHOTOS and the recipe's bank."""
    from overpaint.training.config import load_config
    from overpaint.training.detector import DetectorRun
    from overpaint.training.runs import train_detector

    run = load_config(DetectorRun, config, overrides or ())
    folder = out or Path("runs") / run.name
    train_detector(
        run,
        photos,
        folder,
        export or folder,
        recipe=config,
        exclude=exclude or (),
        device=device,
        assets=assets,
        cache=cache or folder / "cache",
    )
