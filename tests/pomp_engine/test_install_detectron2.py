"""The detectron2 installer: checks, repacks and installs a wheel; leaves an existing detectron2 alone. No network."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prompt_core
from pomp_engine import install_detectron2 as tool
from prompt_core.errors import UserError, run_command

DESCRIPTION = "sal_detectron2-0.7.2.dist-info"
MEMBERS = {
    "detectron2/__init__.py": '__version__ = "0.7.2"\n',
    "detectron2/layers/__init__.py": "",
    "detectron2/model_zoo/configs/Base.yaml": "MODEL: {}\n",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "binary",
    "tools/__init__.py": "",
    f"{DESCRIPTION}/METADATA": (
        "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\nRequires-Dist: numpy<2\n"
        'Provides-Extra: all\nRequires-Dist: timm; extra == "all"\n\nRequires-Dist: text of the description\n'
    ),
    f"{DESCRIPTION}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n",
    f"{DESCRIPTION}/top_level.txt": "detectron2\ntools\n",
    f"{DESCRIPTION}/RECORD": "detectron2/__init__.py,sha256=stale,1\n",
}


def write_wheel(folder: Path, extra: dict[str, str] | None = None, without: str | None = None) -> Path:
    path = folder / "sal_detectron2-0.7.2-cp310-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**MEMBERS, **(extra or {})}.items():
            if name != without:
                archive.writestr(name, text)
    return path


def run_tool(
    *arguments: str, path: tuple[Path, ...] = (), given: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    project = Path(prompt_core.__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, project)))}
    command = [sys.executable, *(given or ("-m", "pomp_engine.install_detectron2")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def no_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "installed_version", lambda: None)


@pytest.fixture
def pip_calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(tool, "run_pip", lambda arguments, failure: calls.append(list(arguments)))
    return calls


def test_repacked_wheel_is_valid_pure_and_pinless(tmp_path: Path) -> None:
    pure = tool.repack_pure(write_wheel(tmp_path), tmp_path / "pure")
    assert pure.name == "sal_detectron2-0.7.2-py3-none-any.whl"
    with zipfile.ZipFile(pure) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        contents = {name: archive.read(name) for name in names}
    assert not [name for name in names if name.endswith(".so") or name.startswith("tools/")]
    assert {"detectron2/__init__.py", "detectron2/model_zoo/configs/Base.yaml"} <= set(names)
    assert contents[f"{DESCRIPTION}/top_level.txt"] == b"detectron2\n"
    wheel = contents[f"{DESCRIPTION}/WHEEL"].decode().splitlines()
    assert "Root-Is-Purelib: true" in wheel
    assert [line for line in wheel if line.startswith("Tag:")] == ["Tag: py3-none-any"]
    headers, _, description = contents[f"{DESCRIPTION}/METADATA"].decode().partition("\n\n")
    required = [line.removeprefix("Requires-Dist: ") for line in headers.splitlines() if "Requires-Dist" in line]
    assert required == list(tool.REQUIREMENTS)
    assert not [requirement for requirement in required if "<" in requirement]
    assert description == "Requires-Dist: text of the description\n"


def test_record_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    pure = tool.repack_pure(write_wheel(tmp_path), tmp_path / "pure")
    record_name = f"{DESCRIPTION}/RECORD"
    with zipfile.ZipFile(pure) as archive:
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record_name).decode()))}
        assert set(rows) == set(archive.namelist())
        assert rows.pop(record_name) == ["", ""]
        for name, (digest, size) in rows.items():
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(data)))


def test_repacking_is_reproducible(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    first, second = (tool.repack_pure(wheel, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_pip_installs_the_repacked_wheel(tmp_path: Path) -> None:
    pure = tool.repack_pure(write_wheel(tmp_path), tmp_path / "pure")
    target = tmp_path / "site"
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(pure)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    script = "import detectron2, importlib.metadata as m; print(detectron2.__version__, m.version('sal-detectron2'))"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["0.7.2", "0.7.2"]
    assert not (target / "tools").exists()


@pytest.mark.parametrize(
    "name", ["../outside.py", "/absolute.py", "detectron2/../../outside.py", "C:/outside.py", "..\\outside.py"]
)
def test_a_member_outside_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    wheel = write_wheel(tmp_path, extra={name: "evil"})
    with pytest.raises(UserError, match="outside its folder"):
        tool.repack_pure(wheel, tmp_path / "pure")
    assert not (tmp_path / "pure").exists()
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    link = zipfile.ZipInfo("detectron2/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(UserError, match="outside its folder"):
        tool.repack_pure(wheel, tmp_path / "pure")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.py", "C:", "x\\y"]), min_size=1, max_size=5).map("/".join))
def test_accepted_member_names_stay_inside(name: str) -> None:
    try:
        tool.check_member(zipfile.ZipInfo(name))
    except UserError:
        return
    folder = Path("/folder")
    assert Path(os.path.normpath(folder / name)).is_relative_to(folder)
    assert not set("\\:") & set(name)


@pytest.mark.parametrize("missing", [f"{DESCRIPTION}/WHEEL", f"{DESCRIPTION}/METADATA"])
def test_an_incomplete_wheel_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(UserError, match="dist-info"):
        tool.repack_pure(write_wheel(tmp_path, without=missing), tmp_path / "pure")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "broken.whl"
    wheel.write_bytes(b"PK but not an archive")
    with pytest.raises(UserError, match="not a readable wheel"):
        tool.repack_pure(wheel, tmp_path / "pure")


@pytest.mark.usefixtures("no_detectron2")
def test_a_wrong_checksum_installs_nothing_and_leaves_nothing(
    tmp_path: Path, pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(UserError, match="sha256"):
        tool.main(["--wheel", str(write_wheel(tmp_path))])
    assert pip_calls == []
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("no_detectron2")
@pytest.mark.parametrize("content", [b"not the published wheel", None])
def test_a_wrong_or_absent_file_exits_2_with_one_line(
    tmp_path: Path, content: bytes | None, pip_calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "sal_detectron2-0.7.2-cp310-none-any.whl"
    if content is not None:
        wheel.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: tool.main(["--wheel", str(wheel)]))
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"error: cannot read {wheel}" if content is None else f"error: {wheel} has sha256")
    assert pip_calls == []


def test_an_existing_detectron2_is_left_alone(tmp_path: Path) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "9.8.7"\n')
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run_tool("--wheel", str(tmp_path / "absent.whl"), path=(tmp_path,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "detectron2 9.8.7 is installed; left alone"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_tool_and_the_doctor_do_the_same(tmp_path: Path) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "9.8.7"\n')
    tool_file = Path(prompt_core.__file__).resolve().parent.parent / "tools" / "install_detectron2.py"
    for start in ((str(tool_file),), ("-m", "pomp", "doctor", "--install-detectron2")):
        done = run_tool("--dry-run", path=(tmp_path,), given=start)
        assert (done.returncode, done.stdout.strip()) == (0, "detectron2 9.8.7 is installed; left alone"), done.stderr


def test_it_starts_without_torch_and_without_detectron2() -> None:
    script = "import sys, pomp_engine.install_detectron2; print({'torch', 'detectron2', 'numpy'} & set(sys.modules))"
    assert run_tool(given=("-c", script)).stdout.strip() == "set()"


def test_a_broken_detectron2_is_reported_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import a_module_that_is_not_there\n")
    done = run_tool(path=(tmp_path,))
    assert done.returncode == 2
    assert "fails to import" in done.stderr
    assert "a_module_that_is_not_there" in done.stderr


@pytest.mark.usefixtures("no_detectron2")
def test_dry_run_prints_the_plan_and_changes_nothing(
    pip_calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    tool.main(["--dry-run"])
    printed = capsys.readouterr().out
    assert [line.split(".")[0] for line in printed.splitlines()] == ["1", "2", "3", "4", "5", "6"]
    assert tool.PACKAGE in printed
    assert tool.SHA256 in printed
    assert pip_calls == []


def test_a_bare_folder_is_not_taken_for_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = ModuleSpec("detectron2", loader=None, is_package=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: namespace)
    assert tool.installed_version() is None


@pytest.mark.usefixtures("no_detectron2")
def test_requirements_come_first_and_the_wheel_last_without_dependencies(
    tmp_path: Path, pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path)
    monkeypatch.setattr(tool, "check_sha256", lambda path: None)
    done = subprocess.CompletedProcess([], 0, stdout="0.7.2\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert tool.install(wheel) == "0.7.2"
    requirements, last = pip_calls
    assert requirements == ["install", *tool.REQUIREMENTS]
    assert last[:3] == ["install", "--no-deps", "--no-index"]
    assert last[3].endswith("-py3-none-any.whl")


@pytest.mark.usefixtures("no_detectron2")
def test_a_download_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip_calls: list[list[str]]
) -> None:
    def fake_pip(arguments: list[str], failure: str) -> None:
        pip_calls.append(list(arguments))
        write_wheel(Path(arguments[arguments.index("--dest") + 1]))

    monkeypatch.setattr(tool, "run_pip", fake_pip)
    with pytest.raises(UserError, match="sha256"):
        tool.main([])
    assert [call[0] for call in pip_calls] == ["download"]
