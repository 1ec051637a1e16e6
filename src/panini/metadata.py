"""What a photo carries beside its pixels, and the mark that says that an algorithm altered it."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import ExifTags, Image

from panini.decoding import BAD_EXIF

DIGITAL_SOURCE_TYPE = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
"""IPTC's word for a photo of which parts were drawn by a trained algorithm."""

XMP_NAMESPACE = "urn:panini-net:xmp:1.0/"
"""Of the properties Note, Model, Thetas and Settings that the mark adds to a photo's XMP."""

_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_REPLACED = {
    _IPTC: ("Iptc4xmpExt", ("DigitalSourceType", "AISystemUsed", "AISystemVersionUsed")),
    XMP_NAMESPACE: ("panini", ("Note", "Model", "Thetas", "Settings")),
}

_ORIENTATION = 0x0112
_SIDES = {0x0100: 0, 0xA002: 0, 0x0101: 1, 0xA003: 1}  # Widths are 0, heights 1.
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# What tells of the photo. The other tags of a TIFF tell where its pixels lie.
_DESCRIPTIVE = frozenset(
    {
        *(0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C),
        *(0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, *_DIRECTORIES),
    }
)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a photo carries beside its pixels."""

    icc_profile: bytes | None = None
    """Colour profile, for RGB or for grey; None when the photo has none that fits its pixels."""
    exif: bytes | None = None
    """EXIF block: of an upright photo, and without its thumbnail."""
    xmp: bytes | None = None
    """XMP packet, UTF-8."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch of paper, across and down: a scan's true size."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Says that an algorithm drew parts of a photo, which one, and how much it invented."""

    model: str
    """Name of the model, or of its file."""
    thetas: tuple[float, ...] = ()
    """θ of each face: the higher, the more was invented."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it was told to do: anything that JSON can say."""

    @property
    def note(self) -> str:
        """All of it in one line."""
        from panini import __version__

        thetas = " ".join(f"{theta:.2f}" for theta in self.thetas)
        return (
            f"panini-net {__version__}: faces drawn anew by {_plain(self.model)}, "
            f"θ {thetas}, settings {_json(self.settings)}"
        )


def read_metadata(image: Image.Image) -> Metadata:
    """What a loaded image carries; what is damaged is left out."""
    profile = image.info.get("icc_profile")
    # Bytes 16-19 of a profile name its colour space: pixels that become RGB lose one for CMYK.
    if not isinstance(profile, bytes) or profile[16:20] not in (b"RGB ", b"GRAY"):
        profile = None
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return Metadata(
        icc_profile=profile,
        exif=_read_exif(image),
        xmp=_upright_xmp(xmp) if isinstance(xmp, bytes) else None,
        dpi=_read_dpi(image),
    )


def upright_exif(exif: bytes) -> bytes:
    """The block (or a TIFF file) with orientation 1 and without thumbnail, the rest to the byte.

    Makers' notes point into the block, so that nothing in it may move.

    Raises:
        ValueError: It is damaged.
    """
    body, order = _unwrapped(exif)
    try:
        (start,) = struct.unpack_from(f"{order}I", body, 4)
        entries = _entries(body, order, start)
        for tag, place in entries:
            if tag == _ORIENTATION:
                struct.pack_into(f"{order}HIHH", body, place + 2, 3, 1, 1, 0)
        # The next directory is the thumbnail's, which shows the face as it was.
        struct.pack_into(f"{order}I", body, start + 2 + 12 * len(entries), 0)
    except struct.error as error:
        raise ValueError(f"damaged EXIF ({error})") from error
    return b"Exif\0\0" + bytes(body)


def sized_exif(exif: bytes, size: tuple[int, int]) -> bytes:
    """The block with another width and height where it tells them, the rest to the byte.

    A damaged block stays as it is.
    """
    with contextlib.suppress(ValueError, struct.error):
        body, order = _unwrapped(exif)
        entries = _entries(body, order, *struct.unpack_from(f"{order}I", body, 4))
        # One of it, as there should be: a file may name a thousand.
        for start in [place + 8 for tag, place in entries if tag == ExifTags.IFD.Exif][:1]:
            entries += _entries(body, order, *struct.unpack_from(f"{order}I", body, start))
        for tag, place in entries:
            number = struct.unpack_from(f"{order}HI", body, place + 2) in ((3, 1), (4, 1))
            if tag in _SIDES and number:
                struct.pack_into(f"{order}HII", body, place + 2, 4, 1, size[_SIDES[tag]])
        return b"Exif\0\0" + bytes(body)
    return exif


def _unwrapped(exif: bytes) -> tuple[bytearray, str]:
    """The block without its name, and struct's sign of its byte order.

    Raises:
        ValueError: It is no EXIF.
    """
    body = bytearray(re.sub(rb"\A(Exif\0\0){1,2}", b"", exif))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(body[:4]))
    if order is None:
        raise ValueError("not an EXIF block")
    return body, order


