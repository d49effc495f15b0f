"""One picture in front of one model, and what every view asks of it: the forward pass, its cost, maps,
refusals, interventions, and the addresses where a browser finds what is made of them. It knows no widgets.

L layers, H heads, T tokens, P patches, (h, w) patches down and across.
"""

import math
import secrets
import threading
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from explorer import maps, render, zero
from explorer.cache import EVERYONE, MiB, nbytes
from explorer.classes import Classes, Head
from explorer.methods import METHODS, Method
from explorer.patience import rest
from explorer.payload import (
    EXACT_BUDGET,
    embeddings_payload,
    exact_payload,
    follow_payload,
    head_payload,
    layer_payload,
    maps_payload,
)
from explorer.record import Record, load_record
from explorer.roles import Roles, read_roles
from vit.card import Card
from vit.checkpoint import Snapshot
from vit.clips import MOMENTS, Clip, is_clip, preprocess_clip, sampled, thinned
from vit.cost import Cost, cost
from vit.model import Hook, ViT
from vit.pictures import as_picture, preprocess, seen_box
from vit.processor import native_bf16
from vit.trace import FreezeTime, MaskPatches, Trace, ZeroHeads, attention_at, trace

V = TypeVar("V")
ATTENTION_LIMIT = 640 * MiB  # beyond this, attention is made again layer by layer from the residual stream
PASS_LIMIT = (8192 * MiB, 20e12)  # (bytes at once, operations) of a forward pass that is begun at all,
PUBLIC_PASS_LIMIT = (1024 * MiB, 2e12)  # and where strangers may begin it
PUBLIC_WORK_LIMIT = 1e13  # operations of all passes that a stranger may ask for at once: a minute or two here
BF16_FROM = 20e9  # operations of a forward pass; below, float32 is quick and exact (benchmarks/visitors.py)
QUICK = 3e10  # operations that a method may take without having been asked for: about half a second
PICTURE = "picture.png"  # how the address of what a page is drawn from ends, beside the viewer's "bin"
AHEAD = "ahead.bin"  # and of what a viewer fetches before somebody looks at it

# How large a picture is shown to the model; positions are resampled to the grid that results.
TRAINED, WHOLE, DOUBLE, WHOLE_DOUBLE = (
    "as trained",
    "whole picture",
    "twice as large",
    "whole, twice as large",
)
SIZES = (TRAINED, WHOLE, DOUBLE, WHOLE_DOUBLE)


class TooLarge(ValueError):
    """A look takes more memory or work than it may; the message says how much and what to do."""


def runs_in_bf16(model: ViT) -> bool:
    """Does a first look run in bf16? Where the processor is made for it, and the pass long."""
    device = next(model.parameters()).device
    return device.type == "cpu" and native_bf16(device) and cost(model.config).flops >= BF16_FROM


def too_many_tokens(what: str) -> str:
    """Why something is not made of this picture, and what to do; `what` ends in a verb: "Files are"."""
    return (
        f"{what} left out where the attention of all layers is too much to hold at once: choose a smaller "
        "size or a model with fewer tokens."
    )


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to be looked into. key tells two versions of the same checkpoint apart."""

    model: ViT
    card: Card
    key: str
    folder: Path | None = None  # on this machine; None: of the Hub
    make_half: Callable[[], ViT] | None = None  # where another one has it, but for the head

    @cached_property
    def roles(self) -> Roles | None:
        """What was measured of these heads, if it was."""
        return read_roles(self.folder, self.model)

    @cached_property
    def record(self) -> Record | None:
        """What was measured of its maps, if it was."""
        return load_record(self.folder, self.model)

    @property
    def believed(self) -> str:
        """The method whose maps were measured to lead, if one does."""
        return self.record.believed if self.record else ""

    @cached_property
    def half(self) -> ViT:
        """The same model in bf16. Autocast would round all weights anew at every look: 1.7 x its time."""
        return self.make_half() if self.make_half else deepcopy(self.model).bfloat16()

    def with_head(self, head: Head, key: str) -> "Loaded":
        """The same with a visitor's classes: nothing but their head is new, in bf16, too."""
        return Loaded(head.on(self.model), head.card, key, make_half=lambda: head.on(self.half))

    @property
    def nbytes(self) -> int:
        """With the copy in bf16, where there will be one."""
        return nbytes(self.model) * (3 if runs_in_bf16(self.model) else 2) // 2


