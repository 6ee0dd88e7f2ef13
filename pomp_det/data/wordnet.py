"""WordNet ids (``n02084071``), which name ImageNet's folders, and synset names (``dog.n.01``), which LVIS lists.

The ids are byte offsets in WordNet 3.0's data file and the names count a word's senses, so one follows from the other
by WordNet's noun index. The table for LVIS's classes is an asset, made from that index by :func:`read_noun_index`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from prompt_core.documents.bounds import SMALL_BYTES, check_size, read_text
from prompt_core.errors import UserError


def lvis_wnids() -> dict[str, str]:
    """WordNet id of each LVIS v1 synset name that is a noun of WordNet 3.0: 1,202 of 1,203 (not ``stop_sign.n.01``)."""
    text = (resources.files("pomp_det") / "data" / "assets" / "lvis_wnids.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    return table


def read_noun_index(path: str | Path) -> dict[str, list[str]]:
    """Lemma to the WordNet ids of its senses, in the order of senses, from WordNet's ``index.noun``.

    The file is in Debian's package ``wordnet-base`` (``/usr/share/wordnet``) and in nltk's corpus ``wordnet``. It has
    to be that of WordNet 3.0: ImageNet's ids are its offsets.

    Raises:
        UserError: when the file is absent or is not a noun index.
    """
    senses: dict[str, list[str]] = {}
    check_size(path, SMALL_BYTES)
    try:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                if line.startswith(" "):  # the licence
                    continue
                fields = line.split()
                senses[fields[0]] = [f"n{offset}" for offset in fields[-int(fields[2]) :]]
    except OSError as error:
        raise UserError(f"cannot read WordNet's noun index {path}: {error.strerror or error}") from error
    except (IndexError, ValueError) as error:
        raise UserError(f"{path} is not a noun index of WordNet 3.0 (index.noun)") from error
    return senses


def wnids_of_synsets(synsets: Iterable[str], senses: dict[str, list[str]]) -> dict[str, str]:
    """WordNet id of each synset name (``dog.n.01``) that the index knows."""
    wnids = {}
    for synset in synsets:
        lemma, _, number = synset.rsplit(".", 2)
        ids = senses.get(lemma.lower(), [])
        if number.isdecimal() and 0 < int(number) <= len(ids):
            wnids[synset] = ids[int(number) - 1]
    return wnids


def read_mapping(path: str | Path) -> dict[str, str]:
    """Synset name to WordNet id from a text file with lines ``n02084071 dog.n.01``; ``#`` begins a comment.

    Raises:
        UserError: when the file is absent, or a line has another form.
    """
    mapping: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        if len(fields) != 2 or not _is_wnid(fields[0]) or fields[1].count(".") < 2:
            raise UserError(f"{path}, line {number}: expected a WordNet id and a synset name, as in n02084071 dog.n.01")
        mapping[fields[1]] = fields[0]
    return mapping


def read_wnids(path: str | Path) -> set[str]:
    """WordNet ids from a text file with one at the start of each line, as the published ``imagenet_lvis_wnid.txt``.

    Raises:
        UserError: when the file is absent, or a line begins with something else.
    """
    wnids = set()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        if not _is_wnid(line.split()[0]):
            raise UserError(f"{path}, line {number}: expected a WordNet id such as n02084071")
        wnids.add(line.split()[0])
    return wnids


def _lines(path: str | Path) -> list[str]:
    return read_text(path).splitlines()


def _is_wnid(text: str) -> bool:
    return len(text) == 9 and text[0] == "n" and text[1:].isdecimal()
