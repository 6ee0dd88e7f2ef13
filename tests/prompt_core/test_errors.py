"""Whatever ends a command: one line, and an exit code that says who can mend it."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from torch.multiprocessing import ProcessRaisedException

from prompt_core.config import correction_of
from prompt_core.errors import UserError, nearest, run_command

ROOT = Path(__file__).resolve().parent.parent.parent


def test_nearest() -> None:
    assert nearest("vit-b-16", ["ViT-B-16", "RN50"]) == "; nearest: 'ViT-B-16'"
    assert nearest("zzz", ["ViT-B-16", "RN50"]) == ""
    assert nearest("a", []) == ""


def _ends(error: BaseException) -> int:
    raise error


def _code_and_line(main: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        run_command(main)  # type: ignore[arg-type]
    return int(caught.value.code or 0), capsys.readouterr().err


def _in_a_worker() -> UserError:
    return UserError(
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\nprompt_core.errors.UserError: photo 3 is damaged\n'
    )


@pytest.mark.parametrize(
    ("outcome", "code", "output"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (SystemExit(7), 7, ""),
        (UserError("no file\n  at a.txt"), 2, "error: no file at a.txt\n"),
        (_in_a_worker(), 2, "error: photo 3 is damaged\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/b"),
            2,
            "error: /a/b: No space left on device; free some space there, or choose another place\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a\nb"),
            2,
            "error: a\\nb: Permission denied; give this user access to it, or choose another place\n",
        ),
        (
            OSError(errno.EMFILE, "Too many open files"),
            2,
            "error: the system refused: Too many open files; raise the limit of open files (ulimit -n), "
            "or use fewer workers\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "socket"), 2, "error: socket: Broken pipe\n"),
        (
            MemoryError(),
            2,
            "error: out of memory (MemoryError); use smaller batches, fewer workers or a larger machine\n",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"),
            2,
            "error: out of memory (OutOfMemoryError: CUDA out of memory); use smaller batches, fewer workers or a "
            "larger machine\n",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            2,
            "error: out of memory (RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
            "`cublasCreate(handle)`); use smaller batches, fewer workers or a larger machine\n",
        ),
    ],
)
def test_endings(
    capsys: pytest.CaptureFixture[str], outcome: int | BaseException | None, code: int, output: str
) -> None:
    main = (lambda: _ends(outcome)) if isinstance(outcome, BaseException) else (lambda: outcome)
    assert _code_and_line(main, capsys) == (code, output)


def test_memory_that_the_machine_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (lambda: torch.empty(1 << 55), lambda: np.zeros((1 << 30, 1 << 20))):
        code, line = _code_and_line(main, capsys)
        assert code == 2
        assert line.startswith("error: out of memory (")
        assert line.count("\n") == 1


def test_text_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_bytes("café".encode("latin-1"))
    code, line = _code_and_line(lambda: (tmp_path / "names.txt").read_text(encoding="utf-8"), capsys)
    assert (code, line.partition(" (")[0]) == (2, "error: a file is not text in utf-8: byte 0xe9 at position 3")


def test_errors_of_libraries_and_of_the_toolkit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/a_tool.py"])
    monkeypatch.delenv("POMP_DEBUG", raising=False)
    code, line = _code_and_line(lambda: torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 5)), capsys)
    assert (code, line.count("\n")) == (1, 1)
    code, line = _code_and_line(lambda: torch.nn.Linear(3, 4)(torch.ones(2, 5)), capsys)
    assert code == 1
    assert line.startswith("error: a_tool.py failed inside torch: RuntimeError: mat1 and mat2 shapes")
    assert line.endswith("; POMP_DEBUG=1 shows where\n")
    code, line = _code_and_line(lambda: load_safetensors(b"nonsense"), capsys)
    assert (code, "inside safetensors" in line) == (1, True)
    code, line = _code_and_line(lambda: correction_of(None), capsys)  # type: ignore[arg-type, func-returns-value]
    assert code == 1
    assert "failed in prompt_core/config.py, line " in line


def test_errors_of_processes_that_were_started(capsys: pytest.CaptureFixture[str]) -> None:
    report = (
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
        '  File "x.py", line 1, in f\nRuntimeError: shapes differ\n'
    )
    code, line = _code_and_line(lambda: _ends(ProcessRaisedException(report, 1, 2)), capsys)
    assert code == 1
    assert " failed in a process that it started: RuntimeError: shapes differ; POMP_DEBUG=1" in line


def test_the_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for value, shown in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("POMP_DEBUG", value)
        code, text = _code_and_line(lambda: _ends(ZeroDivisionError("a\x1b[31m")), capsys)
        assert code == 1
        assert ("Traceback" in text and "in _ends" in text) == shown
        assert "\x1b" not in text


def test_what_is_nested_too_deeply(capsys: pytest.CaptureFixture[str]) -> None:
    def deeper() -> int:
        return deeper()

    code, line = _code_and_line(deeper, capsys)
    assert (code, line.count("\n")) == (1, 1)
    assert line.startswith("error: something is nested too deeply, inside tests; ")


def test_a_path_of_too_many_folders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = _code_and_line(lambda: Path(tmp_path, "a/" * 1800).mkdir(parents=True), capsys)
    assert (code, line) == (2, "error: a path has too many folders below each other; choose a shorter one\n")
    assert not list(tmp_path.iterdir())


def test_links_in_a_circle(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    code, line = _code_and_line(lambda: loop.resolve(strict=True), capsys)
    assert code == 2
    assert f"{loop}" in line
    assert "Too many levels of symbolic links" in line


def test_a_line_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = _code_and_line(lambda: _ends(UserError(f"--seeds is {'9' * 5000}; a number is expected")), capsys)
    assert code == 2
    assert len(line) < 2020
    assert line.startswith("error: --seeds is 999")
    assert line.endswith("999; a number is expected\n")


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("print('line\\n' * 100_000)", 141, ""),
        ("print('line')", 141, ""),
        ("raise SystemExit(print('help'))", 141, ""),
        ("raise errors.UserError('bad')", 2, "error: bad\n"),
        ("visible.plain_console().print('a')", 141, ""),
    ],
)
def test_a_reader_that_has_gone(command: str, code: int, error: str) -> None:
    script = f"from prompt_core import errors, visible\ndef main():\n    {command}\nerrors.run_command(main)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdin.read(); exec({script!r})"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=60)[1] == error
    assert process.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_on_a_full_disk() -> None:
    script = "from prompt_core import errors\nerrors.run_command(lambda: print('a'))\n"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in done.stderr


def test_every_command_ends_this_way() -> None:
    commands = [file for place in ("tools", "datasets") for file in sorted((ROOT / place).glob("*.py"))]
    packages = ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab")
    modules = [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]
    commands += [file for file in modules if "__main__" in (file.name, *_lines_of_main(file))]
    assert len(commands) > 25
    for file in commands:
        last = file.read_text(encoding="utf-8").rstrip().splitlines()[-2:]
        assert last == ['if __name__ == "__main__":', "    run_command(main)"], f"{file} ends in another way"


def _lines_of_main(file: Path) -> list[str]:
    return ["__main__" for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("if __name__ ==")]
