"""Loading CLIP: architectures, configurations, weights in every wrapping, and the refusals."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError, load_clip
from prompt_core.clip import Clip

from ..support.towers import one_tokenizer

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices this small are bound by the threads' waiting for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer() -> Iterator[None]:
    with one_tokenizer():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that is also registered with open_clip under two names, and its weights in several files."""
    folder = tmp_path_factory.mktemp("clip")
    for name in ("tinytest.json", "tinytest-quickgelu.json"):
        (folder / name).write_text(json.dumps(CONFIG if "quick" in name else CONFIG | {"quick_gelu": False}))
        open_clip.add_model_config(folder / name)
    (folder / "custom.json").write_text(json.dumps(CONFIG | {"custom_text": True}))
    torch.manual_seed(3)
    state = open_clip.CLIP(**copy.deepcopy(CONFIG)).state_dict()
    state["logit_scale"] = torch.tensor(math.log(42.0))
    torch.save(state, folder / "plain.pt")
    torch.save({key: value.half() for key, value in state.items()}, folder / "half.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "run.pt")
    save_file({key: value.clone() for key, value in state.items()}, folder / "plain.safetensors")
    extras = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    numbers = {key: torch.tensor(value) for key, value in extras.items()}
    torch.save(state | numbers, folder / "openai.pt")
    torch.save({key: value.half() for key, value in state.items()} | numbers, folder / "openai_half.pt")
    archive_torchscript(state, extras, folder / "openai_archive.pt")
    return folder


def archive_torchscript(state: dict[str, torch.Tensor], extras: dict[str, int], path: Path) -> None:
    """A traced model in half precision with the three integers next to the weights: OpenAI's own form."""
    model = open_clip.CLIP(**copy.deepcopy(CONFIG))
    model.load_state_dict(state)
    for key, value in extras.items():
        vars(model).pop(key, None)
        model.register_buffer(key, torch.tensor(value))
    inputs = (IMAGES, open_clip.SimpleTokenizer()(["cat", "dog"]))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model.eval(), inputs, check_trace=False).half(), path)


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm features of the images and of two texts, from open_clip alone."""
    model = open_clip.CLIP(**copy.deepcopy(CONFIG)).eval()
    model.load_state_dict(torch.load(folder / "plain.pt", weights_only=True))
    with torch.no_grad():
        texts = open_clip.SimpleTokenizer()(["a cat.", "a dog."])
        return model.encode_image(IMAGES, normalize=True), model.encode_text(texts, normalize=True)


@pytest.fixture
def random_warnings() -> Iterator[Callable[[], list[warnings.WarningMessage]]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield lambda: [warning for warning in seen if "random" in str(warning.message)]


@pytest.mark.parametrize(
    ("name", "file", "tolerance"),
    [
        ("custom.json", "plain.pt", 1e-6),
        ("tinytest-quickgelu.json", "plain.pt", 1e-6),
        ("tinytest-quickgelu.json", "plain.safetensors", 1e-6),
        ("tinytest-quickgelu.json", "run.pt", 1e-6),
        ("tinytest-quickgelu.json", "half.pt", 5e-3),
        ("tinytest-quickgelu.json", "openai.pt", 1e-6),
        ("tinytest-quickgelu", "plain.pt", 1e-6),
        ("tinytest-quickgelu", "openai_archive.pt", 5e-3),
        ("tinytest", "openai.pt", 1e-6),
        ("openai", "plain.pt", 1e-6),
        ("openai", "openai.pt", 1e-6),
        ("openai", "openai_half.pt", 5e-3),
        ("openai", "openai_archive.pt", 5e-3),
    ],
)
def test_weights_in_every_wrapping(
    folder: Path, expected: tuple[torch.Tensor, torch.Tensor], name: str, file: str, tolerance: float
) -> None:
    full = str(folder / name) if name.endswith(".json") else name
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        clip = load_clip(full, folder / file)
    messages = [str(warning.message) for warning in seen if warning.category is UserWarning]
    assert not any("random" in warning for warning in messages)
    assert any("QuickGELU" in warning for warning in messages) == (name == "tinytest")
    assert clip.name == full
    assert clip.pretrained == str(folder / file)
    assert clip.dtype == torch.float32
    assert not clip.model.training
    assert not any(module.training for module in clip.model.modules())
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    assert clip.logit_scale == pytest.approx(42, rel=2e-3 if tolerance > 1e-3 else 1e-6)
    images, texts = expected
    features = clip.encode_image(IMAGES)
    torch.testing.assert_close(features, images, atol=tolerance, rtol=0)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
    with torch.no_grad():
        ours = PromptedTextEncoder(clip)(SoftPrompt.from_words(clip, "a"), ["cat", "dog"])
    torch.testing.assert_close(ours, texts, atol=tolerance, rtol=0)
    assert clip.embed_dim == 24
    assert clip.image_size == 32


def test_half_precision_files_are_really_half(folder: Path) -> None:
    """Else the tolerances above would hide that files lose nothing or everything."""
    whole, half = load_clip("openai", folder / "openai.pt"), load_clip("openai", folder / "openai_half.pt")
    archive = load_clip("openai", folder / "openai_archive.pt")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(half.model.state_dict()[key], value.half().float()), key
        assert torch.equal(archive.model.state_dict()[key], value.half().float()), key
    assert not torch.equal(whole.model.token_embedding.weight, half.model.token_embedding.weight)


def test_openai_images_are_normalised_as_published(folder: Path) -> None:
    clip = load_clip("openai", folder / "openai.pt")
    assert clip.image_mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert clip.image_std == pytest.approx((0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize("name", ["tinytest.json", "tinytest"])
def test_random_weights_are_said_in_one_warning(
    folder: Path,
    name: str,
    random_warnings: Callable[[], list[warnings.WarningMessage]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    full = str(folder / name) if name.endswith(".json") else name
    handlers, filters = list(logging.getLogger().handlers), list(logging.getLogger().filters)
    clip = load_clip(full)
    (warning,) = random_warnings()
    assert str(warning.message) == f"{full}: no pretrained weights given, the weights are random"
    assert warning.filename == __file__, "the warning points at the caller"
    assert not caplog.records
    assert capfd.readouterr().err == ""
    assert (logging.getLogger().handlers, logging.getLogger().filters) == (handlers, filters)
    assert clip.pretrained is None


def test_other_records_still_reach_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_clip("tinytest")
        logging.warning("after")
    assert any("tinytest" in record.getMessage() for record in caplog.records)
    assert caplog.records[-1].getMessage() == "after"


def test_configuration_files(folder: Path, tmp_path: Path) -> None:
    hub = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 2], "resize_mode": "squash"}}
    (tmp_path / "hub.json").write_text(json.dumps(hub))
    clip = load_clip(tmp_path / "hub.json", folder / "plain.safetensors")
    assert clip.name == str(tmp_path / "hub.json")
    assert clip.image_mean == (0.1, 0.2, 0.3)
    assert clip.image_std == (1, 1, 2)
    pixels = clip.preprocess(Image.fromarray(np.full((40, 50, 3), 255, np.uint8)))
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0, 0].tolist() == pytest.approx([0.9, 0.8, 0.35], abs=1e-6)
    short = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"context_length": 20}}
    (tmp_path / "short.json").write_text(json.dumps(short))
    assert load_clip(tmp_path / "short.json").tokenizer(["cat"]).shape == (1, 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json is not valid JSON"),
        ("[1]", "a JSON object is expected"),
        ('{"embed_dim": 3}', "embed_dim, vision_cfg and text_cfg are expected"),
        (json.dumps(CONFIG | {"depth": 3}), "unexpected keyword argument 'depth'"),
        (json.dumps(CONFIG | {"vision_cfg": {"depth": 1}}), "unexpected keyword argument 'depth'"),
        (json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"average": 1}}), "unexpected keyword argument 'average'"),
    ],
)
def test_bad_configurations(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_clip(str(tmp_path / "a.json"))
    assert str(tmp_path / "a.json") in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read .*b\.json: No such file"):
        load_clip(str(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("ViT-B/16", "'ViT-B-16'"), ("vit-b-32-quickgellu", "'ViT-B-32-quickgelu'"), ("RN-50", "'RN50'")],
)
def test_unknown_architectures_suggest_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UserError, match=f"unknown architecture '{name}'; nearest: .*{suggestion}"):
        load_clip(name)


def test_unknown_tags(folder: Path) -> None:
    with pytest.raises(UserError, match="'opnai' is neither a file nor a tag of ViT-B-16; nearest: 'openai'"):
        load_clip("ViT-B-16", "opnai")
    with pytest.raises(UserError, match="neither a file nor a tag of ViT-B-16; known tags: openai, laion"):
        load_clip("ViT-B-16", folder / "absent.pt")
    with pytest.raises(UserError, match="neither a file nor a tag of tinytest; it has no tags"):
        load_clip("tinytest", "openai")
    for pretrained in (None, folder / "absent.pt", "openai"):
        with pytest.raises(UserError, match="name 'openai' needs pretrained=FILE"):
            load_clip("openai", pretrained)
    with pytest.raises(UserError, match=r"no weights file at .*absent\.pt"):
        load_clip(folder / "tinytest.json", folder / "absent.pt")


class Evil:
    """Runs a command when it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["tinytest.json", "tinytest", "openai"])
