"""Words as classes: the image tower of CLIP and its kin, with the text tower of the same checkpoint.

    tower = load_tower("openai/clip-vit-base-patch16")
    vectors = text_vectors(tower, ["a dog", "grass"])            # (K, E), through transformers
    model, card = with_words(tower, vectors, ("a dog", "grass"), image)
    dense = dense_map(tower, vectors, image)                     # (K, h, w)

What `with_words` gives is a plain ViT whose head is made of the words: every method explains them as it does
classes. K words, E numbers of the space that pictures and texts share, D the tower's width.
"""

import hashlib
import importlib.util
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save as serialize
from torch import Tensor

from vit.card import Card, CheckpointError
from vit.checkpoint import FLOATS, MAX_BYTES, build, parse_json, read_json, read_tensors, write_atomically
from vit.grid import Grid
from vit.hub import fetch, read_parts, read_pretrained
from vit.library import resolve
from vit.model import ViT
from vit.pretrained.of_timm import is_projection

# what tokenizers are made of, all of them text or tables: nothing that could run
PIECES = ("spiece.model", "tokenizer.model")  # of sentencepiece
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", *PIECES)
TOKENIZER = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
JOINERS = "\u200c\u200d"  # between letters of some scripts, and between the parts of an emoji
# one word is asked for in several ways, and the mean of what they give is less of one way's accident
# (Radford et al. 2021, "Learning transferable visual models from natural language supervision")
TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "a close-up photo of {}", "a photo of {} in a scene")
CONTROL = "something"  # a prompt that means nothing: a map like its own does not depend on the word
NEIGHBOURHOOD = 5.0  # patches: the width of the Gaussian in NACLIP


@dataclass(frozen=True, eq=False)
class Tower:
    """An image tower whose features, projected, lie in one space with texts."""

    name: str
    model: ViT  # without a head: its features are (D,)
    card: Card
    folder: Path  # of the files: the text tower is in them, too
    projection: Tensor | None  # (E, D); None: the features are in that space themselves
    scale: float  # what a cosine is multiplied with to give a logit
    # what is added to it then, where each word is a yes or a no by itself (SigLIP); None: words compete
    bias: float | None = None

    @property
    def width(self) -> int:
        """E, the numbers of a word's vector."""
        return self.model.config.embed_dim if self.projection is None else len(self.projection)

    @property
    def space(self) -> str:
        """Which space this is: the same for the same tower in either layout, whatever its name."""
        if self.projection is None:
            return self.name
        return hashlib.sha256(self.projection.half().numpy().tobytes()).hexdigest()[:16]

    def project(self, features: Tensor) -> Tensor:
        """Features (..., D) of the tower -> the shared space (..., E), not normalised."""
        return features if self.projection is None else features @ self.projection.T


def load_tower(name: str | Path) -> Tower:
    """The image tower of CLIP, its kin, SigLIP or TIPSv2, in transformers' layout. Raises CheckpointError."""
    folder, told = tower_folder(name), resolve(name).name
    return tower_in(folder, told, *read_pretrained(folder, told, MAX_BYTES))


def tower_folder(
    name: str | Path,
    max_bytes: int = MAX_BYTES,
    cache: Path | None = None,
    token: str | bool | None = None,
) -> Path:
    """Where a model's files are, with those that its text tower needs: fetched where they are not here, which
    may take minutes. The arguments are those of `vit.hub.fetch`. Raises CheckpointError."""
    place = resolve(name)
    return place.folder or fetch(place.name, max_bytes, cache, token, TOKENIZER)


