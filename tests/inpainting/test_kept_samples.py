"""A photo's samples as they are stored, from the file to the written result."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import overpaint
from conftest import textured
from helpers.deep_pictures import png, read_png, save_tiff
from helpers.handmade import keyed_grey_png
from helpers.holed import holes
from overpaint.errors import ImageError, InputError
from overpaint.images import read_image
from overpaint.images.from_arrays import as_photo
from overpaint.images.samples import Samples, decode_samples, widen
from overpaint.provenance.encoding import FORMATS
from overpaint.provenance.marking import read_source

SIZE = (46, 61)
HOLE = holes(SIZE, (10, 20, 25, 40))
LOSSLESS = [suffix for suffix, form in FORMATS.items() if form.lossless]


def samples(count: int, bits: int, seed: int = 1) -> np.ndarray:
    """A textured picture with alpha from 0 to opaque in it: (h, w, count)."""
    colours = textured(*SIZE, seed).astype(np.uint16)
    if bits == 16:  # low bytes that cannot be guessed from the high ones
        low = np.random.default_rng(seed).integers(0, 256, colours.shape)
        colours = (colours << 8 | low).astype(np.uint16)
    ramp = np.linspace(-0.2, 1.2, SIZE[1]).clip(0, 1) * (2**bits - 1)
    alpha = np.tile(ramp.round().astype(np.uint16)[:, None], (SIZE[0], 1, 1))
    parts = [colours[..., : 1 if count <= 2 else 3]] + ([alpha] if count in (2, 4) else [])
    return np.concatenate(parts, axis=2).astype(np.uint8 if bits == 8 else np.uint16)


def put(path: Path, values: np.ndarray) -> Path:
    """A file with these samples, by whatever writes them."""
    if path.suffix == ".png":
        path.write_bytes(png(values))
    elif path.suffix == ".tif":
        save_tiff(path, values)
    else:
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[values.shape[2]]
        image = Image.fromarray(values[..., 0] if mode == "L" else values, mode)
        image.save(path, lossless=True, exact=True)
    return path


READ = [(".png", c, b) for c in (1, 2, 3, 4) for b in (8, 16)]
READ += [(".tif", c, b) for c, b in ((1, 8), (3, 8), (4, 8), (1, 16), (3, 16), (4, 16))]
READ += [(".webp", 3, 8), (".webp", 4, 8)]


class TestReading:
    @pytest.mark.parametrize(("suffix", "count", "bits"), READ)
    def test_samples_come_as_they_are_stored(self, tmp_path, suffix, count, bits):
        values = samples(count, bits)
        found = read_source(put(tmp_path / f"a{suffix}", values)).samples
        assert found.values.dtype == values.dtype
        np.testing.assert_array_equal(found.values, values)
        assert (found.bits, found.notes) == (bits, ())

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("count", [1, 3])
    def test_either_order_of_bytes_and_a_compressed_tiff(self, tmp_path, order, count):
        values = samples(count, 16)
        how = {"byteorder": order, "compression": "zlib"}
        found = read_source(save_tiff(tmp_path / "a.tif", values, **how)).samples
        np.testing.assert_array_equal(found.values, values)

    def test_a_palette_becomes_colour_and_a_transparent_colour_alpha(self, tmp_path):
        image = Image.fromarray(samples(3, 8)).quantize(32)
        image.save(tmp_path / "a.png", transparency=5)
        found = read_source(tmp_path / "a.png").samples
        np.testing.assert_array_equal(found.colours, np.asarray(image.convert("RGB")))
        np.testing.assert_array_equal(found.alpha, np.where(np.asarray(image) == 5, 0, 255))

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_transparent_colour_of_16_bit_is_compared_with_all_its_bits(self, tmp_path, count):
        values = samples(count, 16)
        values[3, 4], values[3, 5] = 0x1234, 0x1235
        key = b"\x12\x34" * count
        (tmp_path / "a.png").write_bytes(png(values, (b"tRNS", key)))
        found = read_source(tmp_path / "a.png").samples
        np.testing.assert_array_equal(found.colours, values)
        assert found.alpha is not None
        assert (found.alpha[3, 4], found.alpha[3, 5]) == (0, 65535)
        assert np.count_nonzero(found.alpha == 0) == 1

    @pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 15), (8, 200)])
    def test_a_transparent_grey_stays_hidden_at_every_depth(self, tmp_path, bits, key):
        levels = np.random.default_rng(bits).integers(0, 2**bits, (46, 64))
        (tmp_path / "a.png").write_bytes(keyed_grey_png(levels, bits, key))
        found = read_source(tmp_path / "a.png").samples
        np.testing.assert_array_equal(found.alpha, np.where(levels == key, 0, 255))
        np.testing.assert_array_equal(found.colours[..., 0], levels * 255 // (2**bits - 1))
        hole = holes(levels.shape, (10, 20, 25, 40))
        with pytest.raises(ImageError, match="uncover"):
            overpaint.inpaint(tmp_path / "a.png", hole, model="mean", out=tmp_path / "b.jpg")
        done = overpaint.inpaint(tmp_path / "a.png", hole, model="mean", out=tmp_path / "b.png")
        np.testing.assert_array_equal(done.samples[..., 1], found.alpha)

    @pytest.mark.parametrize("bits", [2, 4])
    @pytest.mark.parametrize("loaded", [False, True])
    def test_a_transparent_grey_of_a_pil_image_is_scaled_or_refused(self, bits, loaded):
        levels = np.random.default_rng(bits).integers(0, 2**bits, (46, 64))
        image = Image.open(io.BytesIO(keyed_grey_png(levels, bits, 2)))
        if loaded:  # what its samples were is forgotten
            image.load()
            with pytest.raises(InputError, match=r"transparent grey.* give its path"):
                as_photo(image)
        else:
            alpha = as_photo(image).alpha
            np.testing.assert_array_equal(alpha, np.where(levels == 2, 0, 255))

    def test_a_bmp_of_32_bit_without_alpha_is_opaque(self, tmp_path):
        values = samples(3, 8)
        stored = np.dstack([values, np.zeros(SIZE, np.uint8)])
        Image.fromarray(stored).save(tmp_path / "a.bmp")
        np.testing.assert_array_equal(read_source(tmp_path / "a.bmp").samples.values, values)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_they_are_upright_as_the_photo_is(self, tmp_path, orientation):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(samples(4, 8)).save(tmp_path / "a.png", exif=exif)
        source = read_source(tmp_path / "a.png")
        np.testing.assert_array_equal(source.samples.colours, source.photo.pixels)

    def test_what_shows_another_photo_than_the_8_bit_reader_is_refused(self, tmp_path):
        path = put(tmp_path / "a.png", samples(3, 16))
        photo = read_image(path)
        photo = replace(photo, pixels=photo.pixels[::-1])
        with pytest.raises(ImageError, match=r"a\.png: its samples cannot be kept"):
            decode_samples(path.read_bytes(), photo)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("count", [3, 4])
    def test_what_shows_other_parts_than_the_8_bit_reader_is_refused(self, tmp_path, count, bits):
        path = put(tmp_path / "a.png", samples(count, bits))
        photo = read_image(path)
        alpha = np.full(SIZE, 255, np.uint8) if photo.alpha is None else photo.alpha.copy()
        alpha[5, -5] -= 5
        with pytest.raises(ImageError, match=r"a\.png: its samples cannot be kept"):
            decode_samples(path.read_bytes(), replace(photo, alpha=alpha))


class TestValues:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    def test_widening_keeps_the_upper_bits_and_both_ends(self, bits):
        values = np.arange(256)
        wide = widen(values, bits)
        np.testing.assert_array_equal(wide >> (bits - 8), values)
        assert (wide[0], wide[255]) == (0, 2**bits - 1)
        assert (np.diff(wide) > 0).all()

    @pytest.mark.parametrize("bits", [8, 16])
    def test_flattening_is_the_mix_by_alpha(self, bits):
        values, top = samples(4, bits), 2**bits - 1
        flat = Samples(values, bits).flatten((255, 0, 51)).values.astype(float)
        share = values[..., 3:] / top
        ground = np.array([top, 0, widen(np.array(51), bits)])
        assert np.abs(flat - (values[..., :3] * share + ground * (1 - share))).max() <= 0.5 + 1e-6

    def test_a_fill_is_mixed_by_its_weight_and_rounded(self):
        photo = Samples(np.full((1, 4, 3), 1000, np.uint16), 16)
        fill = np.full((1, 4, 3), 255, np.uint8)
        weight = np.array([[0, 0.25, 0.5, 1]])
        found = photo.fill(fill, weight, grey=False).values[0, :, 0].tolist()
        assert found == [1000, round(1000 + 64535 / 4), round(1000 + 64535 / 2), 65535]


WRITE = [(suffix, count, bits) for suffix in LOSSLESS for count in (1, 2, 3, 4) for bits in (8, 16)]


class TestWriting:
    @pytest.mark.parametrize(("suffix", "count", "bits"), WRITE)
    def test_known_samples_are_equal_in_every_lossless_format(self, tmp_path, suffix, count, bits):
        values = samples(count, bits)
        path, out = put(tmp_path / "a.png", values), tmp_path / f"b{suffix}"
        done = overpaint.inpaint(path, HOLE, model="mean", dilate=3, out=out)
        written = read_source(out).samples.values
        np.testing.assert_array_equal(written, done.samples)
        expected, known = values, done.mask == 0
        if suffix == ".webp" and bits == 16:
            expected = (values >> 8).astype(np.uint8)
            assert any("16 bit reduced to 8" in note for note in done.notes)
        if count <= 2 and written.shape[2] >= 3:
            expected = expected[..., [0, 0, 0, 1][: written.shape[2]]]
            assert any("grey written as equal red" in note for note in done.notes)
        assert written.dtype == expected.dtype
        np.testing.assert_array_equal(written[known], expected[known])
        if count in (2, 4):
            np.testing.assert_array_equal(written[..., -1], expected[..., -1])
        assert (written != expected)[HOLE == 1].any()

    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_another_reader_finds_the_same_16_bit(self, tmp_path, suffix, count):
        path, out = put(tmp_path / "a.png", samples(count, 16)), tmp_path / f"b{suffix}"
        done = overpaint.inpaint(path, HOLE, model="mean", out=out)
        found = read_png(out) if suffix == ".png" else tifffile.imread(out)
        np.testing.assert_array_equal(found.reshape(done.samples.shape), done.samples)

    def test_a_png_of_16_bit_is_compressed_about_as_well_as_by_pillow(self, tmp_path):
        values = samples(3, 8).astype(np.uint16) * 257
        out = tmp_path / "b.png"
        overpaint.inpaint(put(tmp_path / "a.png", values), HOLE, model="mean", out=out)
        Image.fromarray(samples(3, 8)).save(tmp_path / "c.png")
        # Each byte stands there twice, which costs Deflate less than a byte.
        assert out.stat().st_size < 2 * (tmp_path / "c.png").stat().st_size + 1500  # the mark

    @pytest.mark.parametrize("suffix", [".jpg", ".avif"])
    def test_a_lossy_format_says_so_and_keeps_what_it_can(self, tmp_path, suffix):
        path, out = put(tmp_path / "a.png", samples(1, 16)), tmp_path / f"b{suffix}"
        done = overpaint.inpaint(path, HOLE, model="mean", out=out)
        assert any("outside the mask were compressed again" in note for note in done.notes)
        assert any("16 bit reduced to 8" in note for note in done.notes)
        with Image.open(out) as image:
            assert image.mode == ("L" if suffix == ".jpg" else "RGB")
        known = np.abs(read_image(out).pixels.astype(int) - done.pixels)[done.mask == 0]
        assert known.mean() < 5


class TestAlpha:
    @pytest.fixture
    def cut_out(self, tmp_path) -> Path:
        return put(tmp_path / "a.png", samples(4, 8))

    def test_it_is_refused_where_the_format_would_uncover_it(self, cut_out):
        out = cut_out.with_name("b.jpg")
        with pytest.raises(ImageError, match=r"b\.jpg: .*transparent.*uncover.*--flatten white"):
            overpaint.inpaint(cut_out, HOLE, model="mean", out=out)
        assert not out.exists()

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
    def test_it_is_laid_on_a_colour_when_asked(self, cut_out, suffix):
        out = cut_out.with_name(f"b{suffix}")
        done = overpaint.inpaint(cut_out, HOLE, model="mean", flatten="#ff8000", out=out)
        assert "transparency laid on #ff8000: alpha is gone" in done.notes
        written = read_source(out).samples
        assert written.alpha is None
        error = np.abs(written.values[:, :6].astype(int) - (255, 128, 0))  # wholly transparent
        assert error.max() <= (0 if FORMATS[suffix].lossless else 12)

    def test_an_unknown_colour_is_an_error(self, cut_out):
        with pytest.raises(InputError, match="colour 'whyte'"):
            overpaint.inpaint(
                cut_out, HOLE, model="mean", flatten="whyte", out=cut_out.with_name("b.png")
            )

    def test_one_that_is_opaque_everywhere_hides_nothing(self, tmp_path):
        values = samples(4, 8)
        values[..., 3] = 255
        path = put(tmp_path / "a.png", values)
        done = overpaint.inpaint(path, HOLE, model="mean", out=tmp_path / "b.jpg")
        assert "alpha left out: it is opaque everywhere" in done.notes
        done = overpaint.inpaint(path, HOLE, model="mean", out=tmp_path / "b.png")
        assert done.samples.shape[2] == 4

    def test_what_it_hides_does_not_reach_the_fill(self, tmp_path):
        """A hole between red that is seen and green that is hidden becomes red, and green stays."""
        values = np.zeros((*SIZE, 4), np.uint8)
        values[:, :30], values[:, 30:] = (200, 0, 0, 255), (0, 200, 0, 0)
        path, mask = put(tmp_path / "a.png", values), holes(SIZE, (10, 25, 20, 35))
        for model in ("mean", "telea"):
            out = tmp_path / f"{model}.png"
            done = overpaint.inpaint(path, mask, model=model, dilate=0, out=out)
            assert done.pixels[mask == 1][:, 1].max() <= 2
            assert (done.samples[mask == 0] == values[mask == 0]).all()

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["mean", "telea", "patchmatch"])
    def test_a_hole_far_from_all_that_is_seen_gets_its_colour(self, tmp_path, model):
        values = np.zeros((100, 700, 4), np.uint8)
        values[20:80, :60], values[40:60, 600:620] = (200, 60, 40, 255), (0, 200, 0, 255)
        mask = holes((100, 700), (40, 600, 60, 620))
        done = overpaint.inpaint(put(tmp_path / "a.png", values), mask, model=model, dilate=0)
        assert np.abs(done.samples[mask == 1] - (200.0, 60, 40, 255)).max() <= 1

    def test_nothing_that_is_seen_outside_the_hole_is_an_error(self, tmp_path):
        values = np.zeros((*SIZE, 4), np.uint8)
        values[HOLE == 1] = 255
        with pytest.raises(InputError, match="nothing to go by"):
            overpaint.inpaint(put(tmp_path / "a.png", values), HOLE, model="mean", dilate=0)


class TestGrey:
    @pytest.mark.parametrize("stored", ["L", "RGB"])
    def test_it_is_filled_with_grey_by_a_network_that_gives_colour(self, tmp_path, stored):
        grey = samples(1, 8)
        values = grey if stored == "L" else np.repeat(grey, 3, axis=2)
        path = put(tmp_path / "a.png", values)
        done = overpaint.inpaint(path, HOLE, model="safepaint-s", out=tmp_path / "b.png")
        assert done.samples.shape[2] == values.shape[2]
        assert (done.pixels == done.pixels[..., :1]).all()
        assert np.unique(done.pixels[HOLE == 1]).size > 10

    def test_one_coloured_pixel_outside_makes_it_a_colour_photo(self, tmp_path):
        values = np.repeat(samples(1, 8), 3, axis=2)
        values[0, 0] = (9, 8, 7)
        path = put(tmp_path / "a.png", values)
        done = overpaint.inpaint(path, HOLE, model="safepaint-s", out=tmp_path / "b.png")
        assert (done.pixels != done.pixels[..., :1])[HOLE == 1].any()