def test_unreadable_weights(folder: Path, tmp_path: Path, name: str) -> None:
    full = str(folder / name) if name.endswith(".json") else name
    bad = []
    for source in ("plain.pt", "plain.safetensors", "openai_archive.pt"):
        whole = (folder / source).read_bytes()
        for size in (0, 9, len(whole) // 2):
            bad.append(tmp_path / f"{size}_{source}")
            bad[-1].write_bytes(whole[:size])
    marker = tmp_path / "marker"
    state = torch.load(folder / "plain.pt", weights_only=True)
    torch.save({"state_dict": state, "hook": Evil(marker)}, tmp_path / "evil.pt")
    for file in [*bad, tmp_path / "evil.pt"]:
        with pytest.raises(
            UserError, match=r"could not be read as a state dict .*; it may be truncated or hold"
        ) as caught:
            load_clip(full, file)
        assert str(caught.value).startswith(str(file))
        assert str(caught.value).endswith("it may be truncated or hold more than tensors")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert not marker.exists()
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "number.pt")
    for file in ("list.pt", "number.pt"):
        with pytest.raises(UserError, match="holds no state dict: a mapping of names to tensors is expected"):
            load_clip(full, tmp_path / file)


def test_weights_of_another_architecture(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "plain.pt", weights_only=True)
    wide = CONFIG | {"embed_dim": 48}
    narrow_text = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"width": 128}}
    deep = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"layers": 3}}
    shallow = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"layers": 1}}
    for config in (wide, narrow_text, deep, shallow):
        (tmp_path / "a.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"plain\.pt does not fit the architecture: ") as caught:
            load_clip(tmp_path / "a.json", folder / "plain.pt")
        assert "\n" not in str(caught.value)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="does not fit the architecture"):
        load_clip(folder / "tinytest.json", tmp_path / "other.pt")
    torch.save({key: value for key, value in state.items() if "visual" not in key}, tmp_path / "text.pt")
    save_file({f"text.{key}": value for key, value in state.items()}, tmp_path / "prefixed.safetensors")
    for file in ("other.pt", "text.pt", "prefixed.safetensors"):
        with pytest.raises(UserError, match="is not an OpenAI CLIP state dict"):
            load_clip("openai", tmp_path / file)


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"device 'nonsense' cannot be used: .*; 'cpu' always can"):
        load_clip(folder / "tinytest.json", device="nonsense")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_image_features_are_unit_norm_and_ungraded(make_tiny_clip: Callable[..., Clip], dtype: torch.dtype) -> None:
    clip = make_tiny_clip(dtype=dtype)
    images = IMAGES.clone().requires_grad_()
    features = clip.encode_image(images)
    assert features.shape == (2, 24)
    assert features.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not features.requires_grad
    torch.testing.assert_close(features.norm(dim=1).double(), torch.ones(2).double(), atol=1e-6, rtol=0)
    with torch.no_grad():
        plain = clip.model.encode_image(IMAGES.to(dtype))  # type: ignore[operator]
    assert float((plain.norm(dim=1) - 1).abs().min()) > 0.01, "the model's own features have some other length"
    torch.testing.assert_close(features, F.normalize(plain.to(features.dtype), dim=1))


