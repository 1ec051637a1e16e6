"""Photos through the Restorer, with a network that gives back what it gets, and the tiny one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor, nn

from panini.checkpoints import save_model
from panini.errors import CheckpointError, ConfigError, ImageError
from panini.faces.align import TEMPLATE, apply
from panini.faces.detect import Face, FaceDetector
from panini.faces.paste import PasteOptions, paste_into
from panini.metadata import DIGITAL_SOURCE_TYPE
from panini.models.fusion import FusionControl
from panini.models.panini_net import PaniniNet, PaniniOutput
from panini.photos import Metadata, Photo, WriteOptions, load_photo, write_photo
from panini.restorer import Restorer
from panini.runtime import keep_memory, resolve_device

PLAIN = PasteOptions(match_colour=False)  # tints are to be seen


@dataclass(frozen=True)
class Levels:
    prior_channels: dict[int, int] = field(default_factory=lambda: {32: 8, 64: 8})


@dataclass(frozen=True)
class Sizes:
    in_size: int
    out_size: int
    fusion: Levels = field(default_factory=Levels)
    task: str = "mfr"
    degradation_encoder: str | None = "there is one"


class Echo(nn.Module):
    """Enlarges the face it gets, in a given tint; θ is the face's number in its batch."""

    def __init__(self, tint: float = 0.0) -> None:
        super().__init__()
        self.config = Sizes(128, 256)
        self.tint = tint
        self.batches: list[int] = []
        self.controls: list[FusionControl | None] = []

    def forward(self, lq: Tensor, control: FusionControl | None = None) -> PaniniOutput:
        assert lq.shape[1:] == (3, 128, 128)
        assert -1 <= lq.min() < lq.max() <= 1
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(lq))
        self.controls.append(control)
        image = nn.functional.interpolate(lq, scale_factor=2, mode="bilinear") + self.tint
        theta = torch.arange(len(lq)) / 10
        return PaniniOutput(image, {}, theta, torch.zeros(1), torch.zeros(1))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def crowd(astronaut: np.ndarray) -> np.ndarray:
    """Six heads in two rows, 480 x 320 px."""
    head = Image.fromarray(astronaut[:256, 97:353]).resize((160, 160), Image.Resampling.BOX)
    return np.tile(np.asarray(head), (2, 3, 1))


