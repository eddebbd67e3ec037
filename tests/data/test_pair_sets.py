"""Sets of pairs: each layout on a tiny folder that the test makes, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.locked import lock
from overpaint.data.pair_sets import SETS, read_pairs
from overpaint.errors import ConfigError, ImageError

SIZE = (24, 16)  # width, height
HOLE = np.zeros((16, 24), np.uint8)
HOLE[4:10, 5:15] = 1


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(256, size=(16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, white: int = 255, black: int = 0) -> Path:
    """A mask whose hole is white; lossy files are of good quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(HOLE, white, black).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=100)
    return path


def casia(root: Path) -> set[str]:
    """Version 2."""
    names = ["Tp_D_CND_M_N_ani00018_sec00096_00138.tif", "Tp_S_NRN_S_N_ani10147_ani10147_12493.jpg"]
    for name in names:
        picture(root / "Tp" / name)
        mask(root / "CASIA 2 Groundtruth" / f"{Path(name).stem}_gt.png", white=1)
    picture(root / "Au" / "Au_ani_00001.jpg")
    return {f"Tp/{name}" for name in names}


def columbia(root: Path) -> set[str]:
    picture(root / "4cam_splc" / "canong3_canonxt_sub_01.tif")
    picture(root / "4cam_auth" / "canong3_02_sub_01.tif")
    colours = np.where(HOLE[..., None] > 0, (0, 200, 0), (200, 0, 0)).astype(np.uint8)
    place = root / "4cam_splc" / "edgemask" / "canong3_canonxt_sub_01_edgemask.jpg"
    place.parent.mkdir()
    Image.fromarray(colours).save(place, quality=100, subsampling=0)
    return {"4cam_splc/canong3_canonxt_sub_01.tif"}


def coverage(root: Path) -> set[str]:
    for i in (1, 10):
        picture(root / "image" / f"{i}.tif")
        picture(root / "image" / f"{i}t.tif")
        for what in ("copy", "forged", "paste"):
            mask(root / "mask" / f"{i}{what}.tif", *((255, 0) if what == "forged" else (0, 255)))
    return {"image/1t.tif", "image/10t.tif"}


def nist16(root: Path) -> set[str]:
    picture(root / "probe" / "NC2016_0001.jpg")
    picture(root / "probe" / "NC2016_0002.jpg")
    for task in ("manipulation", "removal"):
        mask(root / "reference" / task / "mask" / "NC2016_7000.png", white=0, black=255)
        lines = [
            "TaskID|ProbeFileID|ProbeFileName|ProbeMaskFileName|IsTarget",
            f"{task}|1|probe/NC2016_0001.jpg|reference/{task}/mask/NC2016_7000.png|Y",
            f"{task}|2|probe/NC2016_0002.jpg||N",
        ]
        (root / "reference" / task / f"NC2016-{task}-ref.csv").write_text("\n".join(lines))
    return {"probe/NC2016_0001.jpg"}


def imd2020(root: Path) -> set[str]:
    picture(root / "1a1ogs" / "1a1ogs_orig.jpg")
    picture(root / "1a1ogs" / "c8tf5mq_0.png")
    mask(root / "1a1ogs" / "c8tf5mq_0_mask.png")
    picture(root / "1a3oag" / "c8tt7fg_0.jpg")
    mask(root / "1a3oag" / "c8tt7fg_0_mask.png")
    return {"1a1ogs/c8tf5mq_0.png", "1a3oag/c8tt7fg_0.jpg"}


def defacto(root: Path) -> set[str]:
    for kind in ("inpainting", "splicing_1", "splicing_2"):
        picture(root / f"{kind}_img" / "img" / "0_000000000260.tif")
        mask(root / f"{kind}_annotations" / "probe_mask" / "0_000000000260.jpg")
        mask(root / f"{kind}_annotations" / "inpaint_mask" / "0_000000000260.tif", 0, 255)
    return {f"{k}_img/img/0_000000000260.tif" for k in ("inpainting", "splicing_1", "splicing_2")}


def autosplice(root: Path) -> set[str]:
    for quality in (100, 90):
        picture(root / f"Forged_JPEG{quality}" / "1234_0.jpg")
        picture(root / f"Forged_JPEG{quality}" / "1234_1.jpg")
    mask(root / "Mask" / "1234_mask.png")
    picture(root / "Authentic" / "1234.jpg")
    return {f"Forged_JPEG{q}/1234_{i}.jpg" for q in (100, 90) for i in (0, 1)}


