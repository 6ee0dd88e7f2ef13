"""Masks of Label Studio's brush: run lengths of RGBA bytes, packed into bits (thi.ng's rle-pack, as in its editor).

::

    32 bits: bytes of the image, 5: bits of a value less 1, 4 times 4: bits of a length less 1 in each of four sizes
    then runs: 1 bit: whether one value is repeated, 2: size of the length, the length less 1, the value or values
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pomp.formats.mask_shapes import mask_of_pixels, pixels_of_mask
from prompt_core.errors import UserError

_SIZES = (3, 4, 8, 16)  # bits of lengths, as the editor writes
_VALUE_BITS = 8
_LONGEST = 1 << _SIZES[-1]


def brush_of_mask(mask: dict[str, Any]) -> list[int]:
    """The bytes of a mask, 0 to 255 each, in which its pixels are 255 in all four channels."""
    flat = pixels_of_mask(mask).ravel()  # by rows, unlike COCO's
    ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) + 1
    lengths = np.diff(ends, prepend=0) * 4
    bits = [f"{flat.size * 4:032b}{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
        value = "1" * _VALUE_BITS if flat[end - 1] else "0" * _VALUE_BITS
        while length > 0:
            part = min(length, _LONGEST)
            size = next(number for number, width in enumerate(_SIZES) if part <= 1 << width)
            bits.append(f"1{size:02b}{part - 1:0{_SIZES[size]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def mask_of_brush(brush: list[int], width: int, height: int, where: str) -> dict[str, Any]:
    """The mask of what a brush has painted more than half.

    Args:
        where: for messages.

    Raises:
        UserError: when it is of another size, or broken off.
    """
    bits = _Bits(bytes(brush), where)
    total, value_bits = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if total != 4 * width * height:
        raise UserError(f"{where}: a brush of {total} bytes; {width} x {height} pixels have {4 * width * height}")
    pixels = np.zeros(width * height, dtype=bool)
    half = 1 << (value_bits - 1)
    place = 0
    while place < total:
        repeated = bits.read(1)
        end = min(place + 1 + bits.read(sizes[bits.read(2)]), total)
        if repeated:
            if bits.read(value_bits) >= half:
                pixels[place // 4 : end // 4] = True  # the pixels whose fourth byte is in the run
        else:
            for single in range(place, end):
                if bits.read(value_bits) >= half and single % 4 == 3:
                    pixels[single // 4] = True
        place = end
    return mask_of_pixels(pixels.reshape(height, width))


class _Bits:
    def __init__(self, content: bytes, where: str) -> None:
        self._content, self._where, self._place = content, where, 0

    def read(self, count: int) -> int:
        first, end = self._place, self._place + count
        if end > 8 * len(self._content):
            raise UserError(f"{self._where}: a brush that is broken off; export it again")
        self._place = end
        last = (end + 7) // 8
        value = int.from_bytes(self._content[first // 8 : last], "big") >> (8 * last - end)
        return value & ((1 << count) - 1)
