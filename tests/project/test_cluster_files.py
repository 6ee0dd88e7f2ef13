"""The files for SLURM and Kubernetes parse, their numbers agree, and torchrun starts commands that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from ..test_docs_commands import ROOT, Command, check_configuration, parse

SLURM, KUBERNETES = (ROOT / "docs/cluster" / name for name in ("pretrain.slurm", "pretrain.kubernetes.yaml"))


def started(text: str) -> tuple[object, Command]:
    """torchrun's own reading of a line of shell, and the command that it starts."""
    line = re.sub(r"\\\n", " ", text[text.index("torchrun ") :]).split("\n\n")[0]
    words = [word for word in shlex.split(line) if word not in ("${resume[@]}", "${resume:-}")]
    options = get_args_parser().parse_args(
        ["2" if word in ("$SLURM_NNODES", "$JOB_COMPLETION_INDEX") else word for word in words[1:]]
    )
    return options, Command("cluster", ("python", options.training_script, *options.training_script_args))


def check_started(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_configuration(command, parse(command, monkeypatch))


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text(encoding="utf-8")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.M))
    options, command = started(text)
    assert options.nproc_per_node == asked["gpus-per-node"]
    assert asked["ntasks-per-node"] == "1"  # torchrun starts the processes of a node
    assert asked["signal"].startswith("TERM@")  # to the steps: "B:" would reach the shell alone
    check_started(command, monkeypatch)


def test_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    service, job = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    pod, name = job["spec"]["template"]["spec"], job["metadata"]["name"]
    (container,) = pod["containers"]
    (script,) = container["args"]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    options, command = started(script)
    assert job["spec"]["completionMode"] == "Indexed"
    assert str(job["spec"]["completions"]) == str(job["spec"]["parallelism"]) == options.nnodes
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == options.nproc_per_node
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert options.master_addr == f"{name}-0.{service['metadata']['name']}"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    check_started(command, monkeypatch)


def test_both_start_the_same() -> None:
    _, slurm = started(SLURM.read_text(encoding="utf-8"))
    _, job = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    _, kubernetes = started(job["spec"]["template"]["spec"]["containers"][0]["args"][0])
    words = ["/shared/runs/pomp" if word == "$output" else word for word in slurm.words]
    assert tuple(words) == kubernetes.words


def test_torchrun_in_pages_starts_commands_that_we_have(monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0
    for page in sorted(Path(ROOT, "docs").glob("*.md")):
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] != ["torchrun"] or "FILE" in words:
                    continue
                options = get_args_parser().parse_args(words[1:])
                front = ["pomp"] if options.module else ["python", options.training_script]
                with monkeypatch.context() as patch:
                    patch.chdir(ROOT)
                    command = Command(page.name, (*front, *options.training_script_args))
                    values = parse(command, patch)
                    if not options.module:
                        check_configuration(command, values)
                found += 1
    assert found >= 4
