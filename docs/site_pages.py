"""A hook of mkdocs: the site has the pages in their places of the repository, so that their links hold in both."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/*.md", "docs/images/*", "datasets/README.md", "*/assets/*.md")
# What pages link to, as it is.
FILES = ("docs/results/*", "docs/cluster/*", "configs/**/*.yaml", "pomp_*/data/assets/*.json", "LICENSE", "NOTICE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page, and what pages link to, under its path in the repository."""
    for pattern in (*PAGES, *FILES):
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files
