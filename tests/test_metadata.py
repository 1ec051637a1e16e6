"""EXIF keeps its bytes, XMP its statements, and both get the mark beside them."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from panini.metadata import (
    DIGITAL_SOURCE_TYPE,
    XMP_NAMESPACE,
    marked_xmp,
    sized_exif,
    upright_exif,
)
from panini.photos import Mark, Metadata, Photo, WriteOptions, enlarge, load_photo, write_photo

HEIGHT, WIDTH = 24, 40
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
NOTES = b"Maker's notes, with an offset inside: \x00\x00\x01\x90"

XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">'
    b"Gro\xc3\x9fmutter &amp; Hund</rdf:li></rdf:Alt></dc:title></rdf:Description></rdf:RDF>"
    b'</x:xmpmeta><?xpacket end="w"?>'
)
MARK = Mark(model="mobile-mfr", thetas=(0.41, 0.5333333), settings={"prior_bias": 0.5, "a": "<&>"})


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A smooth colour picture."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 6, y * 10, 255 - x * 3], axis=2).astype(np.uint8)


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.ImageDescription] = "At the lake"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1931:07:05 12:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = NOTES
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def by_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(content: bytes, folder: Path, name: str = "photo") -> Photo:
    path = folder / name
    path.write_bytes(content)
    return load_photo(path)


def test_damaged_exif_costs_only_the_exif(rgb: np.ndarray, tmp_path: Path) -> None:
    for block in (exif_block()[:20], b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + bytes(9), b"Exif\0\0"):
        for kind in ("JPEG", "PNG", "WEBP"):
            photo = load(by_pillow(Image.fromarray(rgb), kind, exif=block), tmp_path)
            assert photo.metadata.exif is None
            assert photo.size == (WIDTH, HEIGHT)


def odd_block(directory: int, tag: int, kind: int, value: bytes) -> bytes:
    """EXIF with one tag of up to 4 bytes, text or a float, in a directory of its own."""
    main = struct.pack("<HHHIII", 1, directory, 4, 1, 26, 0)
    count = 1 if kind == 11 else len(value)
    inner = struct.pack("<HHHI", 1, tag, kind, count) + value.ljust(4, b"\0") + bytes(4)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + main + inner


@pytest.mark.parametrize(
    ("directory", "tag", "kind", "value"),
    [
        (ExifTags.IFD.GPSInfo, ExifTags.GPS.GPSTimeStamp, 2, b"12h\0"),
        (ExifTags.IFD.GPSInfo, ExifTags.GPS.GPSVersionID, 2, b"1\0"),
        (ExifTags.IFD.GPSInfo, ExifTags.GPS.GPSLatitudeRef, 11, bytes(4)),
    ],
    ids=["time as text", "version as text", "text as float"],
)
def test_exif_that_no_tiff_can_hold_is_left_out(
    directory: int,
    tag: int,
    kind: int,
    value: bytes,
    rgb: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    block = odd_block(directory, tag, kind, value)
    content = by_pillow(Image.fromarray(rgb), "JPEG", exif=block, dpi=(300, 300))
    photo = load(content, tmp_path)
    write_photo(tmp_path / "a.tif", photo, WriteOptions(mark=MARK))
    assert "EXIF of a photo is damaged, and is left out" in caplog.text
    written = load_photo(tmp_path / "a.tif")
    assert np.array_equal(written.rgb, photo.rgb)
    assert written.metadata.xmp == marked_xmp(None, MARK)
    assert written.metadata.dpi == photo.metadata.dpi
    # What is not read again is no reason to leave anything out.
    write_photo(tmp_path / "a.webp", photo, WriteOptions())
    assert load_photo(tmp_path / "a.webp").metadata.exif == block


def test_tags_of_another_kind_cost_only_the_exif(rgb: np.ndarray, tmp_path: Path) -> None:
    content = by_pillow(Image.fromarray(rgb), "TIFF", tiffinfo={306: "1931:07:05 12:00:00"})
    text, number = struct.pack("<HHI", 306, 2, 20), struct.pack("<HHI", 306, 5, 1)
    assert text in content
    photo = load(content.replace(text, number), tmp_path)
    assert np.array_equal(photo.rgb, rgb)
    assert photo.metadata.exif is None


def test_exif_keeps_its_bytes() -> None:
    turned, upright = exif_block(6), upright_exif(exif_block(6))
    assert upright == exif_block(1)
    assert [a for a, b in zip(turned, upright, strict=True) if a != b] == [6]
    with pytest.raises(ValueError, match="not an EXIF block"):
        upright_exif(b"Exif\0\0whatever")


def sized_block(order: str, kind: int) -> bytes:
    """EXIF of a photo of 40x24 px that lies on its side: sizes of the file and of the photo."""

    def directory(*entries: tuple[int, int, int]) -> bytes:
        body = struct.pack(f"{order}H", len(entries))
        for tag, type_, value in entries:
            packed = struct.pack(f"{order}{'HH' if type_ == 3 else 'I'}", *[value, 0][: 5 - type_])
            body += struct.pack(f"{order}HHI", tag, type_, 1) + packed
        return body + bytes(4)

    main = directory((0x0100, kind, 40), (0x0101, kind, 24), (0x0112, 3, 6), (0x8769, 4, 62))
    head = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + main + directory((0xA001, 3, 1), (0xA002, kind, 40), (0xA003, kind, 24))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_sizes_follow_the_photo(order: str, kind: int, rgb: np.ndarray, tmp_path: Path) -> None:
    block = sized_block(order, kind)
    content = by_pillow(Image.fromarray(rgb), "JPEG", exif=block)
    photo = load(content, tmp_path)
    for factor, suffix in ((1, ".jpg"), (2, ".png"), (1, ".tif")):
        path = tmp_path / f"{factor}{suffix}"
        write_photo(path, enlarge(photo, factor), WriteOptions())
        with Image.open(path) as image:
            exif = image.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            assert (details[0xA002], details[0xA003]) == image.size == (24 * factor, 40 * factor)
            assert (exif[0x0100], exif[0x0101]) == image.size
            assert details[0xA001] == 1
            if suffix != ".tif":
                assert len(image.info["exif"].removeprefix(b"Exif\0\0")) == len(block) - 6


def test_sizes_of_a_damaged_block_stay() -> None:
    block = sized_block("<", 4)
    assert sized_exif(block, (70_000, 24)) != block
    for damaged in (block[:60], block[:100], b"whatever"):
        assert sized_exif(damaged, (7, 7)) == damaged
    # What is no number is none of these tags.
    odd = block.replace(struct.pack("<HHI", 0xA002, 4, 1), struct.pack("<HHI", 0xA002, 2, 4))
    assert sized_exif(odd, (40, 24)) == odd


def statements(xmp: bytes) -> dict[str, list[str]]:
    """Name → texts of all properties, whichever way they are written."""
    found: dict[str, list[str]] = {}
    for statement in ElementTree.fromstring(xmp.decode().strip()).iter(f"{RDF}Description"):
        for name, value in statement.attrib.items():
            found.setdefault(name, []).append(value)
        for element in statement:
            found.setdefault(element.tag, []).append("".join(element.itertext()))
    return found


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("before", [None, XMP], ids=["no XMP", "XMP"])
def test_marked(suffix: str, before: bytes | None, rgb: np.ndarray, tmp_path: Path) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    photo = Photo(rgb=rgb, metadata=Metadata(xmp=before))
    write_photo(tmp_path / f"a{suffix}", photo, WriteOptions(mark=MARK))
    xmp = load_photo(tmp_path / f"a{suffix}").metadata.xmp
    assert xmp is not None
    said = statements(xmp)
    assert said[f"{IPTC}DigitalSourceType"] == [DIGITAL_SOURCE_TYPE]
    assert said[f"{IPTC}AISystemUsed"] == ["panini-net, model mobile-mfr"]
    panini = f"{{{XMP_NAMESPACE}}}"
    assert said[f"{panini}Thetas"] == ["[0.41, 0.5333]"]
    assert said[f"{panini}Settings"] == ['{"prior_bias": 0.5, "a": "<&>"}']
    (note,) = said[f"{panini}Note"]
    assert "faces drawn anew by mobile-mfr, θ 0.41 0.53, settings {" in note
    title = "{http://purl.org/dc/elements/1.1/}title"
    assert said.get(title) == (["Großmutter & Hund"] if before else None)


def test_mark_is_put_in_beside_the_rest() -> None:
    marked = marked_xmp(XMP, MARK)
    start = marked.index(b"<rdf:Description xmlns:rdf")
    end = marked.index(b"</rdf:RDF>")
    assert marked[:start] + marked[end:] == XMP


def test_second_mark_takes_the_place_of_the_first() -> None:
    once = marked_xmp(XMP, Mark(model="older"))
    assert marked_xmp(once, MARK) == marked_xmp(XMP, MARK)


@pytest.mark.parametrize(
    "said",
    [
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s" e:DigitalSourceType="camera"/>',
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s"><e:DigitalSourceType>camera'
        b"</e:DigitalSourceType></rdf:Description>",
        b'<rdf:Description rdf:about="uuid:7" xmlns:e="%s">'
        b'<e:DigitalSourceType rdf:resource="camera"/></rdf:Description>',
    ],
)
def test_another_source_type_gives_way(said: bytes) -> None:
    start = XMP.index(b"<rdf:Description")
    marked = marked_xmp(XMP[:start] + said % IPTC[1:-1].encode() + XMP[start:], MARK)
    assert statements(marked)[f"{IPTC}DigitalSourceType"] == [DIGITAL_SOURCE_TYPE]
    assert b"camera" not in marked
    assert b"Hund" in marked
    assert statements(marked)[f"{RDF}about"][-1] == "uuid:7"


@pytest.mark.parametrize(
    "xmp",
    [
        b"no XML",
        XMP[:-100],
        b"<x><Iptc4xmpExt:DigitalSourceType>" * 9,
        b"\xff\xfe\xff",
        XMP.replace(b"<x:xmpmeta", b"<!DOCTYPE x><x:xmpmeta"),
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    ],
)
def test_damaged_xmp_gives_way_to_the_mark(xmp: bytes) -> None:
    assert marked_xmp(xmp, MARK) == marked_xmp(None, MARK)


def test_control_characters_in_a_name() -> None:
    said = statements(marked_xmp(None, Mark(model="a\x07<b>\n", thetas=())))
    assert said[f"{{{XMP_NAMESPACE}}}Model"] == ["a?<b>?"]


def test_orientation_in_the_xmp_is_reset(rgb: np.ndarray, tmp_path: Path) -> None:
    for said in (b' tiff:Orientation="6"', b"><tiff:Orientation>6</tiff:Orientation></"):
        assert b"6" in said
        xmp = b"<x>" + said + b"</x>"
        photo = load(by_pillow(Image.fromarray(rgb), "JPEG", xmp=xmp), tmp_path)
        assert photo.metadata.xmp == xmp.replace(b"6", b"1")


def test_formats_without_metadata_take_a_mark(rgb: np.ndarray, tmp_path: Path) -> None:
    photo = Photo(rgb=rgb, metadata=Metadata(xmp=XMP, exif=exif_block()))
    for suffix in (".bmp", ".gif"):
        write_photo(tmp_path / f"a{suffix}", photo, WriteOptions(mark=MARK))
    with Image.open(tmp_path / "a.gif") as image:
        assert b"faces drawn anew by mobile-mfr" in image.info["comment"]


def test_tags_of_a_tiff_stay_with_it(rgb: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "Scanner 1.0"
    photo = load(by_pillow(Image.fromarray(rgb), "TIFF", exif=exif, dpi=(600, 600)), tmp_path)
    write_photo(tmp_path / "b.jpg", photo, WriteOptions())
    with Image.open(tmp_path / "b.jpg") as image:
        found = dict(image.getexif())
        assert image.info["dpi"] == (600, 600)
    assert found.pop(ExifTags.Base.Software) == "Scanner 1.0"
    # Not where the pixels of the TIFF were.
    assert set(found) <= {ExifTags.Base.XResolution, ExifTags.Base.YResolution, 0x0128}


def test_an_exif_that_names_its_directory_a_thousand_times_is_followed_once():
    entries = b"".join(struct.pack("<HHII", 0x8769, 4, 1, 8) for _ in range(5000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries + bytes(4)
    assert sized_exif(exif, (3, 4)) == exif
