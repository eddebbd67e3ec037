"""Weights on disk: round trips, what float16 must not lose, and every kind of damage."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from overpaint import weights
from overpaint.detectors.nixnet import NIXNet, NIXNetConfig
from overpaint.errors import UnknownNameError, WeightsError
from overpaint.weights import WeightsRecord

CONFIG: dict[str, Any] = {"widths": [4, 6, 8]}


@pytest.fixture
def model() -> NIXNet:
    torch.manual_seed(0)
    model = NIXNet(NIXNetConfig((4, 6, 8)))
    for _ in range(2):
        model(torch.rand(2, 3, 32, 32))
    return model.eval()


def save(folder: Path, model: NIXNet, name: str = "small", **changes: Any) -> WeightsRecord:
    fields: dict[str, Any] = {
        "kind": "detector",
        "architecture": "nixnet",
        "config": CONFIG,
        "data": "random pixels",
        "recipe": "tests/test_weights.py",
        "commit": "0" * 40,
        "licence": "Apache-2.0",
        "validation": {"miou": 0.5},
    }
    return weights.save_weights(folder, model, name=name, **(fields | changes))


def edit(record: WeightsRecord, **changes: Any) -> Path:
    """Write changed fields into the record's JSON."""
    path = record.folder / f"{record.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_float32_round_trip_is_bit_equal(tmp_path: Path, model: NIXNet) -> None:
    saved = save(tmp_path, model, dtype=torch.float32)
    record, state = weights.load_weights(tmp_path / "small.json", kind="detector")
    assert record == saved
    assert record.parameters == model.num_parameters
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_float16_halves_the_file_and_stays_close(tmp_path: Path, model: NIXNet) -> None:
    whole = save(tmp_path, model, "whole", dtype=torch.float32)
    half = save(tmp_path, model, "half")
    assert half.bytes == half.path.stat().st_size
    assert half.bytes < 0.8 * whole.bytes
    for key, value in weights.load_weights(half.path)[1].items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-3, atol=1e-5)
        assert value.dtype == model.state_dict()[key].dtype


def test_float16_loses_no_small_variance_and_no_large_weight(tmp_path: Path, model: NIXNet) -> None:
    norm = model.head.block[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var.fill_(1e-9)
    norm.weight.data.fill_(1e6)
    record = save(tmp_path, model)
    with safe_open(record.path, "pt") as file:
        assert file.get_tensor("head.block.0.weight").dtype == torch.float16
    state = weights.load_weights(record.path)[1]
    assert torch.equal(state["head.block.1.running_var"], norm.running_var)
    assert torch.equal(state["head.block.1.weight"], norm.weight)


def test_build_gives_the_saved_model_in_eval_mode(tmp_path: Path, model: NIXNet) -> None:
    save(tmp_path, model, dtype=torch.float32)
    built = weights.build(weights.read_record(tmp_path / "small.safetensors"))
    image = torch.rand(1, 3, 16, 16)
    assert not built.training
    with torch.no_grad():
        assert torch.equal(built(image), model(image))


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_weights_are_refused_with_both_hashes(
    tmp_path: Path, model: NIXNet, damage: str
) -> None:
    record = save(tmp_path, model)
    content = bytearray(record.path.read_bytes())
    content[-1] ^= 1
    record.path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(WeightsError, match="fetch the file again") as caught:
        weights.load_weights(record.path)
    assert str(record.path) in str(caught.value)
    assert record.sha256 in str(caught.value)
    assert len(set(str(caught.value).split()) & {record.sha256}) == 1


def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path, model: NIXNet) -> None:
    record = save(tmp_path, model)
    record.path.write_bytes(b"no tensors")
    path = edit(record, sha256=hashlib.sha256(b"no tensors").hexdigest())
    with pytest.raises(WeightsError, match="not a safetensors file"):
        weights.load_weights(path)


