"""Image towers of models for words, boxes, masks and depth -> ViT: the same numbers, live and from disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from conftest import randomised
from torch import Tensor, nn
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2VisionConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2VisionModel

from vit import CheckpointError, load, trace
from vit.pretrained import describe, from_transformers

LAYERS: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4)
PATCHES: dict[str, Any] = LAYERS | dict(patch_size=4, image_size=16)
TOWER: dict[str, Any] = PATCHES | dict(intermediate_size=48)
PAIRS: dict[str, Any] = TOWER | dict(patch_size=(4, 4), image_size=(16, 16))
TEXT: dict[str, Any] = LAYERS | dict(
    intermediate_size=48, num_hidden_layers=1, vocab_size=40, max_position_embeddings=8
)
ENDS: dict[str, Any] = TEXT | dict(bos_token_id=1, eos_token_id=2, sep_token_id=2, pad_token_id=0)
LANGUAGE = hf.LlamaConfig(**TEXT, num_key_value_heads=4)
NECK: dict[str, Any] = dict(neck_hidden_sizes=[8] * 4, fusion_hidden_size=8)
BOTH: dict[str, Any] = dict(vision_config=TOWER, text_config=TEXT, projection_dim=8)
MIXED: dict[str, Any] = LAYERS | dict(intermediate_size=48, num_hidden_layers=1)
ALL: dict[str, Any] = dict(image_config=TOWER, text_config=TEXT, multimodal_config=MIXED, hidden_size=32)
BEIT = TOWER | dict(out_indices=[1, 2, 3, 4], use_relative_position_bias=True)
DINO = hf.Dinov2Config(**PATCHES, mlp_ratio=2, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
SIGLIP = hf.SiglipVisionConfig(**TOWER, vision_use_head=False)

Pick = Callable[[Any], Tensor]


def first(said: Any) -> Tensor:
    return said.last_hidden_state[:, 0]


def pooled(said: Any) -> Tensor:
    return said.pooler_output


def mean(said: Any) -> Tensor:
    return said.last_hidden_state.mean(dim=1)


def patches(said: Any) -> Tensor:
    return said.last_hidden_state[:, 1:].mean(dim=1)


# name: (the whole model, where its tower is, what of it is the answer)
TOWERS: dict[str, tuple[Callable[[], nn.Module], str, Pick]] = {
    "BLIP": (lambda: hf.BlipVisionModel(hf.BlipVisionConfig(**TOWER)), "", first),
    "BLIP, captions": (
        lambda: hf.BlipForConditionalGeneration(hf.BlipConfig(vision_config=TOWER, text_config=ENDS)),
        "vision_model",
        first,
    ),
    "BLIP, retrieval": (
        lambda: hf.BlipForImageTextRetrieval(hf.BlipConfig(vision_config=TOWER, text_config=ENDS)),
        "vision_model",
        first,
    ),
    "BLIP-2": (lambda: hf.Blip2VisionModel(hf.Blip2VisionConfig(**TOWER)), "", first),
    "BLIP-2, no bias": (
        lambda: hf.Blip2VisionModel(hf.Blip2VisionConfig(**TOWER, qkv_bias=False)), "", first,
    ),
    "InstructBLIP": (lambda: hf.InstructBlipVisionModel(hf.InstructBlipVisionConfig(**TOWER)), "", first),
    "OWL-ViT": (lambda: hf.OwlViTVisionModel(hf.OwlViTVisionConfig(**TOWER)), "", pooled),
    "OWL-ViT, boxes": (
        lambda: hf.OwlViTForObjectDetection(hf.OwlViTConfig(**BOTH)), "owlvit.vision_model", pooled,
    ),
    "OWLv2, boxes": (
        lambda: hf.Owlv2ForObjectDetection(hf.Owlv2Config(**BOTH)), "owlv2.vision_model", pooled,
    ),
    "GIT": (
        lambda: hf.GitForCausalLM(hf.GitConfig(vision_config=TOWER, **TEXT)), "git.image_encoder", first,
    ),
    "Kosmos-2": (lambda: Kosmos2VisionModel(Kosmos2VisionConfig(**TOWER)), "", pooled),
    "FLAVA": (lambda: hf.FlavaForPreTraining(hf.FlavaConfig(**ALL)), "flava.image_model", first),
    "DPT, depth": (lambda: hf.DPTForDepthEstimation(hf.DPTConfig(**TOWER, **NECK)), "dpt", first),
    "DPT, classes": (lambda: hf.DPTForSemanticSegmentation(hf.DPTConfig(**TOWER, **NECK)), "dpt", first),
    "BEiT, masks": (lambda: hf.BeitForSemanticSegmentation(hf.BeitConfig(**BEIT)), "beit", patches),
    "ZoeDepth": (
        lambda: hf.ZoeDepthForDepthEstimation(
            hf.ZoeDepthConfig(
                backbone_config=hf.BeitConfig(**BEIT, reshape_hidden_states=False),
                bottleneck_features=8, num_relative_features=8, **NECK,
            )
        ),
        "backbone.beit",
        patches,
    ),
    "InternViT": (lambda: hf.InternVLVisionModel(hf.InternVLVisionConfig(**PAIRS)), "", first),
    "InternViT, bias and norm": (
        lambda: hf.InternVLVisionModel(
            hf.InternVLVisionConfig(**PAIRS, attention_bias=True, use_mean_pooling=False)
        ),
        "",
        first,
    ),
    "InternViT, RMSNorm": (
        lambda: hf.InternVLVisionModel(hf.InternVLVisionConfig(**PAIRS, norm_type="rms_norm")), "", first,
    ),
    "InternVL": (
        lambda: hf.InternVLForConditionalGeneration(
            hf.InternVLConfig(vision_config=hf.InternVLVisionConfig(**PAIRS), text_config=LANGUAGE)
        ),
        "model.vision_tower",
        first,
    ),
    "TrOCR": (
        lambda: hf.VisionEncoderDecoderModel(
            hf.VisionEncoderDecoderConfig(
                encoder=hf.ViTConfig(**TOWER, qkv_bias=False).to_dict(),
                decoder=hf.TrOCRConfig(
                    d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=9
                ).to_dict(),
            )
        ),
        "encoder",
        first,
    ),
    "CLIP of two files": (
        lambda: hf.VisionTextDualEncoderModel(
            hf.VisionTextDualEncoderConfig(
                vision_config=hf.ViTConfig(**TOWER).to_dict(), text_config=hf.BertConfig(**TEXT).to_dict()
            )
        ),
        "vision_model",
        first,
    ),
    "Gemma 3": (
        lambda: hf.Gemma3ForConditionalGeneration(
            hf.Gemma3Config(
                vision_config=SIGLIP, mm_tokens_per_image=4,
                text_config=hf.Gemma3TextConfig(**TEXT, head_dim=8, num_key_value_heads=4),
            )
        ),
        "model.vision_tower",
        mean,
    ),
    "Janus": (lambda: hf.JanusVisionModel(hf.JanusVisionConfig(**PATCHES, mlp_ratio=2)), "", mean),
    "LLaVA": (
        lambda: hf.LlavaForConditionalGeneration(
            hf.LlavaConfig(vision_config=hf.CLIPVisionConfig(**TOWER), text_config=LANGUAGE)
        ),
        "model.vision_tower",
        pooled,
    ),
    "LLaVA-NeXT": (
        lambda: hf.LlavaNextForConditionalGeneration(
            hf.LlavaNextConfig(vision_config=hf.CLIPVisionConfig(**TOWER), text_config=LANGUAGE)
        ),
        "model.vision_tower",
        pooled,
    ),
    "GIT, words": (lambda: hf.GitModel(hf.GitConfig(vision_config=TOWER, **TEXT)), "image_encoder", first),
    "Janus, whole": (
        lambda: hf.JanusModel(
            hf.JanusConfig(
                text_config=LANGUAGE, vision_config=hf.JanusVisionConfig(**PATCHES, mlp_ratio=2),
                vq_config=hf.JanusVQVAEConfig(
                    embed_dim=8, num_embeddings=8, base_channels=32, channel_multiplier=[1, 1],
                    num_res_blocks=1, projection_dim=32, image_token_embed_dim=32,
                ),
            )
        ),
        "vision_model",
        mean,
    ),
    "Kosmos-2, whole": (
        lambda: hf.Kosmos2Model(
            hf.Kosmos2Config(
                vision_config=TOWER, latent_query_num=2,
                text_config=dict(embed_dim=32, layers=1, ffn_dim=32, attention_heads=4, vocab_size=40),
            )
        ),
        "vision_model",
        pooled,
    ),
    "ModernVBERT, classes": (
        lambda: hf.ModernVBertForSequenceClassification(
            hf.ModernVBertConfig(
                vision_config=TOWER, pixel_shuffle_factor=2,
                text_config=hf.ModernBertConfig(**ENDS).to_dict(),
            )
        ),
        "model.vision_model",
        pooled,
    ),
    "Qianfan-OCR": (
        lambda: hf.QianfanOCRVisionModel(hf.QianfanOCRVisionConfig(**PAIRS)), "", first,
    ),
    "Granite-Docling": (
        lambda: hf.GraniteDoclingVisionModel(
            hf.GraniteDoclingVisionConfig(**TOWER, out_hidden_size=8, deepstack_visual_indexes=[0])
        ),
        "",
        mean,
    ),
    "LLaVA with SigLIP": (
        lambda: hf.LlavaForConditionalGeneration(
            hf.LlavaConfig(vision_config=SIGLIP, text_config=LANGUAGE)
        ),
        "model.vision_tower",
        mean,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOWERS)
def test_what_sees_is_exact(case: str, tmp_path: Path) -> None:
    make, where, pick = TOWERS[case]
    theirs = randomised(make(), 0.1)
    tower = theirs.get_submodule(where)
    theirs.set_attn_implementation("eager")
    image = torch.randn(3, 16, 16)
    told = tower(image[None], output_attentions=True)
    ours = from_transformers(theirs)
    torch.testing.assert_close(ours(image[None]), pick(told), rtol=0, atol=1e-5)
    attn = torch.cat(list(told.attentions))
    torch.testing.assert_close(trace(ours, image).attn, attn, rtol=0, atol=1e-6)
    theirs.save_pretrained(tmp_path)  # under the names of the files on the Hub
    again = load(tmp_path)[0]
    assert all(torch.equal(x, y) for x, y in zip(again.state_dict().values(), ours.state_dict().values()))
    torch.testing.assert_close(again(image[None]), ours(image[None]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "heads"),
    [
        ("OWL-ViT, boxes", "box_head, class_head"),
        ("DPT, depth", "head"),
        ("DPT, classes", "auxiliary_head, head"),
        ("BEiT, masks", "auxiliary_head, decode_head"),
        ("OWL-ViT", ""),
    ],
)
def test_a_head_that_stays_behind_is_said(case: str, heads: str, tmp_path: Path) -> None:
    TOWERS[case][0]().save_pretrained(tmp_path / "model")
    model, card = load(tmp_path / "model")
    said = f"What stands on it stays behind ({heads})."
    assert (said in card.note) == bool(heads) and not model.config.num_classes


@pytest.mark.parametrize("kind", ["DepthAnything", "PromptDepthAnything"])
def test_the_dinov2_below_a_head_for_depth(kind: str, tmp_path: Path) -> None:
    config = getattr(hf, f"{kind}Config")(
        backbone_config=DINO, patch_size=4, reassemble_hidden_size=32, **NECK
    )
    theirs = randomised(getattr(hf, f"{kind}ForDepthEstimation")(config))
    theirs.save_pretrained(tmp_path)
    alone = hf.Dinov2Model(DINO).eval()
    alone.load_state_dict(theirs.backbone.state_dict())
    image = torch.randn(1, 3, 16, 16)
    expected = alone(image).last_hidden_state[:, 0]
    torch.testing.assert_close(load(tmp_path)[0](image), expected, rtol=0, atol=1e-5)


def config_of(kind: str) -> dict[str, Any]:
    return hf.AutoConfig.for_model(kind).to_dict()


REASONS = {
    "yolos": "adds positions again in front of every layer",
    "mlcd_vision_model": "turns its class token, too, by angles",
    "vitpose_backbone": "overlap or reach beyond the picture",
    "qwen2_vl_vision": "packed into one sequence",
    "qwen2_5_vl_vision": "attends within windows",
    "pixtral": "packed into one sequence",
    "idefics3_vision": "the nearest position of its table",
    "llama4_vision_model": "class token behind the patches",
    "sapiens2": "grouped queries",
    "eomt": "ask for objects or masks",
    "seggpt": "decomposed",
    "dinov3_convnext": "convolutional network",
    "mllama_vision_model": "tiles",
    "vilt": "words and a picture in one sequence",
    "upernet": "convolutional network",
    "siglip2_vision_model": "NaFlex",
    "sam_vision_model": "within windows",
    "sam2_hiera_det_model": "merges patches",
    "edgetam_vision_model": "merges patches",
    "perception_lm": "a model of timm within one of transformers",
    "bert": "not known to be a plain ViT",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_type_that_is_no_plain_vit_is_refused_with_its_reason(kind: str) -> None:
    with pytest.raises(CheckpointError, match=REASONS[kind]) as caught:
        describe(config_of(kind))
    assert "\n" not in str(caught.value)


def test_an_older_name_of_a_towers_config_has_its_way_as_in_transformers() -> None:
    both = BOTH | dict(vision_config=TOWER | dict(num_attention_heads=2), vision_config_dict=TOWER)
    theirs = randomised(hf.CLIPModel(hf.CLIPConfig(**both)))
    image = torch.randn(1, 3, 16, 16)
    ours = from_transformers(theirs.state_dict(), both | {"model_type": "clip"})
    told = theirs.vision_model(image).pooler_output
    torch.testing.assert_close(ours(image), told, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["vision_config", "encoder", "backbone_config"])
def test_a_part_that_is_no_object_is_one_sentence(part: str, tmp_path: Path) -> None:
    hf.ViTModel(hf.ViTConfig(**TOWER)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", part: [1]}))
    with pytest.raises(CheckpointError, match=f"must hold a JSON object under {part}"):
        load(tmp_path)


def test_query_and_key_norms_across_heads_are_refused() -> None:
    with pytest.raises(CheckpointError, match="queries and keys across heads"):
        describe(hf.InternVLVisionConfig(use_qk_norm=True).to_dict())
