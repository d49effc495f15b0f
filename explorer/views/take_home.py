"""Files to take home: figures, films, numbers, and one page that works offline in a slide deck.

They show the layer, the heads and the query that are pinned in the viewer, without interventions. Nothing is
made before somebody asks for it.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from explorer import export, films
from explorer.forms import Export
from explorer.look import Look, too_many_tokens
from explorer.methods import METHODS
from explorer.site.lent import can_be_lent, megabytes, site_address
from explorer.subject import Subject
from explorer.views.page import HEARD, LATEST, QUIET, Page
from explorer.views.parts import file_row, note

MOST_PUBLIC = 128 * 2**20  # bytes of attention in a file of all tensors, where strangers ask for it
FUSES = ("one", "mean", "max")  # what the viewer may show of the heads of a layer

# what a file shows: (label, name of the file, endings)
FILES = (
    ("This page, in one file that works offline", "page", (".html",)),
    ("Every head", "heads", (".png", ".svg")),
    ("Attention of what is pinned", "head", (".png", ".svg", ".npz")),
    ("Rollout", "rollout", (".png", ".svg", ".npz")),
    ("Class relevance", "relevance", (".png", ".svg", ".npz")),
    ("Play through depth", "depth", (".gif", ".mp4")),
    ("Heads in numbers", "figures", (".png", ".svg", ".csv")),
    ("Logit ledger", "ledger", (".png", ".svg", ".csv")),
    ("All tensors", "trace", (".npz",)),
)

EXPLAINERS = {"relevance": METHODS["relevance"], "ledger": METHODS["logit_ledger"]}  # they may refuse


def make_export(look: Look, name: str, target: int | None, view: dict[str, Any]) -> Export:
    """The `Export` behind one row of FILES; view: what `view_of` returns."""
    subject = Subject(look.picture.stem, look.trace(target, exact=True), look.model, look.card)
    query = view.get("query")
    of_head = {"layer": view["layer"], "head": view["head"] if view["fuse"] == "one" else None}
    measured = {"roles": look.loaded.roles, "believed": look.loaded.believed}
    makers: dict[str, Any] = {
        "page": lambda: export.everything(subject, **measured, **view),
        "heads": lambda: export.grid(subject, query=query),
        "head": lambda: export.maps(subject, ["attention"], query=query, fuse=view["fuse"], **of_head),
        "rollout": lambda: export.maps(subject, ["rollout"], query=query),
        "relevance": lambda: export.maps(subject, ["relevance"], target=target),
        "depth": lambda: films.film(subject, ["attention", "rollout"], query=query),
        "figures": lambda: export.figures_of_heads(subject),
        "ledger": lambda: export.ledger(subject, target=target),
        "trace": lambda: export.everything(subject),
    }
    made: Export = makers[name]()
    return made


def to_bytes(look: Look, name: str, ending: str, target: int | None, view: dict[str, Any]) -> bytes:
    """One file's content. target: None for the answer, which is asked for only now."""
    target = look.valid_target(target)
    with tempfile.TemporaryDirectory() as folder:
        return make_export(look, name, target, view).save(Path(folder) / f"{name}{ending}").read_bytes()


def view_of(look: Look, picked: dict[str, Any]) -> dict[str, Any]:
    """What the viewer last pinned, as far as this model has it; else what it starts with."""
    config = look.model.config
    bounds = {"query": look.cost.tokens, "layer": config.depth, "head": config.num_heads}
    found = {k: picked[k] for k, bound in bounds.items() if k in picked and 0 <= picked[k] < bound}
    roles = look.loaded.roles
    opening = {"layer": config.depth - 1, "head": 0} | (roles.opening if roles else {})
    fuse = "one" if roles and "head" in roles.opening else "mean"  # as in viewer/js/state.js
    return opening | {"fuse": picked.get("fuse", fuse)} | found


PINNED = ("page", "head")  # files that show the layer and the heads of the viewer


def file_name(look: Look, name: str, view: dict[str, Any]) -> str:
    """A file's name without its ending, by picture, model and what it shows: "lion-imagenette-L5-H2-head"."""
    heads = f"H{view['head']}" if view["fuse"] == "one" else f"{view['fuse']}-of-heads"
    pinned = [f"L{view['layer']}", heads] if name in PINNED else []
    parts = [look.picture.stem, Path(look.card.name).name, *pinned, name]
    return "-".join(parts)


def links(look: Look, target: int | None, picked: dict[str, Any]) -> str:
    """A row of links per result; a browser that follows one has the file made. No pass of the model is run
    here: it is not in the queue."""
    if not look.keeps_attention:
        return note(too_many_tokens("Files are"))
    view = view_of(look, picked)
    rows = []
    for label, name, endings in FILES:
        if name == "trace" and look.session.public and look.cost.attn_bytes > MOST_PUBLIC:
            continue
        method = EXPLAINERS.get(name)
        if method is not None and method.refusal(look.model.config, look.cost.tokens):
            continue
        shown = (look.picture.stem, target, *sorted(view.items()))  # a file bears its picture's name
        addresses = {}
        for ending in endings:
            made = partial(to_bytes, look, name, ending, target, view)
            addresses[ending] = look.address(("file", name, ending, shown), made, ending[1:])
        rows.append(file_row(label, file_name(look, name, view), addresses))
    if can_be_lent(look.name, look.session.names(), look.model, look.card):
        rows.insert(1, with_the_model(look))
    return f'{note("Files are made without interventions.")}<ul class="vx-files">{"".join(rows)}</ul>'


def with_the_model(look: Look) -> str:
    """The page of one file in which the model itself runs. It is made for all visitors once."""
    name = site_address(look.name)
    seen = "clips" if look.model.config.is_clip else "pictures"
    label = f"The model itself, about {megabytes(look.model)} MB: others can put in {seen} of their own"
    return (
        f'<li><span>{label} (making it takes a minute)</span><a href="site/{name}.html"'
        f' download="{name}.html" aria-label="The model itself as HTML">HTML</a></li>'
    )


def build(page: Page) -> None:
    opened = gr.State(False)
    with gr.Accordion("Download", open=False, elem_id="files") as list_of_files:
        files = gr.HTML("", apply_default_css=False)

    def on_news(opened, shown, target, picked, request: gr.Request):
        if not opened or not shown:  # most look and leave: nothing is promised to them
            return gr.skip()
        look = page.look(shown, request)
        return links(look, target, picked if isinstance(picked, dict) else {})

    def on_pick(event: gr.EventData):
        said = {name: getattr(event, name, None) for name in ("query", "layer", "head")}
        fuse = getattr(event, "fuse", None)
        picked = {name: x for name, x in said.items() if isinstance(x, int)}
        return picked | ({"fuse": fuse} if fuse in FUSES else {})

    inputs = [page.shown, page.target, page.picked]
    pinned = page.viewer.pick(on_pick, None, [page.picked], **HEARD)
    page.when_open("explore", on_news, [opened, *inputs], [files])
    pinned.success(on_news, [opened, *inputs], [files], queue=False, **LATEST, **QUIET)
    unfolded = list_of_files.expand(lambda: True, None, [opened], queue=False, **QUIET)
    unfolded.success(on_news, [opened, *inputs], [files], queue=False, **LATEST, **QUIET)
    list_of_files.collapse(lambda: False, None, [opened], queue=False, **QUIET)
