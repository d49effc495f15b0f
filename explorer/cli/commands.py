"""The commands, one row each, and the parser that is made from the rows."""

import argparse
import sys
from collections.abc import Sequence

from explorer.cli import data, models, objects, pairs, pictures, site, words
from explorer.cli.arguments import (
    BOXES,
    CARRY,
    COLORMAP,
    CONTRAST,
    COUNT,
    DATA,
    FPS,
    HEAD,
    HIDE,
    IMAGES,
    KEEP,
    LAYER,
    LEAST,
    LINES,
    MASKS,
    METHOD,
    METHODS_HELP,
    MODE,
    MODEL,
    MODELS,
    OFF,
    OUT,
    PICTURES,
    POINTS,
    PROTOTYPES,
    QUERY,
    RECORD,
    ROAD,
    SCALE,
    SCALE_OF_ALL,
    SIZE,
    SMOOTH,
    SOME,
    SPLITS_OF_PICTURES,
    TARGET,
    THEME,
    THROUGH,
    TWO_PICTURES,
    VARIANT,
    WATCH,
    WORDS,
)
from explorer.cli.request import NOTHING, Command, Option, Request
from explorer.site.spaces import KINDS
from vit.console import spell_what_it_can

EXAMPLES = """\
examples
  python -m explorer map
      where the model looks on a picture that is already there, with the bundled checkpoint
  python -m explorer map cat.jpg --method rollout,relevance,occlusion --out cat.png --out cat.npz
      three methods side by side, as a figure and as numbers
  python -m explorer map cat.jpg --query 4,7 --layer 3 --head 2
      where the patch in row 4, column 7 looks (counted from 0), in head 2 of layer 3
  python -m explorer map photos/ --method relevance --target "golf ball" --out "maps/{name}.svg"
      what speaks for one class, on a whole folder
  python -m explorer map cat.jpg --method rollout,relevance --off "L3.H2 L4.H0" --hide "4,7 4,8"
      the same after an intervention: two heads switched off, two patches hidden
  python -m explorer map walk.mp4 --model moves --query 2,4,7 --hide "time 3"
      a clip, for a model of clips: its frames side by side; a patch is TIME,ROW,COLUMN, and time 3
      is hidden. A folder of pictures is a clip, too: its frames in the order of their names
  python -m explorer where cat.jpg --words "a cat, grass" --model openai/clip-vit-base-patch16
      where each word is, beside a prompt that means nothing; `map --words` explains them as classes
  python -m explorer map cat.jpg --method relevance --prototypes animals/ --model facebook/dino-vits16
      a few pictures in a folder per class become the classes of a model without a head
  python -m explorer match cat.jpg tiger.jpg --model facebook/dino-vits16
      which patches of one picture are like which of the other
  python -m explorer patch cat.jpg dog.jpg --what stream
      which tokens, carried from one picture's run into the other's, carry the answer with them
  python -m explorer grid cat.jpg --model facebook/dino-vits8
      every head of every layer on one sheet, for a model from the Hugging Face Hub
  python -m explorer film cat.jpg --out cat.gif
      play through depth
  python -m explorer film cat.jpg --through training --out learning.mp4
      or through training, snapshot by snapshot
  python -m explorer film clip.mp4 --through time --query 7,7 --out clip.gif
      what a model of pictures sees in each frame of a clip, a patch of the first one followed
  python -m explorer html cat.jpg
      one file that anyone can open offline and explore with the mouse
  python -m explorer faithfulness --model shapes --data shapes --images 100 --out table.md
      which maps are true? measured over a data set, with confidence intervals
  python -m explorer objects --model photos --data PHOTOS --boxes boxes.csv --out objects.md --out objects.csv
      does attention land on things? every head, layer and method against boxes or masks
  python -m explorer heads --model imagenette --data imagenette --images 200 --out heads.png --out heads.csv
      how far each head looks, as means over pictures, and how alike layers are
  python -m explorer site public --model imagenette --model shapes --image cat.jpg
      a folder for any web host: the models themselves run in the visitor's browser
  python -m explorer space public --kind static
      a folder that is a Hugging Face Space: static, zerogpu or cpu
  python -m explorer shapes --variant B/16
      the shape of every tensor from pixels to logits

The ending of --out chooses the format. `python -m explorer map --help` tells a command's options.
Exit code: 0 all well, 1 some pictures could not be read, 2 nothing could be done.
"""

