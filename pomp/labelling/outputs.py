"""What a person wants written about each photo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outputs:
    """Files about each photo, besides the document about all.

    Attributes:
        pictures: drawn pictures; of a classifier contact sheets.
        gallery: pages with all photos, those in doubt first.
        hide_photo: draw on grey, for photos that may not be shown.
        crops: what was found, cut out, in a folder for each word.
        polygons: masks of the document as polygons instead of run lengths.
    """

    pictures: bool = True
    gallery: bool = False
    hide_photo: bool = False
    crops: bool = False
    polygons: bool = False
