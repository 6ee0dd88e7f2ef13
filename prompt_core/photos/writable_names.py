"""Names of files that any system can write, made of names of photos, words and whatever else people call things."""

from __future__ import annotations

# Bytes of a name without its ending; file systems allow 255 with numbers, ending and a temporary name.
NAME_BYTES = 120
_UNWRITABLE = '\\/:*?"<>|'  # in file names of one system or another


def writable(text: str, limit: int = NAME_BYTES) -> str:
    """``text`` with a ``_`` for each sign that some file system refuses or a terminal obeys, cut to ``limit`` bytes.

    It names no folder; it may be empty, begin with a dot, or be the same for two texts.
    """
    shown = "".join(sign if sign.isprintable() and sign not in _UNWRITABLE else "_" for sign in text)
    return shown.encode(errors="replace")[:limit].decode(errors="ignore")


class FlatNames:
    """Names for files of one folder, each given out once: photos of several folders may have one name."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def new(self, name: str) -> str:
        """A name without ending for what is called ``name``, such as ``holiday_1_a`` for ``holiday 1/a.jpg``.

        Names are told apart whatever their case, since some file systems do not.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if parts:
            parts[-1] = without_ending(parts[-1])
        plain = writable("_".join(parts)).strip(". ") or "photo"
        free, number = plain, 1
        while free.casefold() in self._given:
            number += 1
            free = f"{plain}_{number}"
        self._given.add(free.casefold())
        return free


def without_ending(name: str) -> str:
    """A file's name without its last ending; of ``.a`` all of it."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and ending else name
