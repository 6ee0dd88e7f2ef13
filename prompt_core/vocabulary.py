"""The vocabulary: the one object that carries classes from pre-training to the scorer."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from prompt_core.documents.collector import collector_paused
from prompt_core.documents.word_lists import READERS, read_words
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_safetensors, resolve_path, sha256_of_json, write_json
from prompt_core.visible import is_one_line, shortened

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

PUBLISHED = ("imagenet21k", "imagenet1k", "lvis", "coco", "lvis+coco", "objects365", "openimages", "ade20k")
FILES = (*READERS, ".safetensors")


@dataclass(frozen=True)
class Vocabulary:
    """Class names with optional data on each class.

    Attributes:
        names: N class names, as published; underscores become spaces when prompted, unless ``keep_underscores``.
        ids: N category ids, or None.
        synsets: N WordNet synsets (``n02084071`` or ``dog.n.01``), or None.
        synonyms: N lists of other names, or None.
        frequency: N of ``r``, ``c``, ``f`` (LVIS), or None.
        source: where the list comes from.
        keep_underscores: prompt the names with their underscores, as Detic's matrices have it.
    """

    names: Sequence[str]
    ids: Sequence[int | str] | None = None
    synsets: Sequence[str] | None = None
    synonyms: Sequence[Sequence[str]] | None = None
    frequency: Sequence[str] | None = None
    source: str = field(default="", compare=False)
    keep_underscores: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise UserError(f"a list of class names was expected, given the single text {self.names[:60]!r}")
        object.__setattr__(self, "names", _plain_list(self.names))
        strange = next((name for name in self.names if not isinstance(name, str)), None)
        if strange is not None:
            raise UserError(f"class names are expected to be text, given {shortened(strange)}")
        for name in ("ids", "synsets", "synonyms", "frequency"):
            values = getattr(self, name)
            if values is None:
                continue
            values = [values] if isinstance(values, str) else _plain_list(values)
            if name == "synonyms" and any(isinstance(names, str) for names in values):
                raise UserError("vocabulary synonyms: a list of names for each class is expected, given a text")
            object.__setattr__(self, name, values)
            if len(values) != len(self.names):
                raise UserError(f"vocabulary {name}: {len(values)} values for {len(self.names)} names")
        for names in (self.names, *(self.synonyms or ())):
            broken = next((name for name in names if not is_one_line(name)), None)
            if broken is not None:
                raise UserError(
                    f"{self.source or 'class list'}: the class name {shortened(broken)} has a line break or another "
                    "control character; a name is one line of plain text"
                )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Vocabulary: ...

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> str | Vocabulary:
        """A name for an integer; a vocabulary for a slice, a sequence of integers or a boolean array (N,)."""
        if isinstance(index, (int, np.integer)):
            return self.names[index]
        if isinstance(index, slice):
            rows: Sequence[int] = range(len(self))[index]
        else:
            array = np.asarray(index)
            if array.dtype == bool and array.shape != (len(self),):
                raise UserError(f"a mask of {len(self)} classes was expected, given shape {array.shape}")
            rows = [int(row) for row in (np.flatnonzero(array) if array.dtype == bool else array)]

        def pick(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[row] for row in rows]

        return Vocabulary(
            pick(self.names) or [],
            pick(self.ids),
            pick(self.synsets),
            pick(self.synonyms),
            pick(self.frequency),
            self.source,
            self.keep_underscores,
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of names, ids, synonyms and kept underscores, which determine the class features and their order."""
        ids = None if self.ids is None else list(self.ids)
        synonyms = None if self.synonyms is None else [list(names) for names in self.synonyms]
        kept = {"keep_underscores": True} if self.keep_underscores else {}
        return sha256_of_json({"names": list(self.names), "ids": ids, "synonyms": synonyms, **kept})

    @cached_property
    def name_groups(self) -> np.ndarray:
        """(N,) group number of each class; classes of one group share their name, as CLIP reads it."""
        groups: dict[str, int] = {}
        return np.array(
            [groups.setdefault(plain_name(name), len(groups)) for name in self.names],
            dtype=np.int64,
        )

    def check(self) -> Vocabulary:
        """Refuse blank names, and duplicates that no ids distinguish.

        Raises:
            UserError: naming the first offender and its place.
        """
        for row, name in enumerate(self.names):
            if not name.strip():
                raise UserError(f"{self.source or 'class list'}: class {row + 1} of {len(self)} is blank; remove it")
        identities = list(self.ids) if self.ids is not None else [name.strip() for name in self.names]
        twice = [identity for identity, count in Counter(identities).items() if count > 1]
        if twice:
            raise UserError(
                f"{self.source or 'class list'}: {len(twice)} classes occur more than once, the first is {twice[0]!r}; "
                "keep one of each, or give each its own id"
            )
        return self

    def including(self, classes: Vocabulary) -> tuple[Vocabulary, np.ndarray]:
        """This vocabulary, with those of ``classes`` appended that it lacks, and the row of each of ``classes`` in it.

        Classes are found by id (wnid), else by name, else appended.
        """
        by_id = {str(identity): row for row, identity in enumerate(self.ids or [])}
        by_name: dict[str, int] = {}
        for row, text in enumerate(self.names):
            by_name.setdefault(plain_name(text), row)
        ids = classes.ids if classes.ids is not None else classes.names
        rows = np.empty(len(classes), dtype=np.int64)
        missing: list[int] = []
        for label, (text, identity) in enumerate(zip(classes.names, ids, strict=True)):
            row_or_none = by_id.get(str(identity), by_name.get(plain_name(text)))
            rows[label] = len(self) + len(missing) if row_or_none is None else row_or_none
            if row_or_none is None:
                missing.append(label)
        if not missing:
            return self, rows
        return Vocabulary(
            [*self.names, *(classes.names[label] for label in missing)],
            ids=None if self.ids is None else [*self.ids, *(ids[label] for label in missing)],
            source=f"{self.source}, with {len(missing)} classes of {classes.source}",
            keep_underscores=self.keep_underscores,
        ), rows

    def save(self, path: str | Path) -> None:
        """Write as JSON; :meth:`load` reads it back."""
        keys = ("source", "names", "ids", "synsets", "synonyms", "frequency")
        kept = {"keep_underscores": True} if self.keep_underscores else {}
        write_json(path, {key: getattr(self, key) for key in keys if getattr(self, key) is not None} | kept)

    @classmethod
    def load(cls, name: str | Path) -> Vocabulary:
        """A published vocabulary by name, or a file.

        Names: ``imagenet21k`` (21,843 synsets, first lemma each), ``imagenet1k``, ``lvis``, ``coco``, ``objects365``,
        ``openimages`` (500 of the challenge), ``ade20k``, ``lvis+coco`` (COCO's names that LVIS spells otherwise come
        last). Files: ``.txt`` with one name per line; ``.csv`` with a column ``name`` (and ``id``, ``synset``,
        ``frequency``, ``synonyms`` separated by ``|``); ``.json`` with a list of names, with the object that
        :meth:`save` writes, or with COCO or LVIS ``categories`` (sorted by their ids);
        ``.safetensors`` of a classifier.

        Raises:
            UserError: unknown name, absent or malformed file, blank or duplicate classes.
        """
        key = str(name)
        if key == "lvis+coco":
            return _joined("lvis", "coco")
        if key in PUBLISHED:
            return _imagenet(key) if key.startswith("imagenet") else _from_assets(key)
        path = Path(name)
        if not path.is_file():
            hint = nearest(key, PUBLISHED)
            raise UserError(f"vocabulary {key!r} is neither a file nor one of {', '.join(PUBLISHED)}{hint}")
        if path.suffix.lower() not in FILES:
            raise UserError(f"{path}: class lists are read from {', '.join(FILES)}, not from {path.suffix!r}")
        named = path.suffix.lower() in READERS
        vocabulary = Vocabulary(**read_words(path)) if named else _from_classifier(path)
        if not len(vocabulary):
            raise UserError(f"{path} holds no class names")
        # The rows of a classifier may share names: ImageNet-21K's do, and the file does not carry their ids.
        return vocabulary.check() if named else vocabulary