def _entries(body: bytearray, order: str, start: int) -> list[tuple[int, int]]:
    """Tag and place of each entry of the directory at `start`.

    Raises:
        struct.error: The block ends before it.
    """
    (count,) = struct.unpack_from(f"{order}H", body, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    return [(*struct.unpack_from(f"{order}H", body, place), place) for place in places]


def descriptive_exif(exif: Image.Exif) -> Image.Exif:
    """Only what tells of the photo, without what tells where a file has its pixels."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in _DIRECTORIES else exif[tag]
    return kept


def marked_xmp(xmp: bytes | None, mark: Mark) -> bytes:
    """An XMP packet that carries the mark, and all else that `xmp` says.

    An earlier mark, and another digital source type, give way to this one. XMP that is damaged
    gives way altogether.
    """
    if xmp:
        with contextlib.suppress(ValueError, ElementTree.ParseError):
            return _merge(xmp.decode("utf-8").strip("\0 \n"), mark).encode()
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="{_RDF}">\n'
        f'{_statement(mark, "")}</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
    )
    return packet.encode()


def _merge(xmp: str, mark: Mark) -> str:
    """Raises ValueError or ParseError for what is no XMP."""
    if "<!DOCTYPE" in xmp or "<!ENTITY" in xmp:
        raise ValueError("XMP has no document type")
    ElementTree.fromstring(xmp)  # what is well-formed cannot lead the searches below astray
    for namespace, (usual, names) in _REPLACED.items():
        prefixes = re.findall(rf'xmlns:([\w.-]+)\s*=\s*["\']{re.escape(namespace)}["\']', xmp)
        xmp = _without(xmp, {usual, *prefixes}, names)
    # What stays is not read and written again: every byte of it stays.
    ends = list(re.finditer(r"</[\w.-]+:RDF\s*>", xmp))
    if not ends:
        raise ValueError("XMP without RDF")
    # All statements are about the same thing, which almost every writer calls "".
    about = re.search(r':about\s*=\s*["\']([^"\'<>]*)["\']', xmp)
    statement = _statement(mark, about[1] if about else "")
    merged = xmp[: ends[-1].start()] + statement + xmp[ends[-1].start() :]
    ElementTree.fromstring(merged)
    return merged


def _without(xmp: str, prefixes: Iterable[str], names: Iterable[str]) -> str:
    """Without these properties, be they attributes or elements, and statements left empty."""
    name = rf"(?:{'|'.join(map(re.escape, prefixes))}):(?:{'|'.join(names)})"
    xmp = re.sub(rf'\s{name}\s*=\s*(?:"[^"]*"|\'[^\']*\')', "", xmp)
    xmp = re.sub(rf"(?<!\s)\s*<{name}\b[^<>]*/>", "", xmp)
    xmp = re.sub(rf"(?<!\s)\s*<({name})\b[^<>]*>.*?</\1\s*>", "", xmp, flags=re.DOTALL)
    empty = rf'<rdf:Description\b[^<>]*xmlns:panini="{re.escape(XMP_NAMESPACE)}"[^<>]*>\s*'
    return re.sub(rf"{empty}</rdf:Description>\n?", "", xmp)


def _statement(mark: Mark, about: str) -> str:
    from panini import __version__

    facts = {
        "Iptc4xmpExt:DigitalSourceType": DIGITAL_SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": f"panini-net, model {_plain(mark.model)}",
        "Iptc4xmpExt:AISystemVersionUsed": __version__,
        "panini:Note": mark.note,
        "panini:Model": _plain(mark.model),
        "panini:Thetas": json.dumps([round(theta, 4) for theta in mark.thetas]),
        "panini:Settings": _json(mark.settings),
    }
    lines = "".join(f"  <{key}>{escape(text)}</{key}>\n" for key, text in facts.items())
    return (
        f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="{about}" '
        f'xmlns:Iptc4xmpExt="{_IPTC}" xmlns:panini="{XMP_NAMESPACE}">\n'
        f"{lines}</rdf:Description>\n"
    )


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, default=str)


def _plain(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _read_exif(image: Image.Image) -> bytes | None:
    raw = image.info.get("exif")
    with contextlib.suppress(*BAD_EXIF):
        if isinstance(raw, bytes) and raw:
            return upright_exif(raw)
        # A TIFF is itself a directory of tags; old PNGs have the block as a text.
        exif = descriptive_exif(image.getexif())
        return exif.tobytes() if len(exif) else None
    return None


def _upright_xmp(xmp: bytes) -> bytes:
    xmp = re.sub(rb'(tiff:Orientation\s*=\s*["\'])[2-8]', rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8]", rb"\g<1>1", xmp)


def _read_dpi(image: Image.Image) -> tuple[float, float] | None:
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        across, down = map(float, image.info["dpi"])
        if 1 < across < 1e5 and 1 < down < 1e5:
            return across, down
    return None
