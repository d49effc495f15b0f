"""The explorer as a folder of files: models, pictures and the viewer, for any web host or a USB stick.

FOLDER/index.html              the page; README.md and serve.py say how to show it
       site.js, worker.js      the viewer, the lesson and the page; the engine
       runtime/                onnxruntime-web, the program that runs the model in the browser
       models/NAME/            graph, weights, constants, moments of training, maps of the example pictures
       pictures/               what there is to look at before a visitor brings their own
       site.json               what is where
"""

import gzip
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

from explorer import stats
from explorer.classes import ALIKE, Words
from explorer.lesson.script import lesson_css
from explorer.lesson.steps import outline_of
from explorer.methods import METHODS
from explorer.payload import (
    MAX_POSITIONS,
    as_bytes,
    cosine_bytes,
    filters_side_by_side,
    maps_at_hand,
    pack,
)
from explorer.render import COLORMAPS, DIVERGING
from explorer.roles import Roles
from explorer.site.graph import (
    Weight,
    export_graph,
    export_inside,
    export_related,
    has_places,
    pack_weights,
)
from explorer.site.pictures import CLIPS, Picture, write_picture
from explorer.site.runtime import GPU_SCRIPT, GPU_WASM, SCRIPT, WASM, SiteError, runtime_files
from explorer.viewer.script import joined
from vit.card import Card
from vit.checkpoint import load_snapshot, write_atomically
from vit.cost import cost
from vit.model import ViT
from vit.trace import trace
from vit.words import CONTROL, Tower, with_projection

HERE = Path(__file__).parent
VIEWER = HERE.parent / "viewer"
LIMIT = 120_000_000  # parameters: a ViT-B takes 350 MB of a browser's memory, and seconds a picture
SLOW = 30_000_000  # beyond, each look takes more than a second, and the page says so
ATTENTION = 640 * 2**20  # bytes of a look's attention, all layers: a browser holds it twice beside all else
LONGEST = 60  # letters of a folder's name
LIST, PARTS = "site.json", ("runtime", "models", "pictures")
OFFERED = [method for method in METHODS.values() if not method.is_long]
MADE = "logit_ledger"  # by js/page.js; why the others are not: do they need gradients?
ALONG = "it comes along for the {} only, and of these for what the trained model answers."
CLOSED = (
    f"This map is not computed in a browser: {ALONG}",
    f"This map needs gradients, which a model in a browser does not give: {ALONG}",
)
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Shared:
    """A model that goes into the folder, and the moments of its training."""

    name: str
    model: ViT
    card: Card
    snapshots: Sequence[tuple[int, Path]] = ()  # (step, file)
    roles: Roles | None = None  # what was measured of its heads,
    believed: str = ""  # and the method whose maps were measured to lead
    tower: Tower | None = None  # `model` is `with_projection` of it,
    words: Words | None = None  # and this is what it is asked for

    @classmethod
    def speaking(cls, tower: Tower, words: Words) -> "Shared":
        """A tower of pictures and texts, and the words that come along with it."""
        card = replace(tower.card, class_names=words.names)
        return cls(Path(card.name).name, with_projection(tower), card, tower=tower, words=words)