FIGURE = (".png", ".svg", ".npz", ".csv", ".md")
SHEET = (PICTURES, SIZE, THEME, COLORMAP)
MAPS = (*SHEET, SMOOTH, LINES)
EDITS = (OFF, HIDE)
CLASSES = (TARGET, WORDS, PROTOTYPES)
LAYER_THEN = LAYER.but(help="through training and time: from 0; -1 is the last (default)")
TOKEN = QUERY.but(help="of heads: the token at which it is carried over (default: all tokens)")
OTHER = CONTRAST.but(help="what the class is told from (default: the second picture's answer)")
INSTEAD_OF_DATA = PICTURES.but(help="files or folders, in place of --data")
ONE_OR_MANY = PICTURES.but(
    help="one file: the race of its maps; folders or several files: a table over them, as with --data"
)
LAYER_OF_PAGE = LAYER.but(
    help="from 0; -1 is the last (default: where the model was measured to find objects)"
)
HEAD_OF_PAGE = HEAD.but(help="from 0 (default: as measured, else the mean of all)")
DATA_OF_OBJECTS = DATA.but(help="folder of pictures, with --boxes or --masks; or shapes, moves")
RECORD_ROLES = RECORD.but(help="write heads.json beside the weights, where the page finds it")
PICTURES_OF_CLASSES = DATA.but(
    required=True, help=f"test split to measure on: {SPLITS_OF_PICTURES} or a folder of classes"
)
IMAGES_OF_TABLE = IMAGES.but(help=f"how many of them (default {SOME}; with --record: {data.RECORDED})")
ALL_IMAGES = IMAGES.but(help=f"how many of them (default: all; of generated ones {SOME})")
MANY = IMAGES.but(help="how many of them (default 500)")

FOLDER = Option("folder", metavar="FOLDER", help="where it is written; with --one-file: NAME.html")
IMAGE = Option(
    "--image",
    dest="pictures",
    action="append",
    metavar="PICTURE",
    help="picture or folder to begin with; may be given several times (default: examples)",
)
TITLE = Option("--title", help="what the page is called")
WORDS_ALONG = WORDS.but(
    help='words to choose among, "a dog, grass", or the lines of a file: for CLIP and its kin, whose text '
    "half stays here"
)
ONE_FILE = Option("--one-file", action="store_true", help="all of it in one HTML file that opens from a disk")
KIND = Option(
    "--kind",
    choices=KINDS,
    help="static: the models run in the visitor's browser, free (default); zerogpu: the app with a GPU that "
    "is lent, free for two Spaces; cpu: the app, for paying accounts. The app brings the bundled models.",
)
MOMENTS = Option(
    "--moments", type=int, help="of training that come along with each model, at most (default 6)"
)
RUNTIME = Option(
    "--runtime",
    metavar="FILE.tgz",
    help="onnxruntime-web from a disk, as `npm pack onnxruntime-web@1.30.0` makes it (default: fetched)",
)
WEBGPU = Option(
    "--webgpu",
    action="store_true",
    help="7 MB more for browsers that reach a graphics chip: kept where it is measured to be faster there",
)