@pytest.mark.parametrize("missing", ["small.json", "small.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, model: NIXNet, missing: str) -> None:
    save(tmp_path, model)
    (tmp_path / missing).unlink()
    with pytest.raises(WeightsError, match=missing):
        weights.load_weights(tmp_path / "small.safetensors")


def test_an_unknown_name_lists_the_shipped_ones(
    tmp_path: Path, model: NIXNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.store, "PRETRAINED", tmp_path)
    save(tmp_path, model, "shipped-1")
    assert weights.load_weights("shipped-1", kind="detector")[0].name == "shipped-1"
    with pytest.raises(WeightsError, match="shipped names: shipped-1"):
        weights.load_weights("shiped-1")


def test_a_path_without_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="give the path of"):
        weights.load_weights(tmp_path / "small")


def test_another_kind_is_refused(tmp_path: Path, model: NIXNet) -> None:
    record = save(tmp_path, model)
    with pytest.raises(WeightsError, match="kind 'detector', not 'autoencoder'"):
        weights.load_weights(record.path, kind="autoencoder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"widths": [4, 6, 10]}}, "do not fit nixnet"),
        ({"config": {**CONFIG, "fusion_3": False}}, "do not fit nixnet"),
        ({"config": {"depth": 3}}, "does not take the recorded configuration"),
    ],
)
def test_weights_of_another_model_are_refused(
    tmp_path: Path, model: NIXNet, changes: dict[str, Any], message: str
) -> None:
    record = weights.read_record(edit(save(tmp_path, model), **changes))
    with pytest.raises(WeightsError, match=message):
        weights.build(record)


def test_an_unknown_architecture_suggests_the_near_one(tmp_path: Path, model: NIXNet) -> None:
    record = weights.read_record(edit(save(tmp_path, model), architecture="nixnets"))
    with pytest.raises(UnknownNameError, match="did you mean nixnet"):
        weights.build(record)


@pytest.mark.parametrize(
    "changes",
    [{"surprise": 1}, {"file": "../small.safetensors"}, {"sha256": "abc"}, {"kind": "poem"}],
)
def test_a_malformed_record_is_refused(
    tmp_path: Path, model: NIXNet, changes: dict[str, Any]
) -> None:
    path = edit(save(tmp_path, model), **changes)
    with pytest.raises(WeightsError, match="not a record of weights") as caught:
        weights.load_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("named", ["other.safetensors", "other.json"])
def test_a_record_of_another_file_is_refused(tmp_path: Path, model: NIXNet, named: str) -> None:
    save(tmp_path, model)
    (tmp_path / "other.json").write_text((tmp_path / "small.json").read_text())
    (tmp_path / "other.safetensors").write_bytes(b"other weights")
    with pytest.raises(
        WeightsError, match=r"other\.json.* of small\.safetensors, not of other\.safetensors; give"
    ):
        weights.load_weights(tmp_path / named)
    with pytest.raises(WeightsError, match=r"not of other\.safetensors"):
        weights.list_records(tmp_path)


def test_weights_and_their_record_can_be_renamed(tmp_path: Path, model: NIXNet) -> None:
    record = save(tmp_path, model, "small-1.2")
    record.path.rename(tmp_path / "mine-1.2.safetensors")
    edit(record, file="mine-1.2.safetensors").rename(tmp_path / "mine-1.2.json")
    found = weights.load_weights(tmp_path / "mine-1.2.safetensors")[0]
    assert (found.name, found.sha256) == ("small-1.2", record.sha256)
    assert found.record_path == tmp_path / "mine-1.2.json"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_record_in_another_encoding_is_named(
    tmp_path: Path, model: NIXNet, encoding: str
) -> None:
    save(tmp_path, model, licence="none, as \u00fcblich")
    path = tmp_path / "small.json"
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(WeightsError, match=r"small\.json: not a record of weights"):
        weights.read_record(path)


def test_weights_are_not_saved_to_a_file_as_folder(tmp_path: Path, model: NIXNet) -> None:
    (tmp_path / "taken").write_text("mine")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(WeightsError, match=r"taken.*: cannot be written into .*; name another"):
            save(folder, model)
    assert (tmp_path / "taken").read_text() == "mine"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, model: NIXNet) -> None:
    model.head.logit.weight.data[0] = torch.nan
    with pytest.raises(WeightsError, match=r"head\.logit\.weight holds NaN"):
        save(tmp_path, model)
    assert not list(tmp_path.iterdir())


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path, model: NIXNet) -> None:
    first = save(tmp_path, model)
    model.head.logit.bias.data.fill_(3)  # type: ignore[union-attr]
    second = save(tmp_path, model)
    assert first.sha256 != second.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.json", "small.safetensors"]
    assert weights.load_weights(second.path)[1]["head.logit.bias"].item() == 3


def test_records_are_listed_by_name_and_other_json_is_left_alone(
    tmp_path: Path, model: NIXNet
) -> None:
    for name in ("b", "a"):
        save(tmp_path, model, name, calibration="a.calibration.json")
    (tmp_path / "a.calibration.json").write_text("{}")
    assert [record.name for record in weights.list_records(tmp_path)] == ["a", "b"]


def test_every_shipped_file_of_weights_builds() -> None:
    for record in weights.list_records():
        module = weights.build(record)
        assert sum(p.numel() for p in module.parameters()) == record.parameters
