"""What is above and below a name: WordNet's hypernyms among the 21,843 synsets of ImageNet-21K.

The table is an asset, made from WordNet 3.0's noun data by :func:`parents_among` (``tools/build_vocabularies.py
--wordnet``); ImageNet's ids are offsets in that file. Names of the synsets come from timm.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import msgspec

from prompt_core.documents.bounds import read_text
from prompt_core.documents.collector import collector_paused
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import check
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import Vocabulary, plain_name

ASSET = "hypernyms.json"
# Endings of plurals and what stands for them in the singular (the noun rules of WordNet's own morphology).
_PLURALS = (("ches", "ch"), ("shes", "sh"), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("men", "man"), ("ies", "y"))


class HypernymTable(msgspec.Struct):
    """The asset: for each synset of ImageNet-21K, the rows of the nearest synsets above it that are of ImageNet-21K."""

    source: str
    ids_sha256: str
    parents: list[list[int]]


@dataclass(frozen=True, eq=False)
class Hypernyms:
    """The hierarchy of S synsets; synsets are rows.

    Attributes:
        row: WordNet id → row.
        parents: S lists of rows directly above; more than one where WordNet has it so.
        children: S lists of rows directly below.
        senses: a name as :func:`prompt_core.vocabulary.plain_name` has it → the rows of its synsets.
    """

    row: Mapping[str, int]
    parents: Sequence[Sequence[int]]
    children: Sequence[Sequence[int]]
    senses: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, vocabulary: Vocabulary, parents: Sequence[Sequence[int]]) -> Hypernyms:
        """The hierarchy of a vocabulary with WordNet ids; its names and synonyms are the synsets' names."""
        children: list[list[int]] = [[] for _ in parents]
        senses: dict[str, list[int]] = {}
        more = vocabulary.synonyms or [()] * len(vocabulary)
        for row, above in enumerate(parents):
            for parent in above:
                children[parent].append(row)
            for name in dict.fromkeys(map(plain_name, (vocabulary.names[row], *more[row]))):
                senses.setdefault(name, []).append(row)
        ids = vocabulary.synsets or vocabulary.ids or ()
        return cls({str(identity): row for row, identity in enumerate(ids)}, parents, children, senses)

    def senses_of(self, name: str) -> set[int]:
        """Rows of the synsets that a word may mean; empty for no lemma.

        A word is also looked up without what it has in brackets (``cap_(headwear)``), as one word (wine glass) and as
        a plural.
        """
        plain = plain_name(name)
        for form in dict.fromkeys((plain, plain_name(plain.partition("(")[0]), plain.replace(" ", ""))):
            for singular in _singulars(form):
                if singular in self.senses:
                    return set(self.senses[singular])
        return set()

    def synset_of(self, vocabulary: Vocabulary, row: int) -> int | None:
        """The synset that a class of a vocabulary is by its WordNet id, None without one that is known here."""
        for ids in (vocabulary.synsets, vocabulary.ids):
            if ids is not None and str(ids[row]) in self.row:
                return self.row[str(ids[row])]
        return None

    def above(self, rows: Iterable[int]) -> set[int]:
        """All that is above ``rows``."""
        return _reached(set(rows), self.parents)

    @cached_property
    def heights(self) -> Sequence[int]:
        """S numbers: edges on the longest way down from each synset; 0 for one with nothing below it."""
        waiting, heights = [len(below) for below in self.children], [0] * len(self.children)
        ready = [row for row, count in enumerate(waiting) if not count]
        while ready:
            row = ready.pop()
            for parent in self.parents[row]:
                heights[parent] = max(heights[parent], heights[row] + 1)
                waiting[parent] -= 1
                if not waiting[parent]:
                    ready.append(parent)
        return heights

    def related(self, rows: Iterable[int]) -> set[int]:
        """``rows`` with all that is above them and all that is below them."""
        start = set(rows)
        return start | _reached(start, self.parents) | _reached(start, self.children)


@functools.cache
@collector_paused()
def imagenet21k_hypernyms() -> Hypernyms:
    """The hierarchy of ImageNet-21K's 21,843 synsets.

    Raises:
        UserError: when the installed timm lists other synsets than the asset is about.
    """
    vocabulary = Vocabulary.load("imagenet21k")
    file = Path(str(resources.files("prompt_core") / "assets" / ASSET))
    table: HypernymTable = check(read_json(file), HypernymTable, file)
    if table.ids_sha256 != sha256_of_json(list(vocabulary.ids or ())):
        raise UserError(
            f"{ASSET} is about other synsets than the installed timm lists; build it again "
            "(tools/build_vocabularies.py --wordnet)"
        )
    return Hypernyms.of(vocabulary, table.parents)


def parents_among(ids: Sequence[str], data_noun: str | Path) -> list[list[int]]:
    """For each WordNet id, the rows of the nearest ids above it; synsets in between that are not listed are passed.

    Args:
        data_noun: WordNet 3.0's ``data.noun``, which is in Debian's package ``wordnet-base``.

    Raises:
        UserError: when the file is absent, is not WordNet's noun data, or lacks one of the ids.
    """
    above = _read_hypernyms(data_noun)
    row = {identity: number for number, identity in enumerate(ids)}
    absent = next((identity for identity in ids if identity not in above), None)
    if absent is not None:
        raise UserError(f"{data_noun} has no synset {absent}; ImageNet's ids are those of WordNet 3.0")
    table = []
    for identity in ids:
        found, to_visit, seen = set(), list(above[identity]), set()
        while to_visit:
            parent = to_visit.pop()
            if parent in row:
                found.add(row[parent])
            elif parent not in seen:
                to_visit += above.get(parent, [])
            seen.add(parent)
        table.append(sorted(found))
    return table


def _read_hypernyms(path: str | Path) -> dict[str, list[str]]:
    """WordNet id → the ids directly above it, of kinds (``@``) and of instances (``@i``)."""
    lines = read_text(path).splitlines()
    above: dict[str, list[str]] = {}
    try:
        for line in lines:
            if line.startswith(" "):  # the licence
                continue
            fields = line.split(" | ")[0].split()
            # offset, file, type, number of words (hexadecimal), each word with an id, number of pointers of 4 fields
            first = 4 + 2 * int(fields[3], 16) + 1
            pointers = [fields[place : place + 4] for place in range(first, first + 4 * int(fields[first - 1]), 4)]
            above[f"n{fields[0]}"] = [f"n{pointer[1]}" for pointer in pointers if pointer[0] in ("@", "@i")]
    except (IndexError, ValueError) as error:
        raise UserError(f"{path} is not the noun data of WordNet 3.0 (data.noun)") from error
    return above


def _singulars(name: str) -> list[str]:
    """A name, and what it may be the plural of."""
    forms = [name]
    forms += [name[: -len(ending)] + stem for ending, stem in _PLURALS if name.endswith(ending)]
    return [*forms, name[:-1]] if name.endswith("s") and not name.endswith("ss") else forms


def _reached(start: set[int], edges: Sequence[Sequence[int]]) -> set[int]:
    """Rows that lead on from ``start``."""
    found: set[int] = set()
    to_visit = list(start)
    while to_visit:
        new = [row for row in edges[to_visit.pop()] if row not in found]
        found.update(new)
        to_visit += new
    return found
