"""From the keys of a published checkpoint to ours: strict, so that nothing is lost in silence.

- A model file holds a table of rules, (pattern, replacement), and a `remap` made of `rename_keys`.
- A key that no rule takes, two keys that become one, a key that the network lacks or wants, and
  another shape are errors that list the keys.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from overpaint.errors import WeightsError

Value = TypeVar("Value")

SHOWN = 8  # keys in one message


def rename_keys(
    state: Mapping[str, Value], rules: Sequence[tuple[str, str]], drop: Sequence[str] = ()
) -> dict[str, Value]:
    """The values of `state` under new keys.

    rules: (regular expression, replacement with \\1, ...); the first that matches a whole key
    renames it. drop: expressions of keys that are left out on purpose. Raises WeightsError listing
    the keys that no rule takes, or that become the same.
    """
    out: dict[str, Value] = {}
    unknown: list[str] = []
    doubled: list[str] = []
    for key, value in state.items():
        if any(re.fullmatch(pattern, key) for pattern in drop):
            continue
        found = next(((p, replacement) for p, replacement in rules if re.fullmatch(p, key)), None)
        if found is None:
            unknown.append(key)
            continue
        new = re.sub(found[0], found[1], key)
        if new in out:
            doubled.append(f"{key} -> {new}")
        out[new] = value
    if unknown:
        raise WeightsError(f"the checkpoint has unknown keys: {_list_keys(unknown)}")
    if doubled:
        raise WeightsError(f"keys of the checkpoint become the same: {_list_keys(doubled)}")
    return out


def check_fits(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError listing missing and superfluous keys, and keys of another shape."""
    wanted = module.state_dict()
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = {
        "it lacks": sorted(wanted.keys() - state.keys()),
        "the network has no": sorted(state.keys() - wanted.keys()),
        "other shapes:": shapes,
    }
    found = [f"{what} {_list_keys(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise WeightsError(f"the checkpoint does not fit the network: {'; '.join(found)}")


def _list_keys(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
