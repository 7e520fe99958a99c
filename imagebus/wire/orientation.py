"""How a camera was held: the orientation in a picture's EXIF data, and the picture turned upright.

Pillow's own reading of EXIF decodes all tags, which is work for a stranger's picture to command; this looks for one.
"""

from __future__ import annotations

import struct

from PIL import Image

EXIF_START = b"Exif\0\0"  # in a JPEG; a PNG has it without
_TURNS = {  # EXIF's orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # the tag
_SHORT = 3  # the type of its value
_ENTRY = 12  # bytes of a tag, its type, count and value


def upright(picture: Image.Image, exif: bytes | None) -> Image.Image:
    """The picture as it is looked at; unchanged where the EXIF data say nothing of it, or are damaged."""
    turn = _TURNS.get(orientation(exif)) if exif else None
    return picture if turn is None else picture.transpose(turn)


def orientation(exif: bytes) -> int:
    """The orientation that EXIF data state, 1 to 8, or 0 where they state none."""
    tiff = exif.removeprefix(EXIF_START)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        magic, first = struct.unpack_from(order + "HI", tiff, 2)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        if magic != 42:
            return 0
        for place in range(first + 2, first + 2 + count * _ENTRY, _ENTRY):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, place)
            if (tag, kind, values) == (_ORIENTATION, _SHORT, 1):
                return int(value) if value in range(1, 9) else 0
    except struct.error:  # the data end before what they claim
        pass
    return 0