def opensdi(root: Path) -> set[str]:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def data(path: Path) -> dict[str, object]:
        return {"bytes": path.read_bytes(), "path": path.name}

    shown, truth = picture(root / "x" / "a.png"), mask(root / "x" / "m.png")
    lines = [
        {"key": "real_1", "image": data(shown), "mask": None, "label": 0},
        {"key": "partial_fake", "image": data(shown), "mask": data(truth), "label": 1},
        {"key": "global_fake", "image": data(shown), "mask": None, "label": 1},
    ]
    for path in (shown, truth):
        path.unlink()
    (root / "x").rmdir()
    (root / "data").mkdir()
    for kind in ("sd15", "flux"):
        path = root / "data" / f"{kind}-00000-of-00001.parquet"
        parquet.write_table(pa.Table.from_pylist(lines), path, row_group_size=2)
    kinds = ("sd15", "flux")
    return {f"{k}-00000-of-00001/partial_fake/1" for k in kinds} | {
        f"{k}-00000-of-00001/global_fake/2" for k in kinds
    }


def sagi_d(root: Path) -> set[str]:
    picture(root / "raise" / "original" / "r0b.jpg")
    picture(root / "raise" / "brushnet" / "r0b_brushnet.png")
    mask(root / "raise" / "masks" / "r0b_brushnet.png")
    return {"raise/brushnet/r0b_brushnet.png"}


def folder(root: Path) -> set[str]:
    picture(root / "Tp" / "6.jpg")
    mask(root / "Gt" / "6.png")
    picture(root / "Au" / "7.jpg")
    return {"Tp/6.jpg"}


def json_list(root: Path) -> set[str]:
    folder(root)
    lines = [["./Tp/6.jpg", "./Gt/6.png"], ["./Au/7.jpg", "Negative"]]
    (root / "list.json").write_text(json.dumps(lines))
    return {"./Tp/6.jpg"}


MAKERS = {
    "casia": casia,
    "columbia": columbia,
    "coverage": coverage,
    "nist16": nist16,
    "imd2020": imd2020,
    "defacto": defacto,
    "autosplice": autosplice,
    "opensdi": opensdi,
    "sagi-d": sagi_d,
    "folder": folder,
    "json": json_list,
}
FILES = {"json": "list.json"}
ALL_FORGED = {"defacto"}


def spec(name: str, root: Path, part: str = "") -> str:
    return f"{name}:{root / FILES.get(name, '')}{part}"


def test_every_layout_is_tested() -> None:
    assert MAKERS.keys() == SETS.keys()


@pytest.mark.parametrize("name", MAKERS)
class TestLayout:
    def test_pairs_and_their_truth(self, name: str, tmp_path: Path) -> None:
        wanted = MAKERS[name](tmp_path)
        found = read_pairs(spec(name, tmp_path))
        assert {pair.name for pair in found if pair.forged} == wanted
        assert found.problems == ()
        assert found.title == SETS[name].title
        untouched = [pair for pair in found if not pair.forged]
        assert bool(untouched) != (name in ALL_FORGED)
        for pair in found:
            photo, truth = pair.read()
            assert photo.pixels.shape == (16, 24, 3)
            assert truth.dtype == np.uint8
            expected = HOLE if pair.mask is not None else np.full_like(HOLE, pair.whole)
            assert np.array_equal(truth, expected), pair.name

    def test_another_layout_is_an_error_that_shows_this_one(
        self, name: str, tmp_path: Path
    ) -> None:
        picture(tmp_path / "holiday" / "photo.jpg")
        target = tmp_path / FILES.get(name, "")
        if name in FILES:
            target.write_text("{}")
        with pytest.raises(ImageError, match="not the layout") as caught:
            read_pairs(f"{name}:{target}")
        assert SETS[name].expected in str(caught.value)
        with pytest.raises(ImageError, match="not there"):
            read_pairs(f"{name}:{tmp_path / 'nowhere'}")


class TestParts:
    def test_defacto(self, tmp_path: Path) -> None:
        defacto(tmp_path)
        found = read_pairs(spec("defacto", tmp_path, "#inpainting"))
        assert [pair.name for pair in found] == ["inpainting_img/img/0_000000000260.tif"]
        assert len(read_pairs(spec("defacto", tmp_path, "#splicing"))) == 2
        with pytest.raises(ConfigError, match="there are inpainting, splicing"):
            read_pairs(spec("defacto", tmp_path, "#morphing"))

    def test_autosplice_keeps_the_untouched_pictures(self, tmp_path: Path) -> None:
        autosplice(tmp_path)
        found = read_pairs(spec("autosplice", tmp_path, "#Forged_JPEG90"))
        assert [pair.forged for pair in found] == [False, True, True]

    def test_nist16(self, tmp_path: Path) -> None:
        nist16(tmp_path)
        (forged,) = [p for p in read_pairs(spec("nist16", tmp_path, "#removal")) if p.forged]
        assert forged.part == "removal"
        assert forged.mask is not None
        assert forged.mask.parts[-3] == "removal"
        with pytest.raises(ConfigError, match="manipulation, removal, splice"):
            read_pairs(spec("nist16", tmp_path, "#clone"))

    def test_opensdi(self, tmp_path: Path) -> None:
        opensdi(tmp_path)
        assert {p.part for p in read_pairs(spec("opensdi", tmp_path, "#flux"))} == {"flux"}
        with pytest.raises(ConfigError, match="there are flux, sd15"):
            read_pairs(spec("opensdi", tmp_path, "#sdxl"))

    def test_casia_by_the_names_of_version_1(self, tmp_path: Path) -> None:
        for kind, name in (("CM", "Sp_S_CND_A_pla0016_pla0016_0196"), ("Sp", "Sp_D_NND_A_ani_1")):
            picture(tmp_path / "CASIA 1.0 dataset" / "Tp" / kind / f"{name}.jpg")
            mask(tmp_path / "CASIA 1.0 groundtruth" / kind / f"{name}_gt.png")
        found = read_pairs(spec("casia", tmp_path))
        assert {pair.part for pair in found} == {"copy-move", "splicing"}
        (one,) = read_pairs(spec("casia", tmp_path, "#splicing"))
        assert np.array_equal(one.read()[1], HOLE)


