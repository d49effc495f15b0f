"""vit/pretrained on clips: ViViT and VideoMAE are their own numbers, and others are refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from test_pretrained import SHAPE, same, scrambled, seen_by
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from vit import CheckpointError, load
from vit.pictures import normalize
from vit.pretrained import from_transformers

K5 = dict(num_labels=5)
# (frames, height, width), with tubelets of 2 x 16 x 16
SIZES = {"native": (8, 32, 48), "more frames": (12, 32, 48), "another size": (4, 64, 32)}
FAMILIES = {
    "ViViT": (hf.VivitForVideoClassification, hf.VivitConfig, K5),
    "ViViT, no head": (hf.VivitModel, hf.VivitConfig, {}),
    "ViViT, no bias": (hf.VivitModel, hf.VivitConfig, {"qkv_bias": False}),
    "VideoMAE": (hf.VideoMAEForVideoClassification, hf.VideoMAEConfig, K5),
    "VideoMAE, no head": (hf.VideoMAEModel, hf.VideoMAEConfig, {}),
    "VideoMAE, tokens normed": (hf.VideoMAEModel, hf.VideoMAEConfig, {"use_mean_pooling": False}),
    "VideoMAE, no bias": (hf.VideoMAEModel, hf.VideoMAEConfig, {"qv_bias": False}),
}


def tiny(case: str, size: str = "native") -> nn.Module:
    kind, config, more = FAMILIES[case]
    frames, *image_size = SIZES[size]
    patches = (
        dict(tubelet_size=(2, 16, 16)) if config is hf.VivitConfig else dict(tubelet_size=2, patch_size=16)
    )
    model = kind(config(**SHAPE, **patches, num_frames=frames, image_size=tuple(image_size), **more))
    model.set_attn_implementation("eager")
    return scrambled(model)


def table_of(model: nn.Module) -> Tensor:
    return next(m for m in model.modules() if hasattr(m, "position_embeddings")).position_embeddings


def resampled(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Frame by frame as timm does it; then linear between the middles of frames, more of them."""
    prefix, each = table.shape[1] - old[0] * old[1] * old[2], old[1] * old[2]
    starts = [prefix + t * each for t in range(old[0])]
    parts = [table[:, a : a + each] for a in starts]
    frames = [resample_abs_pos_embed(x, new[1:], old[1:], num_prefix_tokens=0) for x in parts]
    at = ((torch.arange(new[0]) + 0.5) * old[0] / new[0] - 0.5).clamp(0, old[0] - 1)
    between = [torch.lerp(frames[int(t)], frames[min(int(t) + 1, old[0] - 1)], float(t % 1)) for t in at]
    return torch.cat([table[:, :prefix], *between], dim=1)


def check(ours: nn.Module, theirs: nn.Module, clips: Tensor) -> None:
    wanted = theirs(clips, output_attentions=True)
    logits, recorder = seen_by(ours, clips)
    if hasattr(wanted, "logits"):
        same(logits, wanted.logits)
    else:
        same(recorder.stack("norm")[0], wanted.last_hidden_state)
    same(recorder.stack("attn"), torch.stack(wanted.attentions), atol=1e-6)
    same(ours(clips), logits)


@pytest.mark.parametrize("size", ["native", "another size"])
@pytest.mark.parametrize("case", FAMILIES)
def test_family(case: str, size: str) -> None:
    theirs = tiny(case, size)
    frames, height, width = SIZES[size]
    check(from_transformers(theirs), theirs, torch.randn(2, frames, 3, height, width))


@pytest.mark.parametrize("case", ["ViViT", "VideoMAE"])
def test_more_frames_than_it_was_trained_with(case: str) -> None:
    """The same weights; transformers is given positions that are resampled by others than us."""
    small, large = tiny(case), tiny(case, "more frames")
    weights = small.state_dict()
    table = resampled(table_of(small), (4, 2, 3), (6, 2, 3))
    for name in weights:
        if name.endswith("position_embeddings"):
            weights[name] = table
    large.load_state_dict(weights)
    table_of(large).copy_(table)
    check(from_transformers(small), large, torch.randn(1, 12, 3, 32, 48))


@pytest.mark.parametrize("case", FAMILIES)
def test_a_folder_of_files(case: str, tmp_path: Path) -> None:
    """With the names of the files on the Hub; frames and pixels as the files say."""
    theirs = tiny(case)
    theirs.save_pretrained(tmp_path)
    size = {"height": 32, "width": 48}
    said = dict(size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], do_normalize=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model, card = load(tmp_path)
    clip = torch.randn(1, 8, 3, 32, 48)
    same(model(clip), from_transformers(theirs)(clip), atol=1e-6)
    assert (model.config.num_frames, model.config.tubelet, model.config.grid_size) == (8, 2, (4, 2, 3))
    assert card.mean == (0.4, 0.5, 0.6) and card.size_for(model.config) == (32, 48)


def test_biases_of_videomae_under_their_older_names() -> None:
    theirs = tiny("VideoMAE")
    old = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): x
        for name, x in theirs.state_dict().items()
    }
    assert any(name.endswith(".q_bias") for name in old)
    clip = torch.randn(1, 8, 3, 32, 48)
    same(from_transformers(old, theirs.config)(clip), from_transformers(theirs)(clip), atol=0)


def test_videomae_for_pretraining_gives_its_encoder() -> None:
    config = tiny("VideoMAE, tokens normed").config
    theirs = scrambled(hf.VideoMAEForPreTraining(config))
    ours = from_transformers(theirs)
    clip = torch.randn(1, 8, 3, 32, 48)
    same(seen_by(ours, clip)[1].stack("norm")[0], theirs.videomae(clip).last_hidden_state)
    assert ours.config.num_classes == 0


def test_pixels_of_vivit_are_those_of_its_processor(tmp_path: Path) -> None:
    """It takes 1 from pixels that it has brought to [0, 2], and then normalises."""
    processor = hf.VivitImageProcessor(size={"height": 32, "width": 48}, do_center_crop=False)
    tiny("ViViT").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    card = load(tmp_path)[1]
    frame = torch.randint(0, 256, (32, 48, 3), dtype=torch.uint8).numpy()
    theirs = processor([frame, frame], return_tensors="pt").pixel_values[0, 0]
    same(normalize(torch.tensor(frame).permute(2, 0, 1), card), theirs)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (hf.TimesformerConfig(), "attends in turns, through time and within the frame"),
        (hf.VJEPA2Config(), "turns the two numbers of a pair by different angles"),
        (hf.VideoMAEConfig(use_mean_pooling=False), "reads its classes from one corner's patch alone"),
        (hf.VivitConfig(tubelet_size=(2, 16, 8)), "has patches that are not square"),
        (hf.VivitConfig(num_frames=1, tubelet_size=(1, 16, 16)), "reads a single frame"),
    ],
)
def test_what_is_no_plain_vit_of_clips_is_refused(config, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        from_transformers({"classifier.weight": torch.zeros(2, 2)}, config)