def write_site(
    folder: Path,
    models: Sequence[Shared],
    pictures: Sequence[Picture],
    *,
    title: str = "ViT Explorer",
    runtime: Path | None = None,
    webgpu: bool = False,
    progress: Progress = lambda text: None,
) -> None:
    """Write all of it; with webgpu also the runtime for graphics chips, which a browser that has one tries.

    An export that is there, or was begun there, gives up its models and pictures. Raises SiteError for what a
    browser cannot run, before anything is written.
    """
    for shared in models:
        check(shared)
    if len({shared.name for shared in models}) < len(models):
        raise SiteError("Two of these models have one name: rename the folder of one.")
    progress("runtime")
    files = runtime_files(runtime, webgpu)
    begin(folder, title)
    for name, content in files.items():
        write(folder / "runtime" / name, content)
    listed = []
    for number, each in enumerate(pictures):
        about_it, contents = write_picture(each, number)
        listed.append(about_it)
        for name, content in contents.items():
            write(folder / name, content)
    about: dict[str, Any] = {
        "title": title,
        "runtime": {"script": f"runtime/{SCRIPT}", "wasm": f"runtime/{WASM}.gz"},
        "webgpu": {"script": f"runtime/{GPU_SCRIPT}", "wasm": f"runtime/{GPU_WASM}.gz"} if webgpu else None,
        "pictures": listed,
        "clips": CLIPS,
        "methods": [method.entry for method in OFFERED],
        "models": [
            write_model(folder, address, shared, pictures, progress)
            for address, shared in zip(addresses([shared.name for shared in models]), models)
        ],
    }
    write_atomically(folder / LIST, json.dumps(about, separators=(",", ":")).encode())
    first = [about["runtime"]["script"], about["runtime"]["wasm"], *(each["thumb"] for each in listed)]
    entry = about["models"][0]
    first += [entry[key] for key in ("graph", "related", "weights", "constants")]
    of_clips = models[0].model.config.is_clip  # as fitting in js/asked.js
    for opening in ([each for each in listed if ("clip" in each) == of_clips] or listed)[:1]:
        first += [opening["file"], *filter(None, [entry["maps"].get(opening["name"])])]
    write_page(folder, title, first)


def is_export(folder: Path) -> bool:
    """Is this a folder that `write_site` has written, or began to?"""
    try:
        about = json.loads((folder / LIST).read_bytes())
        return str(about["runtime"]["script"]).startswith("runtime/ort.") and "title" in about
    except (OSError, ValueError, LookupError, TypeError):
        return False


def begin(folder: Path, title: str) -> None:
    """Make the folder, and say whose it is, so that what is interrupted can be repeated. What an export there
    made of other models and pictures goes; links are removed, never followed."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_export(folder):
        for path in (folder / name for name in PARTS):
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
    begun = {"title": title, "runtime": {"script": f"runtime/{SCRIPT}"}}
    write_atomically(folder / LIST, json.dumps(begun).encode())


def plain(name: str) -> str:
    """A name as a part of an address: what any file system and any web host takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:LONGEST].strip(".-") or "model"


def addresses(names: Sequence[str]) -> list[str]:
    """Each name as a part of an address, none twice, nor where capitals count for nothing."""
    found: list[str] = []
    for name in names:
        address, number = plain(name), 2
        while address.lower() in map(str.lower, found):
            address, number = f"{plain(name)}-{number}", number + 1
        found.append(address)
    return found


def check(shared: Shared) -> None:
    """Raises SiteError for a model that a browser cannot be asked to run."""
    parameters = sum(p.numel() for p in shared.model.parameters())
    if parameters > LIMIT:
        raise SiteError(
            f"{shared.name} has {parameters / 1e6:.0f} million parameters, too many for a browser "
            f"(at most {LIMIT // 10**6}): choose a smaller model."
        )
    attention = cost(shared.model.config, shared.card.size_for(shared.model.config)).attn_bytes
    if attention > ATTENTION:
        raise SiteError(
            f"The attention of {shared.name} takes {attention / 2**20:.0f} MiB, too much for a browser "
            f"(at most {ATTENTION // 2**20}): choose a model with fewer tokens."
        )
    if shared.model.config.in_chans != 3:
        raise SiteError(f"{shared.name} reads {shared.model.config.in_chans} channels, a photograph has 3.")