def tower_in(folder: Path, name: str, model: ViT, card: Card) -> Tower:
    """The tower whose files are in this folder: this model, which was read from them under this name, and
    what leads from its features to texts. Raises CheckpointError."""
    config = read_json(folder / "config.json")
    if "architecture" in config:
        head = read_parts(folder, name, ("head.weight", "head.bias"))
        if "head.weight" in head and is_projection(config, len(head["head.weight"])):
            return tower_of_timm(folder, model, card, head)
    kind = config.get("model_type")
    if kind not in ("clip", "metaclip_2", "altclip", "chinese_clip", "siglip", "tipsv2"):
        raise CheckpointError(
            f"{card.name} has no text tower that is read here: words need the whole model of CLIP, "
            "MetaCLIP 2, AltCLIP, Chinese-CLIP, SigLIP or TIPSv2, in transformers' layout."
        )
    if kind == "tipsv2":
        temperature = read_parts(folder, name, ("temperature",)).get("temperature")
        least = float(config.get("temperature_init_value", 0.005) if temperature is None else temperature)
        return Tower(card.name, model, card, folder, None, 1 / max(least, 1e-6))
    if kind == "siglip":
        parts = read_parts(folder, name, ("logit_scale", "logit_bias"))
        if len(parts) < 2 or any(x.numel() != 1 for x in parts.values()):
            raise CheckpointError(f"{card.name} is SigLIP's image tower alone: words need the whole model.")
        scale = float(parts["logit_scale"].exp().clamp(max=1e3))
        return Tower(card.name, model, card, folder, None, scale, float(parts["logit_bias"]))
    parts = read_parts(folder, name, ("visual_projection.weight", "logit_scale"))
    if (projection := parts.get("visual_projection.weight")) is None:
        raise CheckpointError(
            f"{card.name} has no visual_projection: its features are in no space with texts."
        )
    if projection.ndim != 2 or projection.shape[1] != model.config.embed_dim:
        raise CheckpointError(f"{card.name} has a visual_projection of the shape {list(projection.shape)}.")
    learned = parts.get("logit_scale", torch.tensor(config.get("logit_scale_init_value", 2.6592)))
    return Tower(card.name, model, card, folder, projection, float(learned.exp().clamp(max=1e3)))


def tower_of_timm(folder: Path, model: ViT, card: Card, head: Mapping[str, Tensor]) -> Tower:
    """CLIP's image tower in timm's layout, or that of the Perception Encoder, whose head is the projection;
    there is no text tower: words come from a table (`load_words`). Raises CheckpointError."""
    if head.get("head.bias", torch.zeros(1)).any():
        raise CheckpointError(f"{card.name} has no head that is a projection alone.")
    return Tower(card.name, model, card, folder, head["head.weight"], 100.0)  # where training lets it end


# --- words to vectors -----------------------------------------------------------------------------------


def text_vectors(tower: Tower, words: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
    """(K, E): each word's vector, of length 1: the mean of its prompts' vectors, each of length 1.

    Through transformers, from the files of the tower alone. Raises CheckpointError.
    """
    words = checked_words(words)
    prompts = [template.format(word) for word in words for template in templates]
    features = encode(tower.folder, tower.name, prompts)  # (K * templates, E)
    vectors = F.normalize(features, dim=-1).unflatten(0, (len(words), -1)).mean(dim=1)
    return F.normalize(vectors, dim=-1)


@torch.no_grad()
def encode(folder: Path, name: str, prompts: Sequence[str]) -> Tensor:
    """What the text tower makes of N prompts, (N, E), as transformers gives it. Raises CheckpointError."""
    try:
        import transformers  # an extra: whoever types no words does not need it
    except ImportError as error:
        raise CheckpointError("Words need the text tower: pip install transformers.") from error
    if not any((folder / file).is_file() for file in VOCABULARIES):
        raise CheckpointError(f"{name} has no tokenizer among its files: add its tokenizer.json.")
    in_pieces = not (folder / "tokenizer.json").is_file() and any((folder / x).is_file() for x in PIECES)
    if in_pieces and importlib.util.find_spec("sentencepiece") is None:
        raise CheckpointError(f"{name} cuts words up by sentencepiece: pip install sentencepiece.")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
        model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **local).eval().float()
    except Exception as error:  # whatever a third party's reader makes of broken files
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"The text tower of {name} cannot be read by transformers: {why}") from error
    longest = model.config.text_config.max_position_embeddings
    options = {"padding": "max_length", "max_length": longest, "truncation": True, "return_tensors": "pt"}
    inputs = tokenizer(list(prompts), **options)
    taken = ("input_ids",) if model.config.model_type == "siglip" else ("input_ids", "attention_mask")
    inputs = {key: value for key, value in inputs.items() if key in taken}  # SigLIP reads its padding, too
    found = model.get_text_features(**inputs)
    return (found if isinstance(found, Tensor) else found.pooler_output).float()