class Keeper(Protocol):
    """What a look needs of the `explorer.session.Session` that it comes from."""

    public: bool
    model_lock: threading.Lock

    def names(self) -> list[str]: ...
    def loaded(self, key: str, name: str, step: int | None) -> Loaded: ...
    def snapshots(self, name: str) -> list[Snapshot]: ...
    def still_wanted(self, owner: str) -> None: ...
    def remember(self, key: Hashable, make: Callable[[], V], owner: str = EVERYONE) -> V: ...
    def remembered(self, key: Hashable) -> Any: ...
    def pixels(self, file: Path, digest: str, owner: str) -> np.ndarray: ...
    def clip(self, file: Path, digest: str, owner: str) -> Clip: ...
    def promise(
        self, key: Hashable, make: Callable[[], bytes], suffix: str = "bin", owner: str = EVERYONE
    ) -> str: ...


@dataclass(frozen=True, eq=False)
class Look:
    """One picture in front of one model: what every view is given, and asks for what it shows.

    Nothing is computed until asked for, and nothing twice. A Look is small and holds no tensor: what
    it asks for may have been forgotten in the meantime, and is then made again.
    """

    session: Keeper
    name: str  # of the model
    step: int | None  # of its training, or as it is
    key: str  # of these very weights
    picture: Path
    digest: str  # of the picture's bytes
    owner: str  # whose look it is
    size: str  # one of SIZES
    frame: int = 0  # of a clip, where the model looks at pictures
    classes: Classes | None = None  # a visitor's own, in place of the model's

    # the model -------------------------------------------------------------------------------------

    @property
    def loaded(self) -> Loaded:
        """These very weights: no file is read while they are held; with a visitor's classes, a head of these.
        Raises CheckpointError."""
        own = self.session.loaded(self.key, self.name, self.step)
        if self.classes is None:
            return own
        put_on, plain = self.classes.put_on, replace(self, classes=None)

        def make() -> Head:
            image = plain.image.to(next(own.model.parameters()))
            return Head.of(*put_on(own.model, own.card, image))

        return own.with_head(self.remember("classes", make), f"{own.key}#{self.identity[-1]}")

    @property
    def model(self) -> ViT:
        return self.loaded.model

    @property
    def card(self) -> Card:
        return self.loaded.card

    @property
    def in_bf16(self) -> bool:
        """Does a first look run in bf16?"""
        return runs_in_bf16(self.model)

    # what is kept ----------------------------------------------------------------------------------

    @property
    def identity(self) -> list[str]:
        """What tells this picture, model and size from others."""
        frame = [f"frame {self.frame}"] if self.has_timeline else []
        return [self.key, self.digest, self.size, *frame, *([self.classes.key] if self.classes else [])]

    def remember(self, what: Hashable, make: Callable[[], V]) -> V:
        """A result that depends on this picture, this model and `what`."""
        return self.session.remember((*self.identity, what), make, self.owner)

    def remembered(self, what: Hashable) -> Any:
        """This result if it is there, else None: nothing is made."""
        return self.session.remembered((*self.identity, what))

    def address(self, what: Hashable, make: Callable[[], bytes], suffix: str = "bin") -> str:
        """Where a browser finds these bytes, made when it first asks for them."""
        return self.session.promise((*self.identity, what), make, suffix, self.owner)

    # the picture -----------------------------------------------------------------------------------

    @property
    def pixels(self) -> Image.Image:
        """The picture itself, decoded once for all models and moments, or the frame of a clip. Raises
        PictureError and ClipError."""
        if self.is_clip:
            return Image.fromarray(self.moments.frames[self.moment])
        return Image.fromarray(self.session.pixels(self.picture, self.digest, self.owner))

    # a clip ----------------------------------------------------------------------------------------

    @property
    def is_clip(self) -> bool:
        """Does the file hold a clip?"""
        return bool(
            self.session.remember(("is clip", self.digest), lambda: is_clip(self.picture), self.owner)
        )

    @property
    def clip(self) -> Clip:
        """The frames that are kept of the file; of a picture one. Raises PictureError and ClipError."""
        if not self.is_clip:
            return Clip(np.asarray(self.pixels)[None], (0.0,))
        return self.session.clip(self.picture, self.digest, self.owner)

    @property
    def has_timeline(self) -> bool:
        """Does a model of pictures look at a clip, one frame after the other?"""
        if not self.is_clip:  # asked of every moment of a training: no weights are read for that
            return False
        own = self.session.loaded(self.key, self.name, self.step)  # whatever classes it is given
        return not own.model.config.is_clip and len(self.moments.frames) > 1

    @property
    def moments(self) -> Clip:
        """The frames that a model of pictures looks at."""
        return thinned(self.clip, MOMENTS)

    @property
    def moment(self) -> int:
        """The frame, as far as this clip has it."""
        return max(0, min(self.frame, len(self.moments.frames) - 1))

    @property
    def at_every_frame(self) -> list["Look"]:
        return [replace(self, frame=frame) for frame in range(len(self.moments.frames))]

    def trace_every_frame(self) -> list[Trace]:
        """The traces of all of them. Raises TooLarge."""
        self.check_work(len(looks := self.at_every_frame))
        return [look.trace() for look in looks]

    @property
    def seen(self) -> Clip:
        """The frames that a model of clips reads."""
        return sampled(self.clip, self.model.config.num_frames)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels: as the model was trained, or what its `size` makes of that."""
        height, width = map(float, self.card.size_for(self.model.config))
        if self.size in (WHOLE, WHOLE_DOUBLE):  # as many pixels, in the picture's own shape
            wide, tall = self.remember("shape", lambda: self.pixels.size)
            shape = min(max(wide / tall, 1 / 3), 3.0)
            height, width = math.sqrt(height * width / shape), math.sqrt(height * width * shape)
        factor = 2 if self.size in (DOUBLE, WHOLE_DOUBLE) else 1

        def in_patches(side: float) -> int:
            patch = self.model.config.patch_size
            return max(1, round(factor * side / patch)) * patch

        return in_patches(height), in_patches(width)

    @property
    def image(self) -> Tensor:
        """(3, height, width): the picture as the model takes it; (F, 3, height, width) of a clip, and of a
        picture that a model of clips takes for one that stands still."""
        card = replace(self.card, crop_pct=self.crop_pct)

        def make() -> Tensor:
            if self.model.config.is_clip:
                return preprocess_clip(self.seen, card, self.image_size)
            return preprocess(self.pixels, card, self.image_size)

        return self.remember("image", make)

    @property
    def crop_pct(self) -> float:
        """Of the card; of the whole picture, nothing is cut off."""
        return 1.0 if self.size in (WHOLE, WHOLE_DOUBLE) else self.card.crop_pct

    @property
    def seen_part(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of what the model sees, as shares of the picture's sides."""
        wide, tall = self.remember("shape", lambda: self.pixels.size)
        left, top, right, bottom = seen_box((wide, tall), self.image_size, self.crop_pct)
        return left / wide, top / tall, (right - left) / wide, (bottom - top) / tall

    @property
    def picture_address(self) -> str:
        """The pixels that the model saw, in true colours, as a picture for the browser."""
        return self.address("picture", partial(make_picture, self), PICTURE)

    @property
    def frames_address(self) -> str:
        """The same, of a clip with all its frames side by side."""
        if not self.model.config.is_clip:
            return self.picture_address
        return self.address("frames", lambda: render.png(as_picture(self.image, self.card)), PICTURE)

    # the forward pass ------------------------------------------------------------------------------

    def trace(self, target: int | None = None, edits: tuple[Hook, ...] = (), exact: bool = False) -> Trace:
        """What the forward pass did; with a target, also its gradients; with edits, after them.

        exact: in float32 also where a look at this model runs in bf16. Raises TooLarge.
        """
        self.check_cost(target)
        exact = exact or target is not None or not self.in_bf16
        keep = ("attn", "resid_post") if self.keeps_attention else ("resid_post",)

        def make() -> Trace:
            image, loaded = self.image, self.loaded
            with self.session.model_lock:
                model = loaded.model if exact else loaded.half
                return trace(model, image, target=target, edits=edits, keep=keep)

        return self.remember(("trace", target, edits, exact), make)

    @property
    def is_at_hand(self) -> bool:
        """Has somebody looked at this already?"""
        return self.remembered(("trace", None, (), not self.in_bf16)) is not None

    def attention(self, layer: int, edits: tuple[Hook, ...] = ()) -> Tensor:
        """One layer's attention (H, T, T), also where there is too much of it to keep it all."""
        traced = self.trace(edits=edits)
        if self.keeps_attention:
            return traced.attn[layer]
        with self.session.model_lock:
            return attention_at(self.model, traced.tokens[layer], layer, edits, traced.grid)

    def rollouts(self, edits: tuple[Hook, ...] = ()) -> Tensor:
        """(L+1, T, T): attention rollout at every depth, made once for all layers."""
        return self.remember(("rollout", edits), lambda: maps.rollout_all(self.trace(edits=edits)))

    # what it costs ---------------------------------------------------------------------------------

    @property
    def cost(self) -> Cost:
        return cost(self.model.config, self.image_size)

    @property
    def keeps_attention(self) -> bool:
        return self.cost.attn_bytes <= ATTENTION_LIMIT

    @property
    def num_patches(self) -> int:
        """P of this picture, which may be shown larger than the model was trained on."""
        return self.cost.tokens - self.model.config.num_prefix_tokens

    def check_cost(self, target: int | None) -> None:
        """Raises TooLarge where one pass would take more than this machine may give it."""
        most_bytes, most_flops = PUBLIC_PASS_LIMIT if self.session.public else PASS_LIMIT
        at_once = 3 * self.cost.layer_bytes  # one layer's scores, their softmax, and the copy to take home
        smaller = "choose a smaller size or a model with fewer tokens."
        if at_once > most_bytes or self.cost.flops > most_flops:
            work = f"{at_once / 2**30:.1f} GiB at once and {self.cost.flops / 1e12:.1f} trillion operations"
            raise TooLarge(f"This look needs {work}, too much here: {smaller}")
        if target is not None and not self.keeps_attention:
            needed = self.cost.attn_bytes / 2**30
            raise TooLarge(f"This needs {needed:.1f} GiB of attention at once: {smaller}")

    def check_work(self, passes: float) -> None:
        """Raises TooLarge where strangers share this machine and so many passes would make them wait."""
        work = passes * self.cost.flops
        if self.session.public and work > PUBLIC_WORK_LIMIT:
            raise TooLarge(
                f"This needs {work / 1e12:.0f} trillion operations, too much where others wait: "
                "choose a smaller size or a smaller model."
            )

    def passes(self, method: Method) -> int:
        """How many forward passes this method takes, where it is more than a few."""
        return method.passes_for(self.num_patches)

    def cost_in_words(self, method: Method) -> str:
        """What a method costs for this picture, such as "196 forwards"."""
        return method.cost_for(self.num_patches)

    def is_quick(self, method: Method) -> bool:
        """May this method run for this model without having been asked for?"""
        count = self.passes(method)
        if method.is_long and not count:  # of other work than passes, such as flow
            return False
        return count * self.cost.flops <= QUICK

    # maps ------------------------------------------------------------------------------------------

    def valid_target(self, target: Any) -> int | None:
        """The class to explain: the one asked for if the model has it, else its answer; None without a
        head."""
        classes = self.model.config.num_classes
        if not classes:
            return None
        if isinstance(target, int | float) and 0 <= target < classes:
            return int(target)
        return int(self.trace().logits.argmax())

    def refusal(self, method: Method) -> str:
        """Why this method says nothing here, in one sentence; empty if it does."""
        if not self.keeps_attention:
            return too_many_tokens(f"{method.label} is")
        if why_not := method.refusal(self.model.config, self.cost.tokens):
            return why_not
        try:
            self.check_work(self.passes(method))
        except TooLarge as error:
            return str(error)
        return ""

    def must_wait(self, method: Method, target: int | None) -> bool:
        """Is this map one that takes seconds and is not there yet?"""
        return not self.is_quick(method) and self.remembered(map_key(method, target)) is None

    def map(self, method: Method, target: int | None, wanted: Callable[[], None] = lambda: None) -> Tensor:
        """(h, w): what this method says about the class; made once for all visitors. wanted: called between
        the steps of long work, raises Left to end it, as the visitor's leaving does."""
        *_, target = key = map_key(method, target)

        def make() -> Tensor:
            traced = self.trace(target if method.needs_grad else None, exact=True)

            def step(done: int, total: int) -> None:
                self.session.still_wanted(self.owner)
                wanted()
                rest()

            if zero.HERE and self.passes(method) and not self.is_quick(method):
                model = self.model
                return zero.map_on_gpu(method.name, traced, model.config, model.state_dict(), target)
            return method(traced, model=self.model, target=target, progress=step)

        return self.remember(key, make)

    # interventions ---------------------------------------------------------------------------------

    def edits(self, patches: Any, heads: Any, frozen: Any = -1) -> tuple[Hook, ...]:
        """What a browser asked to hide and to switch off, as far as this model has it. Raises ValueError."""
        config, patch_count = self.model.config, self.num_patches
        hidden = sorted({p for p in as_ints(patches) if 0 <= p < patch_count})
        pairs = [as_ints(pair) for pair in heads] if is_list(heads) else []
        found = {(pair[0], pair[1]) for pair in pairs if len(pair) == 2}
        off = sorted((a, b) for a, b in found if 0 <= a < config.depth and 0 <= b < config.num_heads)
        edits: list[Hook] = []
        if len(hidden) == patch_count:
            raise ValueError("Leave at least one patch visible.")
        if hidden:
            edits.append(MaskPatches(tuple(hidden), config.num_prefix_tokens))
        if off:
            edits.append(ZeroHeads(tuple(off)))
        times = config.grid.frames
        if isinstance(frozen, int) and 0 <= frozen < times and times > 1:
            edits.append(FreezeTime(frozen, times))
        return tuple(edits)

    # what the viewer is given ----------------------------------------------------------------------

    def viewer_value(self, edits: tuple[Hook, ...] = (), **more: Any) -> dict[str, Any]:
        """The addresses of the head and layers, and of the same after an intervention; `more` as in
        `explorer.viewer.host`."""
        nonce = secrets.token_hex(4)  # so that the same value once more is heard, too
        value = {**self.addresses(), **self.timeline(), "nonce": nonce, **more}
        return value | {"after": {**self.addresses(edits), "edits": as_told(edits)}} if edits else value

    def timeline(self) -> dict[str, Any]:
        """Of a clip that a model of pictures looks at: the addresses of each frame, and of where patches are
        found again."""
        if not self.has_timeline:
            return {}
        frames = [
            {**look.addresses(), "words": f"time {look.frame} · {look.moments.times[look.frame]:.2f} s"}
            for look in self.at_every_frame
        ]
        whole = replace(self, frame=0)
        return {"timeline": frames, "follow": whole.address("follow", partial(make_follow, whole))}

    def addresses(self, edits: tuple[Hook, ...] = (), depth: int | None = None) -> dict[str, Any]:
        """Made when the browser asks for them: the first picture does not wait for the last layer.

        depth: of a model that need not be loaded yet.
        """
        layers = range(self.model.config.depth if depth is None else depth)
        ends = [AHEAD] * (len(layers) - 1) + ["bin"]  # a page opens on the last layer
        made = [
            self.address(("layer", at, edits), partial(make_layer, self, at, edits), end)
            for at, end in zip(layers, ends)
        ]
        exact = depth is None and self.keeps_attention
        if exact:
            exact = 4 * self.model.config.num_heads * self.cost.tokens**2 <= EXACT_BUDGET
        return {
            "head": self.address(("head", edits), partial(make_head, self, edits)),
            "layers": made,
            "embeddings": self.address(("embeddings", edits), partial(make_embeddings, self, edits)),
            "exact": [
                self.address(("exact", at, edits), partial(make_exact, self, at, edits))
                for at in (layers if exact else ())
            ],
        }

    def maps_value(self, name: str, target: int | None, edits: tuple[Hook, ...]) -> dict[str, Any]:
        """The viewer's value with the map that was asked for and all that are there or cost next to nothing,
        or with what keeps it from coming."""
        asked = METHODS[name]
        if why_not := self.refusal(asked):
            return self.viewer_value(edits, refused={name: why_not})
        if self.must_wait(asked, target):
            return self.viewer_value(edits, progress=f"{asked.label} takes {self.cost_in_words(asked)} …")
        cheap = [m for m in METHODS.values() if not self.must_wait(m, target) and not self.refusal(m)]
        names = list(dict.fromkeys([name, *(m.name for m in cheap)]))
        for each in names:  # here, in the queue; the address makes again what was forgotten
            self.map(METHODS[each], target)
        address = self.address(("maps", *names, target), partial(make_maps, self, names, target))
        return self.viewer_value(edits, maps=[address])