def write_model(
    folder: Path, address: str, shared: Shared, pictures: Sequence[Picture], progress: Progress
) -> dict[str, Any]:
    """The files of one model -> its entry in site.json."""
    model, card, where = shared.model, shared.card, f"models/{address}"
    size = card.size_for(model.config)
    progress(f"{shared.name}: graph")
    graph, weights = export_graph(model, size, shared.tower)
    write(folder / where / "graph.onnx.gz", gzip.compress(graph, 9, mtime=0))
    entry: dict[str, Any] = {"name": shared.name, "described": described(model, card, size)}
    entry["described"]["head"] |= measured(shared)
    if shared.words:
        entry["described"]["words"] = spoken(shared.words)
    entry["graph"] = f"{where}/graph.onnx.gz"
    entry |= written_weights(folder, f"{where}/weights.bin.gz", model, weights, 16)
    write(folder / where / "related.onnx.gz", gzip.compress(export_related(model, size), 9, mtime=0))
    entry["related"] = f"{where}/related.onnx.gz"
    write(folder / where / "constants.bin", constants(model, size, shared.words))
    entry["constants"] = f"{where}/constants.bin"
    inside = gzip.compress(export_inside(model, size, weights), 9, mtime=0)
    write(folder / where / "inside.onnx.gz", inside)
    outline = outline_of(model, card, size) | {"placeless": has_places(model)}
    write(folder / where / "lesson.json", json.dumps(outline, separators=(",", ":")).encode())
    entry |= {"inside": f"{where}/inside.onnx.gz", "lesson": f"{where}/lesson.json"}
    entry["refused"] = refusals(model, cost(model.config, size).tokens)
    entry["slow"] = sum(p.numel() for p in model.parameters()) > SLOW
    entry["moments"] = []
    for step, file in shared.snapshots:
        progress(f"{shared.name}: step {step}")
        moment, _ = load_snapshot(file)
        if moment.config.input_shape() != model.config.input_shape():
            continue  # an earlier stage, at another size: another graph
        written = written_weights(folder, f"{where}/moments/{step:07d}.bin.gz", moment, weights, 8)
        entry["moments"].append({"step": step, **written})
    entry["maps"] = {}
    for number, each in enumerate(pictures):
        if not each.fits(model.config):
            continue
        progress(f"{shared.name}: maps of {each.name}")
        image = each.read_by(model.config, card, size)
        answering, named = model, card
        if shared.tower and shared.words:
            answering, named = shared.words.put_on(shared.tower.model, card, image)
        target = None
        if answering.config.num_classes:
            target = int(trace(answering, image, keep=()).logits.argmax())
        content, _ = maps_at_hand(trace(answering, image, target=target), named, answering)
        write(folder / where / "maps" / f"{number}.bin", content)
        entry["maps"][each.name] = f"{where}/maps/{number}.bin"
    return entry


def refusals(model: ViT, num_tokens: int) -> dict[str, str]:
    """{method: why its map is not made in the page, in one sentence}."""
    found, kind = {}, "examples" if model.config.is_clip else "example pictures"
    for method in OFFERED:
        closed = "" if method.name == MADE else CLOSED[method.needs_grad].format(kind)
        if why := method.refusal(model.config, num_tokens) or closed:
            found[method.name] = why
    return found


def measured(shared: Shared) -> dict[str, Any]:
    """What the head of a message says of the weights that were measured; see schema.json."""
    roles = shared.roles and {"head_names": shared.roles.all_names(), "opening": shared.roles.opening}
    return (roles or {}) | ({"believed": shared.believed} if shared.believed else {})


def written_weights(folder: Path, name: str, model: ViT, weights: list[Weight], bits: int) -> dict[str, Any]:
    content, listed = pack_weights(model.state_dict(), weights, bits)
    write(folder / name, gzip.compress(content, 6, mtime=0))
    return {"weights": name, "list": listed}


def described(model: ViT, card: Card, image_size: tuple[int, int]) -> dict[str, Any]:
    """A model as js/engine.js needs it: its sizes, how a picture is prepared, what its answers mean."""
    config = model.config
    grid = config.grid_at(image_size)
    h, w = grid.space
    prefix = config.num_prefix_tokens
    clip = {"frames": config.num_frames, "tubelet": config.tubelet} if config.is_clip else {}
    names = ["pca", "similarity", "norms", *(["positions"] if grid.count <= MAX_POSITIONS else []), "filters"]
    return {
        "L": config.depth,
        "H": config.num_heads,
        "T": prefix + grid.count,
        "D": config.embed_dim,
        "t": grid.frames,
        "h": h,
        "w": w,
        **clip,
        "prefix": prefix,
        "imageSize": list(image_size),
        "cropPct": card.crop_pct,
        "interpolation": card.interpolation,
        "mean": list(card.mean),
        "std": list(card.std),
        "scores": card.scores,
        "classes": config.num_classes,
        "classNames": list(card.class_names),
        "accuracy": card.accuracy,
        "note": card.note,
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops": cost(config, image_size).flops,
        "head": {
            "name": card.name,
            "grid_size": list(grid.shape),
            "num_prefix_tokens": prefix,
            "prefix_names": list(config.prefix_names),
            "num_layers": config.depth,
            "num_heads": config.num_heads,
            "num_tokens": prefix + grid.count,
            "embeddings": names,
            "colormaps": list(COLORMAPS),
            "signed_colormaps": list(DIVERGING),
        },
    }


