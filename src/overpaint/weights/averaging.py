"""The mean of several trainings that started from the same weights, as one file of weights.

The mean keeps most of what a network detected before its last training and after it, without a
second network at inference. Ideas: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR
2022, section 3 (the mean of a network before and after), and "Model soups", ICML 2022, section 2
(that of several trainings that started from it). Written from the papers, no code taken. Licence of
this file: Apache-2.0, as the project.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from overpaint.atomic import is_same_file
from overpaint.errors import ConfigError, WeightsError
from overpaint.run_identity import find_commit
from overpaint.weights import WeightsRecord, build, load_weights, save_weights


def average_weights(shares: Mapping[str, float], name: str, folder: str | Path) -> WeightsRecord:
    """Write the mean of weights as NAME.safetensors and NAME.json to `folder`.

    shares: how much of each file, by name or path, positive and 1 together. Counts
    (batches seen) are those of the first. Batch norm's statistics are averaged as weights are,
    which is accurate enough for networks with similar weights.

    Raises ConfigError for other shares and for networks that are not of one configuration,
    WeightsError for files that cannot be read, and where the mean would replace one of them.
    """
    if not shares or min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1):
        raise ConfigError(f"shares must be positive and make 1 together, not {dict(shares)}")
    records, states = zip(*(load_weights(path) for path in shares), strict=True)
    target = Path(folder) / f"{name}.safetensors"
    if any(is_same_file(record.path, target) for record in records):
        raise WeightsError(f"{target}: is one of the files to average; write to another name")
    first = records[0]
    for record in records[1:]:
        if (record.architecture, _list_settings(record)) != (
            first.architecture,
            _list_settings(first),
        ):
            raise ConfigError(f"{record.path} is of another network than {first.path}")
    state = {key: _average(key, states, list(shares.values())) for key in states[0]}
    module = build(first, state)
    photos = {record.data_sha256 for record in records}
    return save_weights(
        folder,
        module,
        name=name,
        kind=first.kind,
        architecture=first.architecture,
        config=first.config,
        data=_describe_data([record.data for record in records]),
        data_sha256=photos.pop() if len(photos) == 1 else None,
        recipe=None,
        parents=list(zip(records, shares.values(), strict=True)),
        commit=find_commit(),
        licence=first.licence,
        families=tuple(sorted({family for r in records for family in r.families})),
    )


def _list_settings(record: WeightsRecord) -> object:
    """The network's settings, with its defaults where it keeps them."""
    return getattr(build(record), "config", record.config)


def _describe_data(data: list[str]) -> str:
    """What any of the parents was trained on."""
    return " + ".join(dict.fromkeys(data))


def _average(key: str, states: tuple[dict[str, Tensor], ...], shares: list[float]) -> Tensor:
    if not states[0][key].is_floating_point():
        return states[0][key]
    values = torch.stack([state[key].double() for state in states])
    return torch.tensordot(torch.tensor(shares, dtype=torch.double), values, dims=1).float()
