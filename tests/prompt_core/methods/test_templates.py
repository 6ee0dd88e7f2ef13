"""Zero-shot CLIP and ensembles: which templates a data set gets, and what their features are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from prompt_core import UserError
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.data.catalog.hand_written import SELECTED_TEMPLATES, imagenet_templates
from prompt_core.methods.registry import build_method
from prompt_core.methods.templates import OWN, TemplateMethod, own_template
from prompt_core.vocabulary import Vocabulary

PHOTO = "a photo of a {}."
PET = "a photo of a {}, a type of pet."


def test_features_are_the_normalised_mean_of_open_clips(clip: Clip, vocabulary: Vocabulary) -> None:
    templates = [PHOTO, "art of the {}.", "{} texture."]
    names = [name.replace("_", " ") for name in vocabulary.names]
    with torch.no_grad():
        features = [
            clip.model.encode_text(clip.tokenizer([text.replace("{}", name) for name in names]), normalize=True)
            for text in templates
        ]
    expected = F.normalize(torch.stack(features).mean(dim=0), dim=-1)
    method = TemplateMethod(clip, "ensemble", templates=templates)
    torch.testing.assert_close(method.class_features(vocabulary), expected, atol=1e-6, rtol=0)
    rows = method.class_features(vocabulary, torch.tensor([3, 0]))
    torch.testing.assert_close(rows, expected[[3, 0]], atol=1e-6, rtol=0)
    assert not list(method.parameters())
    # Other names are not answered from memory.
    other = method.class_features(["dog", "cat"])
    torch.testing.assert_close(other[1], expected[0], atol=1e-6, rtol=0)
    assert float((other[0] - expected[0]).norm()) > 1e-3


@pytest.mark.parametrize(
    ("source", "own_text", "imagenet"),
    [
        ("oxford_pets", PET, False),
        ("OxfordPets", PET, False),
        ("oxford_pets:/data/x", PET, False),
        ("coop:/data/oxford_pets#split_zhou_OxfordPets.json", PET, False),
        ("eurosat", "a centered satellite photo of {}.", False),
        ("stanford_cars", PHOTO, False),
        ("imagenet", PHOTO, True),
        ("imagenet_a", PHOTO, True),
        ("tiny_imagenet:datasets/tiny-imagenet-200", PHOTO, True),
        ("folder:/somewhere/else", PHOTO, False),
        ("folder:/data/imagenet/eurosat", "a centered satellite photo of {}.", False),
        ("folder:/data/eurosat/val", "a centered satellite photo of {}.", False),
        ("folder:/home/me/pets/shoes", PHOTO, False),
        ("folder:/data/imagenet_tools/my_birds", PHOTO, False),
        ("/data/dtd/dtd", "{} texture.", False),
        ("/data/eurosat/2750", "a centered satellite photo of {}.", False),
        ("/data/imagenet/images/val", PHOTO, True),
    ],
)
def test_each_data_sets_own_template(source: str, own_text: str, imagenet: bool) -> None:
    assert own_template(source) == (own_text, imagenet)


def test_the_published_ensemble_adds_the_own_template_outside_the_imagenet_family(clip: Clip) -> None:
    method = TemplateMethod.ensemble(clip, "selected_own")
    assert method.for_data_set("oxford_pets").templates == [*SELECTED_TEMPLATES, PET]
    assert method.for_data_set("imagenet").templates == list(SELECTED_TEMPLATES)
    # Published code grows its list with each instance; here it stays.
    assert method.for_data_set("oxford_pets").templates == [*SELECTED_TEMPLATES, PET]
    assert TemplateMethod.ensemble(clip, "selected").for_data_set("oxford_pets").templates == list(SELECTED_TEMPLATES)
    assert TemplateMethod.ensemble(clip, "imagenet").templates == imagenet_templates()
    assert len(imagenet_templates()) == 80


def test_zero_shot_of_the_data_set(clip: Clip) -> None:
    method = build_method(load_config(None, ["METHOD.NAME", "zero_shot", "METHOD.ZERO_SHOT.TEMPLATE", OWN]), clip)
    assert isinstance(method, TemplateMethod)
    assert method.templates == [PHOTO]
    assert method.for_data_set("oxford_pets").templates == [PET]
    plain = build_method(load_config(None, ["METHOD.NAME", "zero_shot"]), clip)
    assert plain.for_data_set("oxford_pets") is plain


def test_file_keeps_the_templates(clip: Clip, vocabulary: Vocabulary, tmp_path: Any) -> None:
    from prompt_core.methods.registry import load_method

    method = TemplateMethod.ensemble(clip, "selected_own")
    method.save(tmp_path / "method.safetensors")
    loaded = load_method(tmp_path / "method.safetensors", clip)
    assert loaded.options == method.options
    assert torch.equal(loaded.class_features(vocabulary), method.class_features(vocabulary))


def test_mistakes(clip: Clip) -> None:
    with pytest.raises(UserError, match=r"unknown ensemble 'selectd'; expected one of .*nearest: 'selected'"):
        TemplateMethod.ensemble(clip, "selectd")
    with pytest.raises(UserError, match=r"template 'a photo' has no \{\}"):
        TemplateMethod(clip, templates=["a photo"])
    with pytest.raises(UserError, match="no template was given"):
        TemplateMethod(clip, templates=[])