def spoken(words: Words) -> dict[str, Any]:
    """What js/words.js needs to know of the words that come along, beside their vectors."""
    return {"scale": words.scale, "bias": words.bias, "control": CONTROL, "alike": ALIKE}


def constants(model: ViT, image_size: tuple[int, int], words: Words | None = None) -> bytes:
    """What the viewer shows that no picture changes: colour tables, positions, filters; and the vectors of
    words, the control's behind them, (K + 1, E)."""
    grid = model.config.grid_at(image_size)
    arrays = {"colormaps": np.stack(list(COLORMAPS.values()))}  # (C, 256, 3)
    if grid.count <= MAX_POSITIONS:
        similarity = stats.position_similarity(model, grid.shape).reshape(grid.count, -1)
        arrays["positions"] = cosine_bytes(similarity)  # (P, P)
    arrays["filters"] = as_bytes(filters_side_by_side(model))
    if words:
        arrays["words"] = torch.cat([words.vectors, words.control[None]]).float().numpy()
    return pack(arrays, {"kind": "constants"})


def write_page(folder: Path, title: str, kept_at_once: Sequence[str]) -> None:
    """The page, what makes it an app of its own, and how to show it. kept_at_once: files that its service
    worker keeps from the first visit on; the others follow when they are first used."""
    write(folder / "viewer.css", (VIEWER / "viewer.css").read_bytes())
    write(folder / "lesson.css", lesson_css().encode())
    write(folder / "serve.py", (HERE / "serve.py").read_bytes())
    in_quotes = json.dumps(title, ensure_ascii=False)[1:-1]
    for file in sorted((HERE / "files").iterdir()):
        named = html.escape(title) if file.suffix == ".html" else in_quotes
        content = file.read_text(encoding="utf-8").replace("%TITLE%", named)
        write(folder / file.name, content.encode())
    for pixels in (192, 512):
        buffer = io.BytesIO()
        icon(pixels).save(buffer, "PNG")
        write(folder / f"icon-{pixels}.png", buffer.getvalue())
    write(folder / "site.js", page_script().encode())
    write(folder / "worker.js", worker_script().encode())
    first = [
        "./",  # index.html, which some hosts give by this name alone
        "page.css",
        "viewer.css",
        "lesson.css",
        "site.js",
        "worker.js",
        "site.json",
        "icon.svg",
    ]
    first += kept_at_once
    worker = (folder / "sw.js").read_text(encoding="utf-8")
    worker = worker.replace("%FIRST%", " ".join(map(quote, first))).replace("%VERSION%", version_of(folder))
    write(folder / "sw.js", worker.encode())


def page_script() -> str:
    return joined([HERE / "js" / "page.js"], "vitPage")


def worker_script() -> str:
    return joined([HERE / "js" / "worker.js"], "vitEngine")


def icon(pixels: int) -> Image.Image:
    """Nine patches, one of them looked at: icon.svg as pixels, which some systems want."""
    picture = Image.new("RGB", (64, 64), "#312e81")
    for i in range(9):
        x, y = 10 + 15.5 * (i % 3), 10 + 15.5 * (i // 3)
        color = "#fde047" if i == 4 else ("#7c80c9", "#9096dd")[i % 2]
        picture.paste(color, (round(x), round(y), round(x) + 13, round(y) + 13))
    return picture.resize((pixels, pixels), Image.Resampling.NEAREST)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def version_of(folder: Path) -> str:
    """A short name of all that the folder holds: another content, another name."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