def _plain_list(values: Any) -> list[Any]:
    """A list of plain values, so that arrays hash, compare and save like lists."""
    return [value.item() if isinstance(value, np.generic) else value for value in values]


@functools.cache
@collector_paused()
def _imagenet(which: str) -> Vocabulary:
    """Synsets and lemmas in timm; reading them takes a third of a second."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-21k-goog" if which == "imagenet21k" else "imagenet-1k")
    synsets = [info.index_to_label_name(index) for index in range(info.num_classes())]
    lemmas = [[part.strip() for part in info.label_name_to_description(synset).split(",")] for synset in synsets]
    return Vocabulary(
        [names[0] for names in lemmas],
        ids=synsets,
        synsets=synsets,
        synonyms=[names[1:] for names in lemmas],
        source=f"{which}: synsets and WordNet lemmas as listed in timm",
    )


def _joined(first: str, second: str) -> Vocabulary:
    """The names of two published vocabularies, each once; they have no ids, which would mean two things."""
    own, other = (Vocabulary(each.names, source=each.source) for each in map(Vocabulary.load, (first, second)))
    return own.including(other)[0]


def _from_assets(name: str) -> Vocabulary:
    file = resources.files("prompt_core") / "assets" / "vocabularies" / f"{name}.json"
    return Vocabulary(**read_words(Path(str(file))))


def _from_classifier(path: Path) -> Vocabulary:
    tensors, metadata = read_safetensors(path)
    names = metadata.get("names")
    if "weight" not in tensors or not isinstance(names, list) or len(names) != len(tensors["weight"]):
        raise UserError(f"{path} holds no tensor 'weight' with a list 'names'; it is not a classifier file")
    return Vocabulary(names, source=path.name)


def read_vocabulary(text: str) -> Vocabulary:
    """A published vocabulary's name, a file of class names, or names joined by commas: what ``--vocabulary`` takes.

    A comma after a single name makes it a list, where it looks like a misspelt published vocabulary.

    Raises:
        UserError: an absent or malformed file, blank or repeated names.
    """
    path = resolve_path(text)
    if text in PUBLISHED or path.suffix.lower() in FILES or (path.suffix and path.is_file()):
        return Vocabulary.load(text if text in PUBLISHED else path)
    names = [name.strip() for name in text.split(",")]
    if len(names) == 1 and get_close_matches(text.lower(), PUBLISHED, cutoff=0.75):
        hint = f"{nearest(text, PUBLISHED)}; for a class of that name write '{text},'"
        raise UserError(f"vocabulary {text!r} is neither a file nor one of {', '.join(PUBLISHED)}{hint}")
    return Vocabulary(names[:-1] if len(names) > 1 and not names[-1] else names, source="the given names").check()


def vocabulary_of(images: ImageSet, wider: str = "") -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary that images are learned or scored among, and the row (C,) of each of their classes in it.

    Args:
        wider: a published vocabulary or a file, to which missing classes are appended; an empty text for the images'
            own classes.
    """
    classes = Vocabulary(images.names, ids=images.ids, source=images.source)
    return Vocabulary.load(wider).including(classes) if wider else (classes, np.arange(len(classes)))


@functools.lru_cache(maxsize=1 << 16)  # for own shares, the names of ImageNet-21K are compared several times
def plain_name(name: str) -> str:
    """A class name normalised for comparison between files: lower case, single spaces for underscores."""
    return " ".join(str(name).replace("_", " ").lower().split())
