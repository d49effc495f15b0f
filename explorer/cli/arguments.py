"""The options of the command line, one row each; what they mean to one model."""

import argparse
import hashlib
import re
from collections.abc import Sequence

from explorer import faithfulness, twins
from explorer.cli.request import Asked, Option, Request, Usage
from explorer.methods import LETTERS, METHODS, plain
from explorer.patching import WHAT
from explorer.render import DIVERGING, SCALES, SEQUENTIAL, THEMES
from vit.card import Card
from vit.config import VARIANTS, ViTConfig
from vit.cost import cost
from vit.grid import Grid
from vit.model import Hook
from vit.objective import OTHERS, Contrast
from vit.trace import MaskPatches, ZeroHeads

MAX_ATTENTION = 8 * 2**30  # bytes
SOME = 50  # pictures of a table over a data set

# ---- words into values, each on its own ------------------------------------------------------------


def method_names(text: str) -> list[str]:
    """ "rollout,relevance" -> names of METHODS, or "all"."""
    names = text.split(",")
    for name in names:
        if name not in METHODS and name != "all":
            raise argparse.ArgumentTypeError(f"no method {name!r}: choose from {', '.join(METHODS)}, or all")
    return names


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive whole number")
    return int(text)


def frame_rate(text: str) -> float:
    """Frames per second, as far as a GIF can hold them."""
    try:
        fps = float(text)
    except ValueError:
        fps = 0
    if not 0.01 <= fps <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no number between 0.01 and 100")
    return fps


# ---- options ---------------------------------------------------------------------------------------

