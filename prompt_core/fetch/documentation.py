"""The list of published files as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from prompt_core.fetch.advice import size_text
from prompt_core.fetch.published_files import PublishedFile

_HEAD = """# Published files

<!-- Written by tools/fetch.py --write-page docs/published_files.md; edit prompt_core/assets/published_files.json. -->

Every file that the configurations here, or the published ones of Detic, POMP and ZSSeg, ask for: where it comes from,
where it belongs, and what builds it instead.

```bash
# needs the network
python tools/fetch.py lvis                           # what that group needs
python tools/fetch.py lvis_v1_clip_pomp+cname.npy    # one file
python tools/fetch.py prompts detectors --models /data/models
python tools/fetch.py --list                         # what there is, and what is here
```

- `datasets/` stands for the data root (`--root`, else `POMP_DATA`), `models/` for the folder of checkpoints
  (`--models`), and `detectron2://` for Detectron2's cache, where it looks before it downloads.
- A download that was broken off or killed goes on where it stopped. A file appears under its name only when it is
  complete and checked. Archives are unpacked beside where they were put, never outside, and deleted.
- **sha256**: *known* is stated by the source, or computed from its repository. The others are trusted at first use:
  the sha256 is written to `NAME.fetched.json` beside the file, and another file is refused from then on. Sizes that
  no source states are unknown here.
- **Google Drive** is not made for programs. The command asks for the address behind Drive's own button; when Google
  answers with a page (too many downloads, a question), it says which page to open in a browser and where to save the
  file. These addresses could not be tried when the list was made.
- A `.pkl` of a backbone is made from the `.pth` that its authors publish; the command fetches that and converts it.
- A class matrix that is built here has unit rows in float32, the published ones are float16 of other norms; the
  detector normalises both.
- Groups in parentheses can do without the file: it is listed with them, and fetched when it is named.
- CLIP's own weights are fetched by open_clip at their first use.
"""

_TITLES = {
    "class_matrices": "Class matrices",
    "prompts": "Prompts",
    "backbones": "Backbones",
    "detectors": "Detectors",
    "segmenters": "Segmenters",
}


def published_page(files: Sequence[PublishedFile]) -> str:
    """The page: one table for each kind of file, the commands that build, and what is not to be had."""
    left = list(files)
    parts = [_HEAD]
    for group, title in _TITLES.items():
        members = [file for file in left if group in file.groups]
        members += [file for file in left if file not in members and any(file.name == m.made_from for m in members)]
        if group == "class_matrices":
            members += [file for file in left if file.shape and file not in members]
        parts.append(_table(title, [file for file in left if file in members]))
        left = [file for file in left if file not in members]
    parts.append(_table("Annotations, photos and other data", [file for file in left if file.fetchable]))
    left = [file for file in left if not file.fetchable]
    parts.append(_built("Built here, not published", [file for file in left if file.build]))
    parts.append(_absent([file for file in left if not file.build]))
    commands = dict.fromkeys(command for file in files if file not in left for command in file.build)
    lines = ["## Commands that build a file of the tables", "", "```bash", "# needs the data and weights of each"]
    parts.append("\n".join([*lines, *commands, "```", ""]))
    return "\n".join(parts)


def _table(title: str, files: Sequence[PublishedFile]) -> str:
    lines = [
        f"## {title}",
        "",
        "| file | what | size | sha256 | licence | from | groups |",
        "|---|---|---|---|---|---|---|",
    ]
    for file in files:
        place = f"`{file.path}`" + "".join(f"<br>also `{path}`" for path in file.also)
        if file.unpacks:
            place += "<br>unpacks to " + ", ".join(f"`{path}`" for path in file.unpacks)
        where = [f"made from `{file.made_from}`"] if file.made_from else []
        where += [f"[address]({file.address})"] if file.address and not file.page else []
        where += [f"[page]({file.page})"] if file.page else []
        where += [] if file.fetchable else ["built here"]
        what = file.what + (f" ({file.note})" if file.note else "")
        sizes = size_text(file.size).removeprefix("size ") if file.address else ""
        known = "known" if file.sha256 else "first use" if file.address else ""
        groups = ", ".join([*file.groups, *(f"({group})" for group in file.optional_for)])
        cells = (place, what, sizes, known, file.licence or "", f"{', '.join(where)}; {file.source}", groups)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _built(title: str, files: Sequence[PublishedFile]) -> str:
    lines = [f"## {title}", "", "| file | what | command |", "|---|---|---|"]
    for file in files:
        place = f"`{file.path}`" + "".join(f"<br>in published configurations `{path}`" for path in file.also)
        lines.append(f"| {place} | {file.what} | {'<br>'.join(f'`{command}`' for command in file.build)} |")
    return "\n".join([*lines, ""])


def _absent(files: Sequence[PublishedFile]) -> str:
    lines = ["## Named by published configurations, and not to be had", ""]
    return "\n".join([*lines, *(f"- `{file.path}`: {file.what}; {file.note}." for file in files), ""])
