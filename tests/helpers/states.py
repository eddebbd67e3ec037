"""Comparison of two networks' states that says where they differ."""

from collections.abc import Mapping

import torch
from torch import Tensor


def differing(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """For each key that one lacks or whose values are not the same bit for bit, in what way."""
    lines = [f"{key}: missing" for key in expected.keys() - found.keys()]
    lines += [f"{key}: not expected" for key in found.keys() - expected.keys()]
    for key in found.keys() & expected.keys():
        one, other = found[key], expected[key]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            kinds = (f"{tuple(x.shape)} {x.dtype}" for x in (one, other))
            lines.append("{}: found {}, expected {}".format(key, *kinds))
        elif not torch.equal(one, other):
            most = (one.double() - other.double()).abs().max().item()
            lines.append(f"{key}: differs by up to {most:.3g}")
    return sorted(lines)