PICTURES = Option(
    "pictures",
    nargs="*",
    metavar="PICTURE",
    help="files or folders, for a model of clips also MP4, WebM, GIF and folders of frames; none: an example",
)
MODEL = Option("--model", "-m", help="checkpoint: bundled name, folder or Hub id (default: the app's)")
MODELS = Option(
    "--model",
    "-m",
    dest="models",
    action="append",
    metavar="MODEL",
    help="checkpoint: bundled name, folder or Hub id; may be given several times (default: the app's)",
)
SIZE = Option("--size", help="pixels the model is given: 224 or HEIGHTxWIDTH (default: its own)")
OUT = Option(
    "--out",
    "-o",
    action="append",
    metavar="PATH",
    help="file, or folder; {name} stands for the picture's name; may be given several times "
    "(default: in the current folder, named after the picture and the command)",
)
METHOD = Option(
    "--method",
    dest="methods",
    action="extend",
    type=method_names,
    metavar="NAMES",
    help="one, several with commas, or all, see below (default: attention,rollout for map, "
    "attention for film, all for faithfulness, none for objects)",
)
QUERY = Option(
    "--query",
    "-q",
    help="token that looks: cls, reg1 ... or ROW,COLUMN of a patch, from 0, of a clip TIME,ROW,COLUMN "
    "(default: what the head reads)",
)
LAYER = Option(
    "--layer",
    type=int,
    help="from 0; -1 is the last (default; of input_gradient, layernorm_rule and cp_lrp: 0)",
)
HEAD = Option("--head", type=int, help="from 0 (default: mean of all)")
TARGET = Option("--target", help="class to explain, by name or number (default: the model's answer)")
CONTRAST = Option(
    "--contrast", help='what the class is explained against, "why A and not B": another class, or others'
)
WORDS = Option(
    "--words",
    metavar="WORDS",
    help='classes are what you type, "a dog, grass", or the lines of a file: for CLIP and its kin',
)
PROTOTYPES = Option(
    "--prototypes", metavar="DIR", help="classes are folders of a few pictures each: for any model"
)
TWO_PICTURES = Option("pictures", nargs=2, metavar="PICTURE", help="two files: one, and the other")
COUNT = Option(
    "--count", type=positive, help=f"at most so many pairs, the most alike first (default {twins.COUNT})"
)
LEAST = Option(
    "--least", type=float, metavar="COSINE", help="only pairs that are at least as alike (default -1)"
)
CARRY = Option(
    "--what",
    choices=list(WHAT),
    help=f"carried over is {'; '.join(f'{name}: {about}' for name, about in WHAT.items())} (default heads)",
)
OFF = Option("--off", metavar="HEADS", help='heads to switch off: "L3.H2 L4.H0"')
HIDE = Option(
    "--hide",
    metavar="PATCHES",
    help='patches that no token may see: "4,7 4,8"; of a clip "2,4,7" at one time, "4,7" at every time, '
    '"time 2" all of that time',
)
SCALE = Option(
    "--scale",
    choices=["map", "uniform"],
    help="what full colour stands for: each map's own maximum (map, default) or 8 x uniform attention",
)
SCALE_OF_ALL = SCALE.but(
    choices=list(SCALES),
    help="what full colour stands for: the maximum of each map, layer, or all (default), or 8 x uniform",
)
THEME = Option("--theme", choices=list(THEMES), help="of the figure (default: light)")
COLORMAP = Option("--colormap", choices=[*SEQUENTIAL, *DIVERGING], help="colours of the maps")
SMOOTH = Option("--smooth", action="store_true", help="interpolate between patches, and say so")
LINES = Option("--lines", action="store_true", help="draw the lines between patches")
THROUGH = Option(
    "--through",
    choices=["depth", "training", "time"],
    help="layer by layer (default), snapshot by snapshot as train.py left them, or frame by frame of a clip",
)
FPS = Option("--fps", type=frame_rate, help="frames per second (default 2)")
SPLITS_OF_PICTURES = "imagenette, photos, catsdogs, cifar10, shapes"
SPLITS = f"{SPLITS_OF_PICTURES}, moves"
DATA = Option("--data", help=f"test split to measure on: {SPLITS} or a folder of classes")
IMAGES = Option("--images", type=positive, help=f"how many of them (default {SOME})")
BOXES = Option(
    "--boxes", metavar="CSV", help="where objects are: path,x0,y0,x1,y1,width,height, paths below --data"
)
MASKS = Option(
    "--masks",
    metavar="DIR",
    help="where objects are, white: train/cat.png for the picture train/cat.jpg below --data",
)
MODE = Option(
    "--mode",
    dest="modes",
    action="append",
    choices=faithfulness.MODES,
    help="hide patches by painting them grey or by leaving them out (default both)",
)
POINTS = Option(
    "--points", type=positive, help="points of each curve (default: one per patch, of many patches 33)"
)
ROAD = Option("--road", action="store_true", help="measure ROAD, too: half as long again or more")
WATCH = Option(
    "--watch",
    choices=["answer", "truth"],
    help="over a data set, the class that is watched: the model's answer (default) or the picture's own",
)
KEEP = Option(
    "--keep", metavar="FILE", help="keep each picture's figures here, and take up a table that was stopped"
)
RECORD = Option(
    "--record",
    action="store_true",
    help="measure the bundled model (without --model: all of them) on its own test pictures, and write what "
    "was found into its checkpoint and docs/faithfulness.md; takes up what was stopped",
)
VARIANT = Option(
    "--variant",
    metavar="SIZE/PATCH",
    help=f"a paper's model instead, such as B/16; sizes: {', '.join(VARIANTS)}",
)

METHODS_HELP = f"methods\n  ({LETTERS})\n{plain()}"

# ---- what a request means to one model ---------------------------------------------------------------


def ask(request: Request, config: ViTConfig, card: Card, size: tuple[int, int]) -> Asked:
    """What was asked for, as far as it depends on no picture. Raises Usage."""
    grid_size = config.grid_at(size).shape
    token = parse_query(request.query, config, grid_size)
    target = parse_target(request.target, card, config.num_classes)
    check_index("layer", request.layer, config.depth)
    check_index("head", request.head, config.num_heads)
    methods = methods_of(request, config, size)
    if methods:
        check_heard(request, methods)
    contrast = parse_contrast(request.contrast, card, config.num_classes)
    return Asked(methods, token, target, contrast, parse_edits(request, methods, config, grid_size))


