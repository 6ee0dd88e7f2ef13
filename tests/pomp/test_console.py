"""The command ``pomp``: every word has its module, and a wrong one gets one line."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from pomp.configurations import CONFIGURATIONS, configuration, configurations
from pomp.console import COMMANDS, dispatch
from prompt_core.errors import UserError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(COMMANDS[name].module).main
    assert all(
        parameter.default is not inspect.Parameter.empty for parameter in inspect.signature(main).parameters.values()
    )
    with pytest.raises(SystemExit) as ended:
        dispatch([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: ")
    assert "/home" not in shown


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.argv)
    assert dispatch(["--help"]) == dispatch([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert any(line.split() == [name, *command.summary.split()] for line in lines), name
    assert sys.argv == before


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import pomp

    assert dispatch(["--version"]) == 0
    assert capsys.readouterr().out.strip() == pomp.__version__


def test_an_unknown_command_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'detct' is not a command of pomp; nearest: 'detect'.*pomp --help"):
        dispatch(["detct"])


def test_as_a_module_and_without_torch() -> None:
    code = "import sys, runpy; sys.argv = ['pomp', '--help']\ntry: runpy.run_module('pomp', run_name='__main__')\n"
    code += "except SystemExit as end: assert end.code == 0\nassert not {'torch', 'detectron2'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout


def test_configurations_by_name() -> None:
    assert configuration("mini/detector") == configuration("configs/mini/detector.yaml")
    assert configuration("lvis_pomp") == CONFIGURATIONS / "lvis_pomp.yaml"
    assert all(configuration(name).is_file() for name in configurations())
    with pytest.raises(UserError, match=r"'mini/detectr' is no configuration.*nearest: 'mini/detector'"):
        configuration("mini/detectr")


def test_the_wheel_has_every_configuration() -> None:
    """What setup.py puts into the package is what is in the checkout."""
    setup = (Path(__file__).resolve().parents[2] / "setup.py").read_text(encoding="utf-8")
    depths = {len(path.relative_to(CONFIGURATIONS).parts) for path in CONFIGURATIONS.rglob("*.yaml")}
    for depth in depths:
        assert f'"{"*/" * (depth - 1)}*.yaml"' in setup