ROWS = (
    Command(
        "map", "where the model looks, or what speaks for a class", pictures.run_on_pictures, FIGURE,
        (*MAPS, METHOD, QUERY, LAYER, HEAD, *CLASSES, CONTRAST, *EDITS, SCALE), pictures.make_map,
        {"methods": ("attention", "rollout")},
    ),
    Command(
        "grid", "every head of every layer on one sheet", pictures.run_on_pictures, FIGURE,
        (*SHEET, QUERY, *EDITS, SCALE_OF_ALL), pictures.make_grid, {"scale": "all"},
    ),
    Command(
        "matrix", "one head's attention, token by token", pictures.run_on_pictures, FIGURE,
        (*SHEET, LAYER, HEAD, *EDITS), pictures.make_matrix,
    ),
    Command(
        "stats", "how far, and at how many tokens, heads look", pictures.run_on_pictures, FIGURE,
        (PICTURES, SIZE, THEME), pictures.make_stats,
    ),
    Command(
        "ledger", "what every head and MLP gave to the logit", pictures.run_on_pictures, FIGURE,
        (PICTURES, SIZE, THEME, *CLASSES, CONTRAST), pictures.make_ledger,
    ),
    Command(
        "ablation", "what the logit loses without each head", pictures.run_on_pictures, FIGURE,
        (PICTURES, SIZE, THEME, *CLASSES), pictures.make_ablation,
    ),
    Command(
        "where", "where words are in a picture: CLIP and its kin", words.run_where, FIGURE, (*MAPS, WORDS),
    ),
    Command(
        "match", "which patches of two pictures are alike", pairs.run_match, FIGURE,
        (TWO_PICTURES, SIZE, THEME, LAYER, COUNT, LEAST),
    ),
    Command(
        "patch", "what changes when a part of one picture's run is carried into another's", pairs.run_patch,
        FIGURE, (TWO_PICTURES, *MAPS[1:], CARRY, TOKEN, *CLASSES, OTHER),
    ),
    Command(
        "film", "play through depth, training or time", pictures.run_film, (".gif", ".mp4"),
        (*MAPS, METHOD, QUERY, HEAD, TARGET, LAYER_THEN, THROUGH, FPS), pictures.make_film,
        {"methods": ("attention",)},
    ),
    Command(
        "html", "one page to explore offline, or all numbers", pictures.run_on_pictures, (".html", ".npz"),
        (PICTURES, SIZE, QUERY, LAYER_OF_PAGE, HEAD_OF_PAGE, TARGET), pictures.make_html,
    ),
    Command(
        "faithfulness", "which maps are true, measured", data.run_faithfulness,
        (".md", ".csv", ".png", ".svg", ".npz"),
        (
            ONE_OR_MANY, SIZE, THEME, METHOD, TARGET, DATA, IMAGES_OF_TABLE, MODE, POINTS, ROAD, WATCH, KEEP,
            RECORD,
        ),
        defaults={"methods": ("all",)},
    ),
    Command(
        "heads", "how far heads look, and how alike layers are, over many pictures", data.run_heads, FIGURE,
        (INSTEAD_OF_DATA, SIZE, THEME, DATA, IMAGES),
    ),
    Command(
        "objects", "does attention land on things, measured", objects.run_objects,
        (".md", ".csv", ".png", ".svg", ".npz"),
        (SIZE, THEME, METHOD, DATA_OF_OBJECTS, BOXES, MASKS, ALL_IMAGES),
    ),
    Command(
        "roles", "what each head does, named by figures over many pictures", objects.run_roles,
        (".md", ".csv"), (SIZE, DATA_OF_OBJECTS, BOXES, MASKS, ALL_IMAGES, RECORD_ROLES),
    ),
    Command(
        "weights", "patch filters and positions, as they were learned", models.run_weights,
        (".png", ".svg", ".npz"), (THEME,),
    ),
    Command("training", "a training run's curves", models.run_training, FIGURE, (THEME,)),
    Command(
        "confusion", "what the model takes for what", data.run_confusion, FIGURE,
        (THEME, PICTURES_OF_CLASSES, MANY),
    ),
    Command(
        "shapes", "the shape of every tensor from pixels to logits", models.run_shapes, (".md", ".csv"),
        (SIZE, VARIANT),
    ),
    Command(
        "site", "the explorer without a server, for any web host or as one file", site.run_site, (),
        (FOLDER, MODELS, IMAGE, TITLE, WORDS_ALONG, MOMENTS, ONE_FILE, RUNTIME, WEBGPU),
    ),
    Command(
        "space", "the folder of a Hugging Face Space, checked", site.run_space, (),
        (
            FOLDER.but(help="where it is written"), KIND, MODELS, IMAGE, TITLE, WORDS_ALONG, MOMENTS, RUNTIME,
            WEBGPU,
        ),
    ),
)  # fmt: skip
COMMANDS = {command.name: command for command in ROWS}


def build_parser(prog: str = "python -m explorer") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="See inside a Vision Transformer without a browser.",
        epilog=EXAMPLES.replace("python -m explorer", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in ROWS:
        about = command.about
        written = f" Writes {', '.join(command.endings)}." if command.endings else ""
        sub = commands.add_parser(
            command.name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.{written}",
            epilog=METHODS_HELP if METHOD in command.options else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # what is not typed is as Request or the row has it
        )
        usual = () if MODELS in command.options else (MODEL, OUT)
        for option in (*usual, *command.options):
            sub.add_argument(*option.flags, **option.keywords)
    return parser


def parse(argv: Sequence[str], prog: str = "python -m explorer") -> Request:
    """Raises SystemExit for what is no command line."""
    typed = vars(build_parser(prog).parse_args(argv))
    return Request(**{**COMMANDS[typed["command"]].defaults, **typed})


def main(argv: Sequence[str] | None = None, prog: str = "python -m explorer") -> int:
    """Returns the exit code."""
    spell_what_it_can()
    request = parse(sys.argv[1:] if argv is None else argv, prog)
    command = COMMANDS[request.command]
    try:
        return command.run(request, command)
    except (ValueError, OSError) as error:  # every error of ours is a ValueError with one sentence
        print(f"{prog}: {error}", file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        return 130