def as_read(word: str) -> str:
    """A word with single blanks, composed, and without what nobody sees: control characters, marks of
    direction. Joiners stay between letters, which look otherwise without them."""
    plain = unicodedata.normalize("NFC", " ".join(word.split()))
    seen = (c for c in plain if c in JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return "".join(seen).strip(" " + JOINERS)


def checked_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words as people read them. Raises CheckpointError for none, for doubles, for too many."""
    clean = tuple(filter(None, map(as_read, words)))
    if not clean:
        raise CheckpointError('Name at least one thing to look for, such as "a dog, grass".')
    if len(clean) > 1000:
        raise CheckpointError(f"{len(clean)} words are more than 1000.")
    if twice := [word for word, count in Counter(clean).items() if count > 1]:
        raise CheckpointError(f"“{twice[0][:40]}” is there twice: name each thing once.")
    return clean


def words_in(text: str) -> tuple[str, ...]:
    """ "a dog, grass" -> words, by commas of any script or line breaks. Raises CheckpointError."""
    return checked_words(re.split(r"[,\n，、،]", text))


# --- words as a head ------------------------------------------------------------------------------------


@torch.no_grad()
def with_words(
    tower: Tower, vectors: Tensor, words: Sequence[str], image: Tensor | None = None
) -> tuple[ViT, Card]:
    """(model, card): the tower with a linear head of K words, its logits scale · cosine(picture, word).

    A cosine divides by the length of the picture's vector, which a linear head cannot: it is taken from
    `image` (3, height, width), so that this picture's logits are exactly the tower's own, and held where the
    picture is changed; without a picture it is 1, and only the order of the words is exact. Of one word
    alone a softmax says nothing: its logit is shown as it is. SigLIP asks about each word by itself.
    """
    if vectors.shape != (len(words), tower.width):
        raise CheckpointError(
            f"These {len(words)} words have vectors of the shape {list(vectors.shape)}; {tower.name} needs "
            f"{[len(words), tower.width]}."
        )
    length = 1.0 if image is None else float(tower.project(tower.model(image[None])[0]).norm())
    back = vectors if tower.projection is None else vectors @ tower.projection  # (K, D)
    weight = tower.scale / max(length, 1e-12) * back
    model = with_head(tower, weight, torch.full((len(words),), tower.bias or 0.0))
    return model, replace(tower.card, class_names=tuple(words), scores=scores_of_words(tower, len(words)))


def with_projection(tower: Tower) -> ViT:
    """The tower with its projection as its head: its answer is the picture's vector (E,), not normalised."""
    weight = torch.eye(tower.width) if tower.projection is None else tower.projection
    return with_head(tower, weight, torch.zeros(len(weight)))


def with_head(tower: Tower, weight: Tensor, bias: Tensor) -> ViT:
    """The tower with a linear head: weight (K, D), bias (K,)."""
    tensors = dict(tower.model.state_dict()) | {"head.weight": weight, "head.bias": bias}
    return build(replace(tower.model.config, num_classes=len(weight)), tensors, tower.name)


def scores_of_words(tower: Tower, words: int) -> str:
    """What the logits of so many words mean: see `with_words`."""
    return "sigmoid" if tower.bias is not None else "softmax" if words > 1 else "none"


# --- where each word is ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Dense:
    """Where words are in a picture, and whether that depends on the words."""

    maps: Tensor  # (K, h, w) cosine of each patch with each word
    control: Tensor  # (h, w) the same for a prompt that means nothing
    # (K,) correlation of each word's map with the control's: near 1, the map would be there for any word
    alike: Tensor


@torch.no_grad()
def patch_vectors(tower: Tower, image: Tensor) -> Tensor:
    """(P, E): what each patch of an image (3, height, width) says, in the space of the words, of length 1.

    TIPSv2 was trained for it: its patches after the last block. CLIP was not: its last block gathers for
    [CLS]. There the way of NACLIP (Hajimiri et al. 2025, "Pay attention to your neighbours"): in the last
    block a patch gathers values from patches that have keys like its own and are near,

        softmax(k kᵀ / √d + G) v,   G_ij = exp(-|p_i - p_j|² / 2σ²),   σ = 5 patches,

    and the block's MLP and its residual connection are left out.  SigLIP and the Perception Encoder pool:
    each patch is what their pool would answer if there were no other.
    """
    model = tower.model
    image = image.to(next(model.parameters()))[None]
    grid = Grid.of((image.shape[-2], image.shape[-1]), model.config.patch_size)
    x = model.run(model.embed(image), stop=blocks_before_words(tower), places=model.places(grid))
    return vectors_of_patches(tower, x, grid)


def blocks_before_words(tower: Tower) -> int:
    """How many blocks patches have been through when `vectors_of_patches` takes them: all, or all but the
    last."""
    reads_class_token = tower.projection is not None and tower.model.attn_pool is None
    return tower.model.config.depth - reads_class_token


def vectors_of_patches(tower: Tower, x: Tensor, grid: Grid) -> Tensor:
    """(P, E) of `patch_vectors`, from the residual stream x (1, T, D) after `blocks_before_words`.

    Tensors in, tensors out: it can be exported.
    """
    model, config = tower.model, tower.model.config
    prefix = config.num_prefix_tokens
    pool = model.attn_pool
    if tower.projection is None or pool is not None:
        patches = model.norm(x)[0, prefix:]  # (P, D)
        return F.normalize(tower.project(patches if pool is None else pool(patches[:, None])), dim=-1)
    block: Any = model.blocks[-1]
    y = block.norm1(x)[0, prefix:]  # (P, D)
    H, d = config.num_heads, config.head_dim
    k, v = block.attn.qkv(y).unflatten(-1, (3, H, d)).permute(1, 2, 0, 3)[1:]  # each (H, P, d)
    near = torch.exp(-grid.distances((1.0, 1.0)).square() / (2 * NEIGHBOURHOOD**2)).to(k)  # (P, P)
    gathered = torch.softmax(k @ k.mT / math.sqrt(d) + near, dim=-1) @ v  # (H, P, d)
    out = block.attn.proj(gathered.transpose(0, 1).flatten(1))  # (P, D)
    return F.normalize(tower.project(model.norm(out)), dim=-1)


@torch.no_grad()
def dense_map(tower: Tower, vectors: Tensor, image: Tensor, control: Tensor | None = None) -> Dense:
    """Where the words (K, E) are in an image (3, height, width).

    control: (E,) of `CONTROL`; without one, the mean of the words.
    """
    patches = patch_vectors(tower, image)
    control = F.normalize(vectors.mean(dim=0), dim=-1) if control is None else control
    both = torch.cat([vectors, control[None]]).to(patches) @ patches.T  # (K + 1, P)
    centred = both - both.mean(dim=1, keepdim=True)
    alike = F.cosine_similarity(centred[:-1], centred[-1:], dim=1)
    grid = Grid.of((image.shape[-2], image.shape[-1]), tower.model.config.patch_size)
    maps = grid.unflatten(both)
    return Dense(maps[:-1], maps[-1], alike)


# --- tables of words ------------------------------------------------------------------------------------


def save_words(file: str | Path, vectors: Tensor, words: Sequence[str], tower: Tower) -> None:
    """A table of words for whoever has no text tower at hand, in float16: 1 kB a word."""
    about = {
        "format": "vit-words",
        "words": json.dumps(list(words)),
        "space": tower.space,
        "tower": tower.name,
    }
    write_atomically(Path(file), serialize({"vectors": vectors.half().contiguous()}, about))


def load_words(file: str | Path, tower: Tower) -> tuple[tuple[str, ...], Tensor]:
    """(words, vectors (K, E) of length 1) of a table made for this tower. Raises CheckpointError."""
    path = Path(file)
    tensors, about = read_tensors(path)
    words = parse_json('{"words": ' + about.get("words", "null") + "}", f"The words of {path.name}")["words"]
    texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
    if about.get("format") != "vit-words" or not texts or "vectors" not in tensors:
        raise CheckpointError(f"{path.name} is no table of words: make one with save_words.")
    if about.get("space") != tower.space:
        raise CheckpointError(f"{path.name} was made for {about.get('tower')}, not for {tower.name}.")
    vectors, clean = tensors["vectors"], checked_words(words)
    fit = vectors.shape == (len(clean), tower.width) and len(clean) == len(words)
    if not fit or vectors.dtype not in FLOATS or not vectors.isfinite().all():
        each = f"each of its words needs a name, and {tower.width} finite floats"
        raise CheckpointError(f"{path.name} is damaged: {each}.")
    return clean, F.normalize(vectors.float(), dim=-1)