class Recorded:
    """Finds what was found before: looking takes long."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = faces

    def detect(self, photo: np.ndarray, *, min_face: float = 24.0) -> list[Face]:
        return self.faces


@pytest.fixture(scope="module")
def face(astronaut: np.ndarray) -> Face:
    (found,) = FaceDetector().detect(astronaut)
    return found


def knowing(net: nn.Module, *faces: Face, name: str = "unnamed") -> Restorer:
    """A restorer that knows where the faces are."""
    restorer = Restorer(net, device="cpu", name=name)
    restorer.detector = Recorded(list(faces))
    return restorer


def test_only_the_face_changes(astronaut: np.ndarray) -> None:
    before = astronaut.copy()
    result = Restorer(Echo(tint=0.5), device="cpu").restore(astronaut, paste=PLAIN)
    assert np.array_equal(astronaut, before)
    assert result.image.size == (512, 512)
    (face,) = result.faces
    change = np.asarray(result.image).astype(int) - astronaut
    left, top, right, bottom = (round(edge) for edge in face.box)
    skin = change[(top + bottom) // 2 :, left:right][:20]
    assert 50 < skin.mean() < 70  # the tint is 64 levels
    margin = 60
    outside = np.ones((512, 512), bool)
    outside[top - margin : bottom + margin, left - margin : right + margin] = False
    assert not change[outside].any()


def test_echo_changes_little(astronaut: np.ndarray) -> None:
    result = Restorer(Echo(), device="cpu").restore(astronaut)
    change = np.abs(np.asarray(result.image).astype(int) - astronaut)
    assert 0 < change[60:180, 180:270].mean() < 4


def test_faces_tell_how_they_were_made(astronaut: np.ndarray) -> None:
    (face,) = Restorer(Echo(), device="cpu").restore(Image.fromarray(astronaut)).faces
    assert face.lq.size == (128, 128)
    assert face.restored.size == (256, 256)
    assert face.theta == 0
    found = apply(face.matrix, face.landmarks) / 256
    assert np.abs(found - TEMPLATE).max() < 0.06
    assert face.box[0] < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < face.box[2]


def test_batches_of_four(crowd: np.ndarray) -> None:
    net = Echo()
    result = Restorer(net, device="cpu").restore(crowd)
    assert net.batches == [4, 2]
    assert net.controls == [None, None]
    assert [round(face.theta, 1) for face in result.faces] == [0, 0.1, 0.2, 0.3, 0, 0.1]


def test_upscale(astronaut: np.ndarray, face: Face) -> None:
    restorer = knowing(Echo(tint=0.5), face)
    one, two = (restorer.restore(astronaut, upscale=factor, paste=PLAIN) for factor in (1, 2))
    assert two.image.size == (1024, 1024)
    assert two.faces[0].box == one.faces[0].box
    lanczos = Image.fromarray(astronaut).resize((1024, 1024), Image.Resampling.LANCZOS)
    change = np.asarray(two.image).astype(int) - np.asarray(lanczos)
    assert not change[600:].any()
    y, x = np.nonzero(np.abs(change).max(axis=2) > 30)
    centre = (
        apply(
            np.linalg.inv(np.vstack([one.faces[0].matrix, (0, 0, 1)]))[:2],
            np.array([[128.0, 128.0]]),
        )
        * 2
    )[0]
    # The mask reaches further down than up.
    np.testing.assert_allclose((x.mean(), y.mean()), centre, atol=16)


def test_no_face_leaves_the_photo(tmp_path: Path) -> None:
    photo = np.full((90, 120, 3), 77, np.uint8)
    net = Echo()
    result = Restorer(net, device="cpu").restore(photo)
    assert result.faces == []
    assert net.batches == []
    assert np.array_equal(np.asarray(result.image), photo)


@pytest.mark.parametrize("side", [40, 128, 500])
def test_aligned(side: int, astronaut: np.ndarray) -> None:
    net = Echo()
    crop = Image.fromarray(astronaut).resize((side, side), Image.Resampling.BOX)
    result = Restorer(net, device="cpu").restore_aligned(crop, prior_bias=1.5)
    assert result.image.size == (256, 256)
    assert net.controls == [FusionControl(bias=1.5)]
    (face,) = result.faces
    assert face.box == (0, 0, side, side)
    np.testing.assert_allclose(apply(face.matrix, face.landmarks), TEMPLATE * 256, rtol=1e-5)
    # Enlarged as Eq. 10 does, shrunk by the mean; nothing dark at the borders.
    method = cv2.INTER_LINEAR if side <= 128 else cv2.INTER_AREA
    expected = cv2.resize(np.asarray(crop), (128, 128), interpolation=method)
    change = np.abs(np.asarray(face.lq).astype(int) - expected)
    assert change.mean() < 4
    assert change[0].mean() < 6


def test_saved_with_metadata_and_a_mark(astronaut: np.ndarray, face: Face, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(astronaut).save(tmp_path / "in.png", icc_profile=profile)
    result = knowing(Echo(), face, name="echo").restore(tmp_path / "in.png", upscale=2)
    assert result.image.info["icc_profile"] == profile
    result.save(tmp_path / "out.png")
    saved = load_photo(tmp_path / "out.png")
    assert saved.metadata.icc_profile == profile
    assert np.array_equal(saved.rgb, np.asarray(result.image))
    xmp = (saved.metadata.xmp or b"").decode()
    assert DIGITAL_SOURCE_TYPE in xmp
    assert "<panini:Model>echo</panini:Model>" in xmp
    assert "<panini:Thetas>[0.0]</panini:Thetas>" in xmp
    assert '"upscale": 2' in xmp
    assert f'"boxes": [[{result.faces[0].box[0]:.1f}, ' in xmp
    assert '"models": ["echo"]' in xmp
    assert '"theta_fixed": [false]' in xmp
    words = "exists already; to replace it: --overwrite, in Python overwrite=True"
    with pytest.raises(ImageError, match=words):
        result.save(tmp_path / "out.png")
    result.save(tmp_path / "out.png", overwrite=True, mark=False)
    assert load_photo(tmp_path / "out.png").metadata.xmp is None
    result.save(tmp_path / "small.jpg", quality=20)
    result.save(tmp_path / "large.jpg")
    assert (tmp_path / "small.jpg").stat().st_size < (tmp_path / "large.jpg").stat().st_size / 2


def test_photo_without_faces_is_not_marked(tmp_path: Path) -> None:
    result = Restorer(Echo(), device="cpu").restore(np.full((90, 120, 3), 77, np.uint8))
    result.save(tmp_path / "a.png")
    assert load_photo(tmp_path / "a.png").metadata == Metadata()


def deepened(photo: np.ndarray) -> np.ndarray:
    """16 bits that are `photo` when rounded."""
    noise = np.random.default_rng(1).integers(-128, 129, photo.shape)
    return np.clip(photo.astype(int) * 257 + noise, 0, 65535).astype(np.uint16)


def test_16_bits_stay_outside_the_face(astronaut: np.ndarray, face: Face, tmp_path: Path) -> None:
    deep = deepened(astronaut)
    alpha = np.tile(np.linspace(0, 65535, 512).astype(np.uint16), (512, 1))
    write_photo(tmp_path / "in.tif", Photo(rgb=astronaut, deep=deep, alpha=alpha), WriteOptions())
    result = knowing(Echo(tint=0.5), face).restore(tmp_path / "in.tif", paste=PLAIN)
    result.save(tmp_path / "out.tif")
    after = load_photo(tmp_path / "out.tif")
    assert after.deep is not None
    assert np.array_equal(after.deep, result.photo.deep)  # pyright: ignore
    assert np.array_equal(after.alpha, alpha)  # pyright: ignore
    assert result.image.mode == "RGBA"
    # Bit for bit where no face covers it, and that is most of it.
    (drawn_face,) = result.faces
    coverage = np.zeros((512, 512), np.float32)
    drawn = astronaut.copy()
    crop = np.asarray(drawn_face.restored)
    paste_into(drawn, crop, drawn_face.matrix, coverage=coverage, options=PLAIN)
    outside = coverage == 0
    assert 0.6 < outside.mean() < 0.95
    assert np.array_equal(after.deep[outside], deep[outside])
    assert not np.array_equal(after.deep[~outside], deep[~outside])
    # The face is that of the 8-bit photo, at 16 bits.
    assert np.abs(after.deep / 257 - drawn).max() <= 1
    solid = coverage == 1
    assert solid.mean() > 0.02
    assert np.array_equal(after.deep[solid], drawn[solid].astype(int) * 257)


def test_alpha_and_16_bits_are_enlarged(astronaut: np.ndarray, face: Face) -> None:
    alpha = np.full((512, 512), 200, np.uint8)
    photo = Photo(rgb=astronaut, deep=deepened(astronaut), alpha=alpha)
    result = knowing(Echo(), face).restore(photo, upscale=2).photo
    assert result.deep is not None
    assert result.deep.shape == (1024, 1024, 3)
    assert np.array_equal(result.alpha, np.full((1024, 1024), 200))  # pyright: ignore


def test_grey_photo_stays_grey(astronaut: np.ndarray, face: Face, tmp_path: Path) -> None:
    Image.fromarray(astronaut).convert("L").save(tmp_path / "a.png")
    restorer = knowing(Reddening(), face)
    result = restorer.restore(tmp_path / "a.png")
    assert result.image.mode == "L"
    assert len(result.faces) == 1
    assert is_grey(np.asarray(result.faces[0].restored))
    result.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as saved:
        assert saved.mode == "L"
    coloured = restorer.restore(tmp_path / "a.png", keep_colour=True, paste=PLAIN)
    assert coloured.image.mode == "RGB"
    assert not is_grey(np.asarray(coloured.faces[0].restored))
    (face,) = coloured.faces
    head = np.asarray(coloured.image.crop(tuple(map(round, face.box))))
    assert not is_grey(head)


def test_grey_crop_stays_grey(astronaut: np.ndarray) -> None:
    crop = Image.fromarray(astronaut).convert("L")
    restorer = Restorer(Reddening(), device="cpu")
    assert restorer.restore_aligned(crop).image.mode == "L"
    coloured = restorer.restore_aligned(crop, keep_colour=True)
    assert coloured.image.mode == "RGB"
    assert not is_grey(np.asarray(coloured.image))


def test_grey_photo_in_a_file_for_colours(astronaut: np.ndarray, face: Face) -> None:
    photo = np.asarray(Image.fromarray(astronaut).convert("L").convert("RGB"))
    restorer = knowing(Reddening(), face)
    result = restorer.restore(photo)
    assert result.image.mode == "RGB"
    assert is_grey(np.asarray(result.image))
    coloured = restorer.restore(photo, keep_colour=True, paste=PLAIN)
    assert not is_grey(np.asarray(coloured.image))


class Reddening(Echo):
    """Gives every face a red tint."""

    def forward(self, lq: Tensor, control: FusionControl | None = None) -> PaniniOutput:
        output = super().forward(lq, control)
        red = output.image + torch.tensor([0.3, 0.0, 0.0])[None, :, None, None]
        return PaniniOutput(red, {}, output.theta, torch.zeros(1), torch.zeros(1))


def is_grey(image: np.ndarray) -> bool:
    return bool(np.all(image == image[..., :1]))


def test_some_of_the_faces(crowd: np.ndarray) -> None:
    restorer = Restorer(Echo(tint=0.5), device="cpu")
    every = restorer.restore(crowd).faces
    (second,) = restorer.restore(crowd, faces=2).faces
    assert second.box == every[1].box
    (largest,) = restorer.restore(crowd, faces="largest").faces
    assert largest.box == every[0].box
    with pytest.raises(ConfigError, match="there is no face 9, the photo has 6 faces"):
        restorer.restore(crowd, faces=9)
    with pytest.raises(ConfigError, match="expected all, largest, center or a number"):
        restorer.restore(np.zeros((9, 9, 3), np.uint8), faces="left")


def test_redrawn(astronaut: np.ndarray, face: Face) -> None:
    restorer = knowing(Echo(), face)
    first = restorer.restore(astronaut, upscale=2)
    black = replace(first.faces[0], restored=Image.new("RGB", (256, 256)), theta=0.7)
    again = restorer.redraw(first, [black])
    assert again.faces == [black]
    assert again.image.size == (1024, 1024)
    assert again.settings == first.settings
    assert not np.array_equal(np.asarray(again.image), np.asarray(first.image))
    assert np.array_equal(np.asarray(again.image)[700:], np.asarray(first.image)[700:])
    back = restorer.redraw(again, first.faces)
    assert np.array_equal(np.asarray(back.image), np.asarray(first.image))
    none = restorer.redraw(first, [])
    lanczos = Image.fromarray(astronaut).resize((1024, 1024), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(none.image), np.asarray(lanczos))


def test_drawn_again(astronaut: np.ndarray, face: Face) -> None:
    torch.manual_seed(0)
    restorer = knowing(PaniniNet.named("tiny"), face)
    (first,) = restorer.restore(astronaut).faces
    (biased,) = restorer.restore(astronaut, prior_bias=2.0).faces
    again = restorer.draw_again(first, prior_bias=2.0)
    assert again.theta == biased.theta
    assert np.array_equal(np.asarray(again.restored), np.asarray(biased.restored))
    assert (again.box, again.model, again.lq) == (first.box, first.model, first.lq)
    grey = replace(first, lq=first.lq.convert("L").convert("RGB"))
    assert is_grey(np.asarray(restorer.draw_again(grey).restored))
    with pytest.raises(ConfigError, match="prior_bias: no level 128"):
        restorer.draw_again(first, prior_bias={128: 1.0})


def test_aligned_face_is_redrawn(astronaut: np.ndarray) -> None:
    restorer = Restorer(Echo(), device="cpu")
    first = restorer.restore_aligned(astronaut)
    black = replace(first.faces[0], restored=Image.new("RGB", (256, 256)))
    assert not np.asarray(restorer.redraw(first, [black]).image).any()
    with pytest.raises(ConfigError, match="expected the one aligned face, got 0"):
        restorer.redraw(first, [])


def test_bias_by_level(astronaut: np.ndarray, face: Face) -> None:
    net = Echo()
    result = knowing(net, face).restore(astronaut, prior_bias={64: 1.0, 32: -2.0})
    assert net.controls == [FusionControl(bias={64: 1.0, 32: -2.0})]
    assert result.settings["prior_bias"] == {"64": 1.0, "32": -2.0}
    with pytest.raises(ConfigError, match="prior_bias: no level 128; this model has 32, 64"):
        knowing(net, face).restore(astronaut, prior_bias={128: 1.0})
    with pytest.raises(ConfigError, match="prior_bias: expected -3 to 3, got inf"):
        knowing(net, face).restore_aligned(astronaut, prior_bias={64: float("inf")})


def test_tiny_network(astronaut: np.ndarray, face: Face) -> None:
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    restorer = knowing(net, face)
    (face,) = restorer.restore(astronaut).faces
    assert 0 < face.theta < 1
    assert face.restored.size == (net.config.out_size,) * 2
    (trusting,) = restorer.restore(astronaut, prior_bias=3.0).faces
    assert trusting.theta > face.theta + 0.2
    finest = max(net.config.fusion.prior_channels)
    (finely,) = restorer.restore(astronaut, prior_bias={finest: 3.0}).faces
    assert abs(finely.theta - trusting.theta) < 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"upscale": 3}, "upscale: expected 1, 2 or 4, got 3"),
        ({"prior_bias": float("nan")}, "prior_bias: expected -3 to 3, got nan"),
        ({"prior_bias": 5}, "prior_bias: expected -3 to 3, got 5"),
        ({"prior_bias": {64: -3.01}}, "prior_bias: expected -3 to 3, got -3.01"),
        ({"prior_bias": "64=1"}, r"prior_bias: expected a number, or numbers .*, got '64=1'"),
        ({"prior_bias": None}, r"prior_bias: expected a number, or numbers .*, got None"),
        ({"prior_bias": {64: "1"}}, r"prior_bias: expected a number, or numbers .*, got '1'"),
        ({"prior_bias": {None: 1}}, "prior_bias: expected a level in px, got None"),
        ({"min_face": 3}, "min_face: expected at least 12 px, got 3"),
        ({"min_face": "30"}, "min_face: expected at least 12 px, got '30'"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Restorer(Echo(), device="cpu").restore(np.zeros((9, 9, 3), np.uint8), **options)


def test_bad_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer(Echo(), device="cpu")
    with pytest.raises(ImageError, match=r"missing\.png: does not exist"):
        restorer.restore(tmp_path / "missing.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: expected a square aligned face, got 30x40 px"):
        restorer.restore_aligned(tmp_path / "a.png")
    monkeypatch.setattr("panini.photos.MAX_PIXELS", 10_000)
    with pytest.raises(ImageError, match=r"upscale 4: 120x160 px is more .* takes photos of up to"):
        restorer.restore(tmp_path / "a.png", upscale=4)
    whole = BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "JPEG")
    with pytest.raises(ImageError, match=r"image: is truncated or damaged"):
        restorer.restore(Image.open(BytesIO(whole.getvalue()[:-400])))


@pytest.mark.parametrize("image", [None, b"\xff\xd8\xff", [[1, 2]], 7])
def test_what_is_no_image(image: object) -> None:
    restorer = Restorer(Echo(), device="cpu")
    kind = type(image).__name__
    words = rf"image: expected a path, a PIL image, or a uint8 array .*, got {kind}"
    for restore in (restorer.restore, restorer.restore_aligned):
        with pytest.raises(ImageError, match=words):
            restore(image)


def test_a_bias_of_another_library_is_a_number(astronaut: np.ndarray, face: Face) -> None:
    bias = np.float32(0.5)
    result = knowing(Echo(), face).restore(astronaut, prior_bias={np.int64(64): bias})
    assert json.dumps(result.settings["prior_bias"]) == '{"64": 0.5}'


def test_a_callers_array_may_change_afterwards() -> None:
    frame = np.full((64, 64, 3), 200, np.uint8)
    result = Restorer(Echo(), device="cpu").restore(frame)
    frame[:] = 0
    assert np.asarray(result.image).mean() == 200


def test_settings_can_be_given_again(astronaut: np.ndarray, face: Face) -> None:
    restorer = knowing(Echo(), face)
    first = restorer.restore(astronaut, prior_bias={64: 0.5}, paste=PLAIN)
    again = restorer.restore(astronaut, prior_bias=first.settings["prior_bias"], paste=PLAIN)
    assert again.options == first.options
    with pytest.raises(ConfigError, match="prior_bias: expected a level in px, got 'fine'"):
        restorer.restore(astronaut, prior_bias={"fine": 1.0})


def test_threads_may_share_a_restorer(astronaut: np.ndarray) -> None:
    restorer = Restorer(Echo(), device="cpu")
    alone = np.asarray(restorer.restore(astronaut).image)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(restorer.restore, [astronaut] * 4):
            np.testing.assert_array_equal(np.asarray(result.image), alone)


def test_name_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(PaniniNet.named("tiny"), path, provenance={})
    assert Restorer.from_pretrained(path, device="cpu").name == "mine.safetensors"
    assert Restorer(Echo(), device="cpu").name == "unnamed"


def test_unknown_model_and_device() -> None:
    with pytest.raises(CheckpointError, match="no-such-model: unknown model; known:"):
        Restorer.from_pretrained("no-such-model", device="cpu")
    with pytest.raises(ConfigError, match="device tpu: not available here; use auto or"):
        Restorer.from_pretrained("no-such-model", device="tpu")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in {"cpu", "cuda", "mps"}
    for name in ("cuda:99", "cpu:x", ""):
        with pytest.raises(ConfigError):
            resolve_device(name)


def test_memory_is_kept_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_memory() in {True, False}
    monkeypatch.setattr("platform.system", lambda: "Windows")
    keep_memory.cache_clear()
    assert keep_memory() is False
    keep_memory.cache_clear()
