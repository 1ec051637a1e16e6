"""Reading, converting and writing images, and what is said when that fails."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panini import decoding, images
from panini.errors import ImageError


@pytest.fixture(scope="module")
def pixels() -> images.RgbImage:
    """A smooth colour picture, 40 x 60 px, that lossy formats keep well."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 3], axis=2).astype(np.uint8)


def deviation(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("suffix", sorted(images.OUTPUT_SUFFIXES))
def test_written_is_read_again(suffix: str, pixels: images.RgbImage, tmp_path: Path) -> None:
    if suffix in {".heic", ".heif"}:
        pytest.importorskip("pillow_heif")
    path = tmp_path / f"picture{suffix.upper()}"
    images.write_rgb(path, pixels)
    lossy = images.FORMATS[suffix].lossy or suffix == ".gif"
    assert deviation(images.read_rgb(path), pixels) <= (24 if lossy else 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode: str, pixels: images.RgbImage) -> None:
    image = Image.fromarray(pixels).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    result = images.load_image(image)
    assert result.dtype == np.uint8
    assert result.shape == pixels.shape
    assert deviation(result, expected) <= 1


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_keeps_its_range(mode: str, pixels: images.RgbImage) -> None:
    grey = pixels[..., 0]
    if mode == "F":
        deep = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        deep = Image.fromarray(grey.astype(np.uint16) * 257)
        deep = deep if mode == "I;16" else deep.convert("I")
    assert deep.mode == mode
    assert np.array_equal(images.load_image(deep), np.repeat(grey[..., None], 3, axis=2))


def test_orientation_is_applied(pixels: images.RgbImage, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(images.read_rgb(tmp_path / "a.png"), np.rot90(pixels, -1))


def test_transparent_pixels_become_white(pixels: images.RgbImage) -> None:
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:20] = 255
    result = images.load_image(Image.fromarray(np.concatenate([pixels, alpha], axis=2)))
    assert np.array_equal(result[:20], pixels[:20])
    assert np.all(result[20:] == 255)


def test_damaged_exif_costs_only_the_exif(pixels: images.RgbImage, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    for block in (exif.tobytes()[:20], b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + bytes(9)):
        Image.fromarray(pixels).save(path, exif=block)
        assert images.read_rgb(path).shape == pixels.shape


def test_png_text_is_stored(pixels: images.RgbImage, tmp_path: Path) -> None:
    images.write_rgb(tmp_path / "a.png", pixels, pnginfo={"panini:theta": "θ ½"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"panini:theta": "θ ½"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_truncated_file(kind: str, share: float, pixels: images.RgbImage, tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    whole = buffer.getvalue()
    (tmp_path / "a.img").write_bytes(whole[: max(8, int(len(whole) * share))])
    with pytest.raises(ImageError, match=r"a\.img: .*truncated"):
        images.read_rgb(tmp_path / "a.img")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "phone.heic").write_bytes(b"....ftypheic")
    for name, error, words in (
        ("missing.jpg", ImageError, "does not exist"),
        (".", ImageError, "is a folder"),
        ("empty.jpg", ImageError, "the file is empty"),
        ("text.jpg", ImageError, "not an image"),
    ):
        with pytest.raises(error, match=words) as caught:
            images.read_rgb(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [2000, 100])
def test_decompression_bomb(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Below Pillow's own limit it is ours that counts; far above, Pillow raises by itself.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit if limit < 1000 else None)
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    with (
        pytest.raises(ImageError, match=r"more than \S+ megapixels"),
        decoding.open_image(tmp_path / "a.png", limit),
    ):
        pass


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)],
    ids=["float", "grey", "alpha"],
)
def test_array_of_another_kind(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"expected a uint8 array \(height, width, 3\)"):
        images.load_image(array)


def test_empty_array() -> None:
    with pytest.raises(ImageError, match="with pixels"):
        images.load_image(np.zeros((0, 4, 3), np.uint8))


def test_existing_file_stays(pixels: images.RgbImage, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(ImageError, match="exists already; to replace it: --overwrite"):
        images.write_rgb(path, pixels)
    assert path.read_bytes() == b"mine"
    images.write_rgb(path, pixels, overwrite=True)
    assert np.array_equal(images.read_rgb(path), pixels)


def test_failed_write_leaves_nothing(
    pixels: images.RgbImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written \(No space left"):
        images.write_rgb(path, pixels, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.xyz", "cannot write '.xyz'"), ("no/a.png", "the folder .* does not exist")],
)
def test_impossible_output(name: str, words: str, pixels: images.RgbImage, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=words):
        images.write_rgb(tmp_path / name, pixels)


def test_too_wide_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written as WEBP"):
        images.write_rgb(tmp_path / "a.webp", np.zeros((1, 20000, 3), np.uint8))


def test_folder_as_output(pixels: images.RgbImage, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="is a folder, expected a file"):
        images.write_rgb(tmp_path / "a.png", pixels)


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = images.find_images([tmp_path, tmp_path / "notes.txt", tmp_path / "missing.png"])
    assert [p.name for p in found] == ["a.png", "b.JPG", "notes.txt", "missing.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="holds no image"):
        images.find_images([tmp_path / "none"])


def test_tensors_and_back(pixels: images.RgbImage) -> None:
    tensor = images.to_tensor(pixels)
    assert tensor.shape == (1, 3, 40, 60)
    assert tensor.dtype == torch.float32
    assert tensor[0, 0, 0, 0] == -1
    assert tensor[0, 2, 0, 0] == 1
    first, second = images.to_uint8(torch.cat([tensor, tensor * 3]))
    assert np.array_equal(first, pixels)
    assert second.min() == 0
    assert second.max() == 255


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path):
    path = tmp_path / ("a" * 251 + ".png")
    images.write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"
    with pytest.raises(ImageError, match=r"cannot be written \(File name too long\)"):
        images.write_whole(tmp_path / ("a" * 252 + ".png"), b"whole")
    assert list(tmp_path.iterdir()) == [path]