def parse_size(text: str | None, patch_size: int, usual: tuple[int, int]) -> tuple[int, int]:
    """ "224", or "224x336" for height x width; without a text the usual size."""
    if text is None:
        return usual
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Usage(f"--size {text} is no size: write 224, or HEIGHTxWIDTH such as 224x336.")
    size = int(parts[0]), int(parts[-1])
    Grid.of(size, patch_size)
    return size


def check_memory(config: ViTConfig, size: tuple[int, int], traces: int = 1) -> None:
    """Before anything is allocated: figures are made from the attention of all layers at once."""
    needed = traces * cost(config, size).attn_bytes
    if needed > MAX_ATTENTION:
        raise Usage(
            f"{size[0]} x {size[1]} pixels need {needed / 2**30:,.1f} GiB of attention at once, more than "
            f"{MAX_ATTENTION / 2**30:.0f}: give a smaller --size or a model with larger patches."
        )


def parse_query(
    text: str | None, config: ViTConfig, grid_size: tuple[int, ...], option: str = "--query"
) -> int | None:
    """ "cls", "reg1" or "row,column" -> the token's index; None stays None: what the class is read from. A
    patch of a clip is "time,row,column"."""
    if text is None:
        return None
    names = [name.strip("[]").lower() for name in config.prefix_names]
    if text.strip("[]").lower() in names:
        return names.index(text.strip("[]").lower())
    try:
        place = [int(part) for part in text.split(",")]
    except ValueError:
        place = []
    if len(place) != len(grid_size):
        form = "ROW,COLUMN" if len(grid_size) == 2 else "TIME,ROW,COLUMN"
        known = f" or {', '.join(names)}" if names else ""
        raise Usage(f"{option} {text} is no token of this model: write {form}{known}.")
    try:
        return config.num_prefix_tokens + Grid(grid_size).number(place)
    except ValueError as error:
        raise Usage(str(error)) from error


def parse_edits(
    request: Request, methods: Sequence[str], config: ViTConfig, grid_size: tuple[int, ...]
) -> tuple[Hook, ...]:
    """--off "L3.H2 L4.H0" and --hide "4,7 4,8" -> hooks that intervene."""
    edits: list[Hook] = []
    if request.off is not None:
        found = [re.fullmatch(r"L(\d+)\.H(\d+)", word, re.IGNORECASE) for word in request.off.split()]
        pairs = [(int(match[1]), int(match[2])) for match in found if match]
        known = all(i < config.depth and j < config.num_heads for i, j in pairs)
        if not pairs or not all(found) or not known:
            last = f"L{config.depth - 1}.H{config.num_heads - 1}"
            asked = request.off.strip() or '""'
            raise Usage(f"--off {asked} names no heads: write L0.H0 to {last}, with spaces between them.")
        edits.append(ZeroHeads(tuple(pairs)))
    if request.hide is not None:
        edits.append(
            MaskPatches(parse_hidden(request.hide, config, Grid(grid_size)), config.num_prefix_tokens)
        )
    again = [METHODS[name].label for name in methods if METHODS[name].needs_model]
    if edits and again:
        raise Usage(f"{again[0]} runs the model as it is: leave out --off and --hide, or the method.")
    return tuple(edits)


def parse_hidden(text: str, config: ViTConfig, grid: Grid) -> tuple[int, ...]:
    """ "4,7 4,8" -> patches; of a clip also "4,7" at every time, and "time 2", all that one time has."""
    patches: list[int] = []
    for word in re.findall(r"time\s*\d+|\S+", text, re.IGNORECASE):
        time = re.fullmatch(r"time\s*(\d+)", word, re.IGNORECASE)
        try:
            if time and config.is_clip:
                patches += grid.in_frame(int(time[1]))
            elif config.is_clip and re.fullmatch(r"\d+,\d+", word):
                patches += grid.through_time(grid.number((0, *map(int, word.split(",")))))
            else:
                token = parse_query(word, config, grid.shape, "--hide") or 0
                patches.append(token - config.num_prefix_tokens)
        except ValueError as error:
            raise Usage(str(error)) from error
    if not patches or min(patches) < 0:
        form = "TIME,ROW,COLUMN, ROW,COLUMN or time TIME" if config.is_clip else "ROW,COLUMN"
        raise Usage(f"Patches can be hidden, and nothing else: write {form}.")
    if len({*patches}) == grid.count:
        raise Usage("Leave at least one patch visible.")
    return tuple(dict.fromkeys(patches))


