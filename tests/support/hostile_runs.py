"""A corpus of hostile runs: command lines, files and environments, each drawn by a seed, and what must hold of each.

A run is one of :data:`tests.support.plain_runs.RUNS` with one or two of its parts replaced.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import os
import pkgutil
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from . import hostile
from .forked import CRASHED, Limits, Outcome, changes, listing, run_forked
from .hostile_files import NO_FILES, TOUCHED, files_like, put_no_file
from .plain_runs import RUNS, Given, PlainRun
from .plain_trees import Trees
from .tools import tool_main

MEMORY = 700 << 20  # bytes that a run on tiny files may add to what its imports took

_NUMBERS = st.sampled_from(
    (
        *("-1", "0", "1e999", "nan", "-inf", "9" * 23, "9" * 5000, "x", "", "1.5", "²", "0_1", "0x10", " 1", "١"),
        *("1,,2", "1,-1", ",", "None"),
    )
)
_TEXTS = hostile.texts | st.sampled_from(
    (
        *("\udcff", "a,,b", ",", "{}{}", "{", "{0}{1}", "{!r}", "%", "-", "--", "-x", "~", "$HOME", "a=b=c", "="),
        *("None", "*", "[", "..."),
    )
)
_PATHS = _TEXTS | st.sampled_from(
    (
        *(*hostile.PATHS, "absent", "/dev/null", "/dev/zero", "/proc/self/mem", "x" * 300, "/" + "y/" * 3000),
        *("~nobody/x", "*", "[", "config.yaml/x", "loop"),
    )
)
_NAMES = _TEXTS.map(lambda text: text.replace("/", "").replace("\0", "")).filter(
    lambda text: text not in ("", ".", "..") and len(os.fsencode(text)) < 200
)
_OUTPUTS = st.sampled_from(
    (
        *("", "/dev/null/x", "device", "pipe", "/proc/x", "x" * 300, "config.yaml/x", "a\x1b[31mb", "[red]x[/red]"),
        *("new\nline", "device/x", "loop/x", "loop", "\udcff", "a/" * 2000),
    )
)
_SOURCES = _PATHS | st.sampled_from(
    (
        *("csv:", "folder:absent", "csv:absent.csv", "webdataset:{0..9999999999}.tar", "webdataset:{9..0}.tar"),
        *("webdataset:{0..99}{0..99}{0..99}{0..99}.tar", "coop:#", "coop:a#b#c", "tiny_imagenet:/", "nothing:x"),
        *("os:system", "posix:system", "builtins:eval", "os.path:join", "caltech101#x", "imagenet", "aircraft:."),
        *("imagenet21k:.", "folder:/dev", "csv:/dev/zero", "a:b:c", ":", "#"),
    )
)
_VALUES = st.sampled_from(
    (
        *("nan", "-inf", "1e999", "-1", "0", "9" * 23, "9" * 5000, "[", "[" * 5000, "(" * 300 + ")" * 300, "{}"),
        *("{'a': 1}", "'x' * 10 ** 10", "9**9**9", f"__import__('os').system('touch ../../{TOUCHED}')", "None", ""),
        *(" ", "True", "'", "\x1b[31m", "[red]", "a\nb", "\udcff", "[[]]", "('a', 1)", "[nan]", "[-1, -1]", "0x10"),
        *("1_000", "b'x'", "...", "lambda: 1", "/dev/zero", "../..", "x" * 3000),
    )
)
_VARIABLES = {
    "POMP_DATA": ("", "absent", "/dev/null", "\x1b[31m", "x" * 5000, "\udcff", "."),
    "POMP_MAX_PIXELS": ("", "x", "-1", "0", "1e9", "9" * 5000, "1"),
    "POMP_MAX_ASPECT": ("", "x", "-1", "0", "nan", "1"),
    "COLUMNS": ("x", "0", "-1", "9" * 20, "1"),
    "RANK": ("x", "5", "-1"),
    "WORLD_SIZE": ("x", "0", "2"),
    "FVCORE_CACHE": ("/dev/null", "\x1b"),
    "HF_HOME": ("/dev/null", ""),
    "TMPDIR": ("/dev/null", "absent"),
    "HOME": ("/dev/null", "absent"),
    "TERM": ("", "dumb", "\x1b"),
    "CUDA_VISIBLE_DEVICES": ("x", "99"),
}  # fmt: skip


@dataclass
class HostileRun:
    """A command line, files that replace those of a folder, and environment variables.

    Attributes:
        kinds: what was replaced, such as ``json`` or ``number``.
        renamed: new names of files of the folder, and of the folders that they are in.
        files: bytes, or the name of something that is no file, by their paths in the folder.
    """

    plain: PlainRun
    arguments: list[str]
    kinds: list[str] = field(default_factory=list)
    files: dict[str, bytes | str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: PlainRun) -> HostileRun:
        """The run as it is, with nothing replaced."""
        texts = [part.text if isinstance(part, Given) else part for part in plain.arguments]
        return cls(plain, texts, environment=dict(plain.environment))

    def __str__(self) -> str:
        parts = [
            self.plain.tool,
            *(argument if len(argument) < 200 else f"{argument[:200]}…" for argument in self.arguments),
        ]
        files = {name: content if isinstance(content, str) else content[:300] for name, content in self.files.items()}
        return f"{parts}\n  in a copy of {self.plain.tree} with {files}\n  and {self.renamed} {self.environment}"


@st.composite
def hostile_runs(draw: st.DrawFn, trees: Trees, plain_runs: tuple[PlainRun, ...] = RUNS) -> HostileRun:
    """A run with one part from outside that makes no sense, or two."""
    # those that read files have more to take in
    plain = draw(st.sampled_from([run for run in plain_runs for _ in range(3 if run.reads else 1)]))
    folder = trees[plain.tree]
    run = HostileRun.of(plain)
    places = [place for place, part in enumerate(plain.arguments) if isinstance(part, Given)]
    names = sorted(
        {str(path.relative_to(folder)) for pattern in plain.reads for path in folder.glob(pattern) if path.is_file()}
    )
    ways = (
        ["file"] * 5 * bool(names)
        + ["name"] * bool(names)
        + ["argument"] * 3 * bool(places)
        + ["setting"] * 2 * bool(plain.settings)
    )
    hows = [draw(st.sampled_from([*ways, "environment", "line"])) for _ in range(draw(st.sampled_from([1, 1, 2])))]
    for how in sorted(hows):  # the line comes last: it moves arguments
        if how == "name":
            run.renamed[draw(st.sampled_from(names))] = draw(_NAMES)
            run.kinds.append("name")
        elif how == "file":
            _replace_file(draw, run, folder, draw(st.sampled_from(names)))
        elif how == "argument":
            place = draw(st.sampled_from(places))
            kind = plain.arguments[place].kind  # type: ignore[union-attr]
            run.arguments[place] = _sent(draw(_ARGUMENTS[kind]))
            run.kinds.append(kind)
        elif how == "setting":
            key, value = draw(st.sampled_from(_keys(plain.tree))), draw(_VALUES)
            pair = [key, value] if plain.settings == "pairs" else ["--set", f"{key}={value}"]
            run.arguments += [_sent(part) for part in pair]
            run.kinds.append("setting")
        elif how == "environment":
            name = draw(st.sampled_from(sorted(_VARIABLES)))
            run.environment[name] = draw(st.sampled_from(_VARIABLES[name]))
            run.kinds.append("environment")
        else:
            _change_line(draw, run)
    return run


_ARGUMENTS: dict[str, st.SearchStrategy[str]] = {
    "number": _NUMBERS,
    "words": _TEXTS,
    "path": _PATHS,
    "output": _OUTPUTS,
    "source": _SOURCES,
    "setting": _VALUES,
}


def _replace_file(draw: st.DrawFn, run: HostileRun, folder: Path, name: str) -> None:
    if draw(st.integers(0, 5)) == 0:
        run.files[name] = draw(st.sampled_from(NO_FILES))
        run.kinds.append("no file")
    else:
        kind, content = files_like(name, (folder / name).read_bytes())
        run.files[name] = draw(content)
        run.kinds.append(kind)


def _change_line(draw: st.DrawFn, run: HostileRun) -> None:
    """A command line with an argument removed, repeated, or of its own."""
    how = draw(st.sampled_from(["remove", "repeat", "add"]))
    place = draw(st.integers(0, len(run.arguments) - 1))
    if how == "remove":
        del run.arguments[place]
    elif how == "repeat":
        run.arguments.insert(place, run.arguments[place])
    else:
        run.arguments.insert(place, _sent(draw(_TEXTS)))
    run.kinds.append("line")


def _sent(text: str) -> str:
    """A text as the system passes arguments: none holds a NUL."""
    return (
        text.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        if _fits(text)
        else "\udcff"
    )


def _fits(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


_KEYS: dict[str, list[str]] = {}


def _keys(tree: str) -> list[str]:
    """The keys of a task's configuration, and some that it does not have."""
    task = "prompt" if tree not in ("detector", "segmenter") else tree
    if task not in _KEYS:
        from prompt_core.config import flatten

        if task == "prompt":
            from prompt_core.config import load_config
        elif task == "detector":
            from pomp_det import load_config  # type: ignore[assignment]
        else:
            from pomp_seg import load_config  # type: ignore[assignment]
        keys = [key for key, _ in flatten(load_config(None, []))]
        _KEYS[task] = [*keys, "NO.SUCH_KEY", "", "a.b", "__class__", "MODEL", "\x1b[31m", "OPTIM."]
    return _KEYS[task]