@pytest.mark.parametrize("count", [1, 4, 11])
def test_a_cpu_encodes_images_in_parts(make_tiny_clip: Callable[..., Clip], count: int) -> None:
    clip = make_tiny_clip(dtype=torch.float64)
    images, seen = torch.rand(count, 3, 32, 32, dtype=torch.float64), []
    clip.model.visual.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))  # type: ignore[union-attr, operator]
    for normalise in (True, False):
        parts = clip.encode_image(images, normalise)
        assert sum(seen) == count
        assert max(seen) <= max(4, torch.get_num_threads())
        whole = clip.image_features(images, normalise)
        torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)
        seen.clear()


def test_a_clip_freezes_what_it_is_given(make_tiny_clip: Callable[..., Clip]) -> None:
    model = make_tiny_clip().model.train().requires_grad_(True)
    clip = Clip(model, "tiny", None, {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}, None)
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    assert not any(module.training for module in clip.model.modules())
    assert clip.image_size == 32
    assert clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_dtype_is_the_image_towers(make_tiny_clip: Callable[..., Clip]) -> None:
    clip = make_tiny_clip()
    clip.model.visual.to(torch.bfloat16)  # type: ignore[operator, union-attr]
    assert clip.dtype == torch.bfloat16
    assert clip.encode_image(IMAGES).dtype == torch.float32


def test_fingerprint_tells_models_apart(make_tiny_clip: Callable[..., Clip]) -> None:
    clip, same, other = make_tiny_clip(), make_tiny_clip(), make_tiny_clip(seed=1)
    assert clip.fingerprint == same.fingerprint
    assert clip.fingerprint != other.fingerprint
    touched = make_tiny_clip()
    touched.model.logit_scale.data += 1e-3  # type: ignore[union-attr, operator]
    assert touched.fingerprint != clip.fingerprint
    resized = make_tiny_clip()
    resized.preprocess_cfg = resized.preprocess_cfg | {"mean": (0.4, 0.5, 0.5)}
    assert resized.fingerprint != clip.fingerprint