def changed(request: Request) -> str:
    """The intervention in words, for titles."""
    words = [f"{request.off} off"] * bool(request.off) + [f"{request.hide} hidden"] * bool(request.hide)
    return f" ({', '.join(words)})" if words else ""


def changed_file(request: Request) -> str:
    """The same for the names of files, which must not be those of the files without the intervention."""
    parts = []
    for words, what in ((request.off, "off"), (request.hide, "hidden")):
        if words and words.strip():
            named = "-".join(words.split())
            if len(named) > 40:  # longer than a file's name may become: how many, and which in short
                named = f"{len(words.split())}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
            parts.append(f"-{named}-{what}")
    return "".join(parts)


def parse_target(text: str | None, card: Card, num_classes: int) -> int | None:
    """A class by name, by number, or by the unmistakable beginning of its name; None stays None."""
    if text is None:
        return None
    if not num_classes:
        raise Usage(f"{card.name} has no classification head, so there is no class to explain.")
    names = [name.lower() for name in card.class_names]
    exact = [k for k, name in enumerate(names) if name == text.lower()]
    if not exact and text.isdecimal() and int(text) < num_classes:
        return int(text)
    found = exact or [k for k, name in enumerate(names) if name.startswith(text.lower())]
    if len(found) != 1:
        some = ", ".join(card.class_names[:12]) + (", ..." if len(names) > 12 else "")
        problem = "may be several classes" if found else "is no class"
        choices = f" or one of {some}" if names else ""
        raise Usage(f"{text!r} {problem} of {card.name}: give a number below {num_classes}{choices}.")
    return found[0]


def parse_contrast(text: str | None, card: Card, num_classes: int) -> Contrast:
    """ "others", or a class as `parse_target` reads it; None stays None."""
    named = {name.lower() for name in card.class_names}
    if text is not None and text.lower() == OTHERS and OTHERS not in named:
        return OTHERS
    return parse_target(text, card, num_classes)


def methods_of(request: Request, config: ViTConfig, size: tuple[int, int]) -> Sequence[str]:
    """The methods asked for; "all" means those that this model, this size and a film through depth allow."""
    if "all" not in request.methods:
        return request.methods
    usable = faithfulness.usable_methods(config, cost(config, size).tokens)
    through_depth = request.command == "film" and request.through == "depth"
    return [name for name in usable if "layer" in METHODS[name].options or not through_depth]


def need_gradients(methods: Sequence[str]) -> bool:
    return any(METHODS[name].needs_grad for name in methods)


def check_heard(request: Request, methods: Sequence[str]) -> None:
    """An option of the maps that no method on this figure listens to would be ignored in silence."""
    if request.command == "film" and request.through == "depth" and request.layer is not None:
        raise Usage("A film through depth shows every layer: leave out --layer, or add --through training.")
    heard = {option for name in methods for option in METHODS[name].options}
    if any(METHODS[name].class_specific for name in methods):
        heard |= {"target", "contrast"}
    if request.scale == "uniform" and not any(METHODS[name].rows_sum_to_1 for name in methods):
        able = ", ".join(method.label for method in METHODS.values() if method.rows_sum_to_1)
        raise Usage(f"--scale uniform is for rows that sum to 1 ({able}): leave it out.")
    for option in ("query", "layer", "head", "target", "contrast"):
        if getattr(request, option) is not None and option not in heard:
            labels = ", ".join(METHODS[name].label for name in methods)
            raise Usage(f"--{option} means nothing to {labels}: leave it out or choose another --method.")


def check_index(what: str, index: int | None, count: int) -> None:
    if index is not None and not -count <= index < count:
        raise Usage(f"There is no {what} {index}: this model has {count}, 0 to {count - 1}.")