def test_the_table_of_sagis_program(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.jpg")
    mask(tmp_path / "in" / "a_mask.png")
    picture(tmp_path / "out" / "a_brushnet.png")
    (tmp_path / "out" / "results.csv").write_text(
        "image_path,mask_path,prompt,output_path,seed,status\n"
        "in/a.jpg,in/a_mask.png,a car,a_brushnet.png,1,success\n"
        "in/a.jpg,in/a_mask.png,a car,lost.png,1,success\n"
    )
    found = read_pairs(f"sagi-d:{tmp_path}")
    assert [(pair.name, pair.forged) for pair in found] == [
        ("a_brushnet.png", True),
        ("in/a.jpg", False),
    ]
    assert len(found.problems) == 1
    assert "lost.png" in found.problems[0]
    assert np.array_equal(found[0].read()[1], HOLE)


def test_a_picture_without_its_mask_is_left_out_and_told(tmp_path: Path) -> None:
    imd2020(tmp_path)
    lost = picture(tmp_path / "1a1ogs" / "lost_0.jpg")
    found = read_pairs(spec("imd2020", tmp_path))
    assert len(found) == 3
    assert found.problems == (f"{lost}: left out, as its mask is not there",)


def turned(path: Path, orientation: int) -> None:
    """Write the orientation into the file, the stored pixels as they are."""
    image = Image.open(path)
    exif = image.getexif()
    exif[274] = orientation
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=95, exif=exif)
    path.write_bytes(data.getvalue())


class TestPlace:
    def made(self, root: Path) -> Path:
        mask(root / "Gt" / "6.png")
        return picture(root / "Tp" / "6.jpg")

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_of_the_stored_pixels_turns_with_its_picture(
        self, tmp_path: Path, orientation: int
    ) -> None:
        path = self.made(tmp_path)
        before = np.asarray(Image.open(path))
        turned(path, orientation)
        photo, truth = read_pairs(f"folder:{tmp_path}")[0].read()
        assert truth.shape == photo.pixels.shape[:2] == (24, 16)
        # The brightness of the hole must be the same before and after the turn.
        inside = before[HOLE == 1].mean()
        assert photo.pixels[truth == 1].mean() == pytest.approx(inside, abs=1.5)

    @pytest.mark.parametrize("orientation", [2, 3, 4])
    def test_where_its_size_tells_nothing_the_pair_is_refused(
        self, tmp_path: Path, orientation: int
    ) -> None:
        turned(self.made(tmp_path), orientation)
        with pytest.raises(ImageError, match="nothing tells whether its mask is turned"):
            read_pairs(f"folder:{tmp_path}")[0].read()

    def test_another_size_is_refused(self, tmp_path: Path) -> None:
        self.made(tmp_path)
        Image.fromarray(HOLE[:-1] * 255).save(tmp_path / "Gt" / "6.png")
        with pytest.raises(ImageError, match="the mask has 24 x 15 pixels, its picture 24 x 16"):
            read_pairs(f"folder:{tmp_path}")[0].read()


def test_an_unknown_set_is_told() -> None:
    for wrong in ("places2:x", "x", "nist16"):
        with pytest.raises(ConfigError, match="autosplice"):
            read_pairs(wrong)


def test_damaged_tables_are_told(tmp_path: Path) -> None:
    nist16(tmp_path)
    reference = tmp_path / "reference" / "manipulation" / "NC2016-manipulation-ref.csv"
    reference.write_text("ProbeFileName|IsTarget\n")
    with pytest.raises(ImageError, match="has no column ProbeMaskFileName"):
        read_pairs(f"nist16:{tmp_path}")
    (tmp_path / "sd15-00000-of-00001.parquet").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="not a Parquet file"):
        read_pairs(f"opensdi:{tmp_path}")


def test_a_folder_without_permission_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defacto(tmp_path)
    lock(tmp_path / "splicing_1_img", monkeypatch)
    with pytest.raises(ImageError, match=r"splicing_1_img: cannot be read .*access rights"):
        read_pairs(spec("defacto", tmp_path))
