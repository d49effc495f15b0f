"""Commands about a model alone: its weights, its training, its shapes."""

from explorer import export
from explorer.cli.arguments import parse_size
from explorer.cli.request import OK, Command, Request, Usage
from explorer.cli.sources import check_endings, first_checkpoint, load_model, write
from explorer.forms import Export
from explorer.tensors import lines_of, shapes_of
from vit.checkpoint import read_history
from vit.config import ViTConfig
from vit.library import resolve


def run_weights(request: Request, command: Command) -> int:
    check_endings(request, command)
    model, card = load_model(request.model)
    write(export.weights(model, card, style=request.style), request, card.name, command.endings[0])
    return OK


def run_training(request: Request, command: Command) -> int:
    """The curves of a run, finished or not."""
    check_endings(request, command)
    name = request.model or first_checkpoint()
    if not (folder := resolve(name).folder):
        raise Usage(f"{name} is a model of the Hub, which keeps no history here: name the folder of a run.")
    if not (rows := read_history(folder)):
        file = folder / "history.csv"
        raise Usage(f"{file} is missing or has no rows yet: train.py writes it beside the weights of a run.")
    made = export.history(rows, title=folder.name, style=request.style)
    write(made, request, folder.name, command.endings[0])
    return OK


def run_shapes(request: Request, command: Command) -> int:
    """A dry run through the real model. No number is computed."""
    check_endings(request, command)
    if request.variant and request.model:
        raise Usage("Name a paper's --variant or a --model, not both.")
    if request.variant:
        config, name = ViTConfig.variant(request.variant), f"ViT-{request.variant}"
        usual = config.image_size
    else:
        model, card = load_model(request.model)
        config, name, usual = model.config, card.name, card.size_for(model.config)
    rows = shapes_of(config, parse_size(request.size, config.patch_size, usual))
    for line in lines_of(name, config, rows):
        print(line)
    if request.out:
        write(Export(rows=lambda: rows), request, name.replace("/", "-"), command.endings[0])
    return OK