def drawn(strategy: st.SearchStrategy[Any], number: int) -> Any:
    """The same value of a strategy for the same number."""
    values: list[Any] = []

    @seed(number)
    @settings(
        max_examples=3, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def take(value: Any) -> None:
        values.append(value)

    take()
    return values[-1]


# Files that a command that failed may have written: its log, its settings, what it can go on with. Everything else
# would be taken for a result.
LEFT_BEHIND = ("*log.txt*", "*config.yaml", "*log.jsonl", "*/events.out.*", "*cache/*", "*.lock", "*/state.pt*")
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


class Arena:
    """Runs hostile runs below a folder, and says what is wrong with each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("cases", "texts", "home", "tmp"):
            (root / name).mkdir(parents=True)
        self.trees = Trees(root / "inputs")
        self.mains: dict[str, Callable[[], int | None]] = {}
        self.texts = root / "texts"
        self._outside: dict[str, Any] = {}
        self._listed_at = 0

    def load_everything(self) -> None:
        """Import what any run needs: each would do it again otherwise, and sources that change would be half new."""
        for package in ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab"):
            for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
                importlib.import_module(module.name)
        for tool in {run.tool for run in RUNS}:
            self.main_of(tool)

    @contextlib.contextmanager
    def small(self) -> Iterator[None]:
        """Meanwhile lists of 21,000 names have a few, and measurements take no processes of their own."""
        from pomp_lab.benchmarks import harness

        def measure_here(measure: Callable[..., Any], *arguments: Any) -> Any:
            return measure(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            for module in ("data_folders", "scored_sets"):
                patch.setattr(f"pomp_lab.tables.{module}.WIDE", str(self.trees["tables"] / "wide.json"))
            patch.setattr(harness, "in_fresh_process", measure_here)
            yield

    def draw(self, number: int, plain: tuple[PlainRun, ...] = RUNS) -> HostileRun:
        """The run of a seed, out of some."""
        run: HostileRun = drawn(hostile_runs(self.trees, plain), number)
        return run

    def execute(
        self, run: HostileRun, main: Callable[[], int | None] | None = None, limits: Limits | None = None
    ) -> tuple[Outcome, list[str]]:
        """How a run ended, and what is wrong about it.

        Args:
            main: in the place of the command's own.
        """
        main, case = main or self.main_of(run.plain.tool), self._copy(run.plain.tree)
        for path, content in run.files.items():
            place = case / path
            if isinstance(content, str):
                put_no_file(place, content)
            else:
                place.unlink()  # it may be a link
                place.write_bytes(content)
        for path, name in run.renamed.items():
            place = case / path
            if not os.path.lexists(place):  # it was taken away, or its folder has another name already
                continue
            place.rename(place.with_name(f"{name}{place.suffix}"))
            if place.parent != case:  # the folder may be a class
                place.parent.rename(place.parent.with_name(name))
        before, outside = listing(case), self._outside
        environment = self._environment() | run.environment
        arguments = [f"{Path(run.plain.tool).name}.py", *run.arguments]
        outcome = run_forked(main, arguments, case, self.texts, environment, limits)
        after, self._outside = listing(case), listing(self.root, but=self.root / "cases")
        changed = [path for path in changes(outside, self._outside) if not path.startswith(("texts/", "home/"))]
        wrong = faults(run, outcome, before, after, changed)
        self._tidy(run, changes(before, after))
        return outcome, wrong

    def _copy(self, tree: str) -> Path:
        """A folder with the inputs of a run, as they are; the one of an earlier run that changed nothing in it."""
        inputs, case = self.trees[tree], self.root / "cases" / tree
        if not case.exists():
            shutil.copytree(inputs, case, symlinks=True)
            (case / "loop").symlink_to("loop")
            (case / "device").symlink_to("/dev/full")  # a link: no command may get to replace a device of the machine
            os.mkfifo(case / "pipe")
        if self._listed_at != self.trees.made:  # inputs were made since
            self._outside, self._listed_at = listing(self.root, but=self.root / "cases"), self.trees.made
        return case

    def _tidy(self, run: HostileRun, changed: list[str]) -> None:
        """Undo what a run was given; a folder that it changed is copied anew by the next one."""
        inputs, case = self.trees[run.plain.tree], self.root / "cases" / run.plain.tree
        if changed or run.renamed:
            shutil.rmtree(case)
            return
        for path in run.files:
            place = case / path
            if place.is_dir() and not place.is_symlink():
                place.rmdir()
            else:
                place.unlink(missing_ok=True)
            shutil.copy2(inputs / path, place, follow_symlinks=False)

    def main_of(self, tool: str) -> Callable[[], int | None]:
        """The command's function; it is imported once."""
        if tool not in self.mains:
            if tool == "prompt_core/doctor":
                from prompt_core.doctor import main

                self.mains[tool] = main
            else:
                self.mains[tool] = tool_main(tool)
        return self.mains[tool]

    def _environment(self) -> dict[str, str]:
        nowhere = "http://127.0.0.1:9"  # the port of discard: nobody answers, nothing leaves the machine
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
        folders = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        return {
            **proxies,
            **folders,
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": str(self.root / "home"),
            "COLUMNS": "200",
            "POMP_DEBUG": "",
        }


def faults(
    run: HostileRun, outcome: Outcome, before: Mapping[str, Any], after: Mapping[str, Any], outside: list[str]
) -> list[str]:
    """What must not have happened."""
    wrong = []
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    if outcome.code == CRASHED or "Traceback (most recent call last)" in outcome.out + outcome.err:
        wrong.append("a traceback")
    if outcome.code < 0:
        wrong.append(f"signal {-outcome.code} after {outcome.seconds:.0f} s")
    elif outcome.code not in (0, 2, *run.plain.codes) or any(" failed in" in line for line in lines):
        wrong.append(f"exit code {outcome.code}")
    if outcome.code == 2 and not (
        len(lines) == 1 and outcome.err.rstrip("\n").endswith(lines[0]) and len(lines[0]) < 3000
    ):
        # help of argparse has code 0
        table = run.plain.tool == "datasets/check" and not lines
        if not table:
            wrong.append(f"{len(lines)} lines of errors")
    if any("out of memory" in line for line in lines) or outcome.memory > MEMORY:
        wrong.append(f"memory: {outcome.memory >> 20} MiB")
    if raw := _RAW.search(outcome.out + outcome.err):
        wrong.append(f"a control character {raw.group()!r} as it is")
    if outside:
        wrong.append(f"written outside: {outside}")
    new = [name for name in after if name not in before and not name.endswith("/")]
    left = (*LEFT_BEHIND, *(f"/{pattern}" for pattern in run.plain.leaves))
    new = [name for name in new if not any(fnmatch.fnmatch(f"/{name}", pattern) for pattern in left)]
    if temporary := [name for name in new if name.endswith((".tmp", ".part"))]:
        wrong.append(f"left: {temporary}")
    if outcome.code == 2 and new:
        wrong.append(f"written by a run that failed: {new}")
    changed = [name for name in before if before[name] != after.get(name) and not name.startswith(("run/", "cache/"))]
    changed = [name for name in changed if not any(fnmatch.fnmatch(f"/{name}", pattern) for pattern in left)]
    if changed and outcome.code == 2:
        wrong.append(f"inputs changed: {changed}")
    return wrong
