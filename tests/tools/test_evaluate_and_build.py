"""Scoring and classifier tools as users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prompt_core import PromptedTextEncoder, SoftPrompt, TextClassifier, Vocabulary, load_clip

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prompt_file(tmp_path: Path, tiny_model: tuple[Path, Path]) -> Path:
    path = tmp_path / "prompt.safetensors"
    SoftPrompt.random(32, 4, seed=3).save(path, clip=str(tiny_model[0]))
    return path


def test_evaluate_writes_numbers_with_their_protocol(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, prompt_file: Path, tmp_path: Path
) -> None:
    arguments = ["--prompt", prompt_file, "--pretrained", tiny_model[1], "--datasets", f"folder:{picture_folder}"]
    code, out, error = call_tool("evaluate_prompt", *arguments, "--output", "scores", "DATA.CACHE", "cache")
    assert code == 0, error
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    name = picture_folder.name
    clip = load_clip(*map(str, tiny_model))
    vocabulary = Vocabulary(["blue_disc", "green_heart", "old_oak", "red_star"])
    features = PromptedTextEncoder(clip)(SoftPrompt.load(prompt_file), vocabulary)
    from prompt_core.data.sources import open_images

    images = open_images(f"folder:{picture_folder}", "val")
    pixels = torch.stack([clip.preprocess(images.read(index)) for index in range(len(images))])
    predicted = (clip.encode_image(pixels) @ features.detach().T).argmax(dim=1)
    expected = 100 * float((predicted.numpy() == images.labels).mean())
    assert metrics[f"{name}/top1"] == pytest.approx(expected, abs=1e-3)
    protocol = metrics["_protocol"][name]
    assert (protocol["split"], protocol["candidates"], protocol["images"]) == ("val", 4, 24)
    assert f"{expected:.1f}" in out


def test_a_wider_vocabulary_and_templates(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--template", "a photo of a {}.", "--clip", tiny_model[0], "--pretrained", tiny_model[1]]
    arguments += ["--datasets", f"folder:{picture_folder}", "--vocabulary", "coco", "--output", "scores"]
    code, _, error = call_tool("evaluate_prompt", *arguments)
    assert code == 0, error
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert metrics["_protocol"][picture_folder.name]["candidates"] == 84


def test_a_class_matrix_is_scored_as_what_made_it(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    template = ["--template", "a photo of a {}.", "--clip", tiny_model[0], "--pretrained", tiny_model[1]]
    words = "old oak,green heart,blue disc,red star,fog"
    assert call_tool("build_classifier", *template, "--vocabulary", words, "--output", "words.safetensors")[0] == 0
    data = ["--datasets", f"folder:{picture_folder}"]
    assert call_tool("evaluate_prompt", *template, *data, "--output", "text")[0] == 0
    # the file says of which CLIP it is, but weights from a file have to be given again
    matrix = ["--classifier", "words.safetensors", "--pretrained", tiny_model[1]]
    code, out, error = call_tool("evaluate_prompt", *matrix, *data, "--output", "rows")
    assert code == 0, error
    assert "words.safetensors with" in out
    scores = [json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in ("text", "rows")]
    assert scores[0].keys() == scores[1].keys()
    for key in scores[0].keys() - {"_run", "_protocol", "_sha256"}:
        assert scores[1][key] == pytest.approx(scores[0][key], abs=1e-6), key
    assert call_tool("build_classifier", *template, "--vocabulary", "red star", "--output", "one.safetensors")[0] == 0
    wrong = {
        "the classifier is without the class 'blue_disc', it knows its own 1 only": ["one.safetensors", *matrix[2:]],
        "the classifier has width 24, the image features of mini have 116": ["words.safetensors", "--clip", "mini"],
        "give one of --prompt FILE, --classifier FILE": ["words.safetensors", *template],
    }
    for line, given in wrong.items():
        code, _, error = call_tool("evaluate_prompt", "--classifier", *given, *data)
        assert (code, line in error) == (2, True), error


def test_base_and_new_halves_are_scored_among_their_own_classes(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--template", "{}", "--clip", tiny_model[0], "--pretrained", tiny_model[1], "--classes", "base,new"]
    code, out, error = call_tool(
        "evaluate_prompt", *arguments, "--datasets", f"folder:{picture_folder}", "--output", "scores"
    )
    assert code == 0, error
    metrics, name = json.loads((tmp_path / "scores/metrics.json").read_text()), picture_folder.name
    clip = load_clip(*map(str, tiny_model))
    from prompt_core.data.sources import open_images

    images = open_images(f"folder:{picture_folder}", "val")
    pixels = torch.stack([clip.preprocess(images.read(index)) for index in range(len(images))])
    encoded = clip.encode_image(pixels)
    expected = {}
    for part, labels in (("base", [0, 1]), ("novel", [2, 3])):
        features = TextClassifier.build(clip, [images.names[label] for label in labels], "{}").weight
        chosen = np.isin(images.labels, labels)
        right = (encoded[torch.from_numpy(chosen)] @ features.T).argmax(dim=1).numpy() + labels[0]
        expected[part] = 100 * float((right == images.labels[chosen]).mean())
        assert metrics[f"{name}_{part}/top1"] == pytest.approx(expected[part], abs=1e-3)
        protocol = metrics["_protocol"][f"{name}_{part}"]
        assert (protocol["images_of"], protocol["candidates"], protocol["images"]) == (f"{part} classes", 2, 12)
    mean = 2 * expected["base"] * expected["novel"] / (expected["base"] + expected["novel"])
    assert metrics[f"{name}_base_and_novel/harmonic_mean"] == pytest.approx(mean, abs=1e-3)
    assert metrics["_protocol"][f"{name}_base_and_novel"]["images"] == 24
    assert "harmonic mean" in out
    code, _, error = call_tool("evaluate_prompt", *arguments[:-1], "basenew", "--datasets", f"folder:{picture_folder}")
    assert (code, "EVAL.CLASSES is 'basenew'; expected all, base, new or base,new" in error) == (2, True)


def test_own_templates_are_written_next_to_the_numbers(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--template", "data_set", "--clip", tiny_model[0], "--pretrained", tiny_model[1]]
    code, _, error = call_tool(
        "evaluate_prompt", *arguments, "--datasets", f"folder:{picture_folder}", "--output", "scores"
    )
    assert code == 0, error
    run = json.loads((tmp_path / "scores/metrics.json").read_text())["_run"]
    assert run["templates"] == {picture_folder.name: ["a photo of a {}."]}


def test_build_classifier(call_tool: Call, tiny_model: tuple[Path, Path], prompt_file: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("red star\nblue_disc\nold oak\n")
    arguments = ["--vocabulary", "words.txt", "--prompt", prompt_file, "--pretrained", tiny_model[1]]
    for output in ("out.safetensors", "out.npy"):
        code, _, error = call_tool("build_classifier", *arguments, "--output", output)
        assert code == 0, error
        classifier = TextClassifier.load(tmp_path / output)
        assert classifier.names == ["red star", "blue_disc", "old oak"]
        clip = load_clip(*map(str, tiny_model))
        expected = PromptedTextEncoder(clip)(SoftPrompt.load(prompt_file), ["red star", "blue disc", "old oak"])
        torch.testing.assert_close(classifier.weight, expected.detach(), atol=1e-5, rtol=0)
    assert np.load(tmp_path / "out.npy").shape == (3, 24)
    metadata = TextClassifier.load(tmp_path / "out.safetensors").metadata
    assert metadata["prompt_sha256"]
    assert metadata["vocabulary_sha256"] == Vocabulary.load(tmp_path / "words.txt").sha256


def test_build_classifier_with_a_background(call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = [
        "--template",
        "a {}",
        "--clip",
        tiny_model[0],
        "--pretrained",
        tiny_model[1],
        "--vocabulary",
        "cat,dog",
    ]
    code, out, error = call_tool("build_classifier", *arguments, "--negatives", "fog,rain", "--output", "o.safetensors")
    assert code == 0, error
    assert "2 names in the background" in " ".join(out.split())
    background = TextClassifier.load(tmp_path / "o.safetensors").background
    assert background is not None
    assert background.names == ["fog", "rain"]
    code, _, error = call_tool("build_classifier", *arguments, "--negatives", "fog", "--output", "o.npy")
    assert code == 2
    assert "a .npy has no room for --background and --negatives" in error


def test_build_classifier_of_words(call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["--template", "a {}", "--clip", tiny_model[0], "--pretrained", tiny_model[1], "--output", "out.npy"]
    for words, names in (("cat, hot dog", ["cat", "hot dog"]), ("cocoa,", ["cocoa"]), ("cat", ["cat"])):
        code, _, error = call_tool("build_classifier", "--vocabulary", words, *arguments)
        assert code == 0, error
        assert TextClassifier.load(tmp_path / "out.npy").names == names
    code, _, _ = call_tool("build_classifier", "--vocabulary", "out.safetensors", *arguments)
    assert code == 2, "no such classifier"
    arguments[-1] = "out.safetensors"
    assert call_tool("build_classifier", "--vocabulary", "cat,dog", *arguments)[0] == 0
    arguments[-1] = "again.safetensors"
    assert call_tool("build_classifier", "--vocabulary", "out.safetensors", *arguments)[0] == 0
    assert TextClassifier.load(tmp_path / "again.safetensors").names == ["cat", "dog"]


def test_build_classifier_as_detic_does(call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path) -> None:
    vocabulary = Vocabulary(["hot_dog", "cat"], synonyms=[["red_hot", "hot_dog"], ["kitty"]])
    vocabulary.save(tmp_path / "words.json")
    arguments = ["--vocabulary", "words.json", "--template", "a {}", "--clip", tiny_model[0]]
    arguments += ["--pretrained", tiny_model[1], "--output", "out.safetensors"]
    code, _, error = call_tool("build_classifier", *arguments, "--synonyms", "--average-raw", "--keep-underscores")
    assert code == 0, error
    built = TextClassifier.load(tmp_path / "out.safetensors")
    model = load_clip(*map(str, tiny_model))
    with torch.no_grad():
        ids = model.tokenizer(["a hot_dog", "a red_hot", "a cat", "a kitty"])
        raw = model.model.encode_text(ids)  # type: ignore[operator]
    expected = torch.nn.functional.normalize(raw.view(2, 2, -1).mean(dim=1), dim=1)
    torch.testing.assert_close(built.weight, expected, atol=1e-5, rtol=0)
    stated = {key: built.metadata[key] for key in ("synonyms", "average_raw", "keep_underscores")}
    assert stated == {"synonyms": True, "average_raw": True, "keep_underscores": True}


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("build_classifier", ["--vocabulary", "twice.txt", "--template", "{}", "--output", "o.npy"], "'cat'"),
        ("build_classifier", ["--vocabulary", "blank.txt", "--template", "{}", "--output", "o.npy"], "class 2 of 3"),
        ("build_classifier", ["--vocabulary", "coko", "--template", "{}", "--output", "o.npy"], "nearest: 'coco'"),
        ("build_classifier", ["--vocabulary", "coco", "--template", "{}", "--output", "o.txt"], ".safetensors or .npy"),
        (
            "build_classifier",
            ["--vocabulary", "coco", "--template", "{}", "--output", "words.txt/o.npy"],
            "cannot write",
        ),
        ("build_classifier", ["--vocabulary", "coco", "--output", "o.npy"], "either --prompt FILE or"),
        (
            "build_classifier",
            ["--vocabulary", "coco", "--template", "{}", "--average-raw", "--output", "o.npy"],
            "--average-raw is about synonyms",
        ),
        ("build_classifier", ["--template", "{}", "--output", "o.npy"], "--vocabulary"),
        ("build_classifier", ["--vocabulary", "coco", "--prompt", "none.pth", "--output", "o.npy"], "does not exist"),
        ("build_classifier", ["--vocabulary", "coco", "--prompt", "cut.safetensors", "--output", "o.npy"], "truncated"),
        ("build_classifier", ["--vocabulary", "coco", "--prompt", "wide.safetensors", "--output", "o.npy"], "width 64"),
        ("build_classifier", ["--vocabulary", "coco", "--template", "photo", "--output", "o.npy"], "has no {}"),
        ("evaluate_prompt", ["--template", "{}"], "no data set"),
        ("evaluate_prompt", ["--template", "{}", "--datasets", "folder:empty"], "empty"),
    ],
)
def test_mistakes_get_one_line_and_code_2(
    call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path, tool: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "words.txt").write_text("cat\n")
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    (tmp_path / "blank.txt").write_text("cat\n\ndog\n")
    (tmp_path / "empty").mkdir()
    SoftPrompt.random(64, 2).save(tmp_path / "wide.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "wide.safetensors").read_bytes()[:100])
    code, _, error = call_tool(tool, *arguments, "--clip", tiny_model[0], "--pretrained", tiny_model[1])
    assert code == 2, error
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert message in lines[0]
    assert not (tmp_path / "o.npy").exists()


def test_margins_table(call_tool: Call, tmp_path: Path) -> None:
    code, out, _ = call_tool("margins", "--classes", "1000", "--sampled", "128,256,512")
    assert code == 0
    for margin in ("0.8958", "0.5930", "0.2911"):
        # The published values have four places.
        assert any(abs(float(word) - float(margin)) < 2e-4 for word in out.split() if word[:2] == margin[:2])


def test_random_weights_only_on_purpose(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    subject = ["--template", "a {}", "--clip", tiny_model[0]]
    build = ["build_classifier", *subject, "--vocabulary", "cat,dog", "--output", "two.npy"]
    for arguments in (build, ["evaluate_prompt", *subject, "--datasets", f"folder:{picture_folder}"]):
        code, _, error = call_tool(*map(str, arguments))
        assert (code, error.count("\n")) == (2, 1)
        assert "has no pretrained weights, and random ones know no classes; give --pretrained" in error
    assert not (tmp_path / "two.npy").exists()
    assert call_tool(*map(str, build), "--random-weights")[0] == 0