def map_key(method: Method, target: int | None) -> tuple[str, str, int | None]:
    """Under which a look remembers this map."""
    return "map", method.name, target if method.class_specific else None


def is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def as_told(edits: Sequence[Hook]) -> dict[str, Any]:
    """Interventions as a browser names them: what `Look.edits` reads."""
    patches = [patch for each in edits if isinstance(each, MaskPatches) for patch in each.patches]
    heads = [pair for each in edits if isinstance(each, ZeroHeads) for pair in each.heads]
    frozen = [each.time for each in edits if isinstance(each, FreezeTime)]
    return {"patches": patches, "heads": heads, "frozen": frozen[0] if frozen else -1}


def as_ints(values: Any) -> list[int]:
    return [v for v in values if isinstance(v, int)] if is_list(values) else []


# bytes behind the addresses -----------------------------------------------------------------------------


def make_picture(look: Look) -> bytes:
    config = look.model.config
    image = look.image[:: config.tubelet] if config.is_clip else look.image  # one frame of each time
    return render.png(as_picture(image, look.card))


def make_follow(look: Look) -> bytes:
    return follow_payload(look.trace_every_frame())


def make_head(look: Look, edits: tuple[Hook, ...] = ()) -> bytes:
    loaded = look.loaded
    times = look.seen.times if look.model.config.is_clip and look.is_clip else ()
    measured = loaded.roles, loaded.believed
    return head_payload(look.trace(edits=edits), loaded.card, loaded.model, *measured, times)


def make_embeddings(look: Look, edits: tuple[Hook, ...] = ()) -> bytes:
    traced = look.trace(edits=edits)
    if edits or not look.has_timeline:
        return embeddings_payload(traced, look.model)
    return embeddings_payload(traced, look.model, (look.trace_every_frame(), look.moment))


def make_layer(look: Look, layer: int, edits: tuple[Hook, ...] = ()) -> bytes:
    traced = look.trace(edits=edits)
    if not look.keeps_attention:
        return layer_payload(traced, layer, attn=look.attention(layer, edits))
    return layer_payload(traced, layer, rollout=look.rollouts(edits)[layer + 1])


def make_exact(look: Look, layer: int, edits: tuple[Hook, ...] = ()) -> bytes:
    return exact_payload(look.trace(edits=edits).attn[layer], layer)


def make_maps(look: Look, names: Sequence[str], target: int | None) -> bytes:
    return maps_payload({name: look.map(METHODS[name], target) for name in names}, look.card, target)
