"""The page: header, shared controls on the left, a tab per view on the right.

`build(session)` makes it, `launch_options(session)` says how it is served. A handler takes the values of
widgets and returns values of widgets: it can be called from a test without a server.
"""

import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr
from gradio import FileData
from markupsafe import Markup

from explorer import serve
from explorer.examples import Example, make_examples, suited
from explorer.front import Front, Text
from explorer.lesson.script import lesson_css
from explorer.look import SIZES, TRAINED, Look
from explorer.methods import METHODS
from explorer.refusals import Left, sentence_of
from explorer.session import PUBLISHED, Session, digest_of
from explorer.site.lent import can_be_lent, live_link
from explorer.viewer import host, viewer_script
from explorer.viewer.host import attention_viewer
from explorer.views import (
    about,
    api,
    classes,
    compare,
    explore,
    heads,
    lesson,
    pairs,
    take_home,
    training,
    why,
)
from explorer.views.page import (
    ADDRESS_QUEUE,
    EACH,
    FILE_QUEUE,
    HEARD,
    HUB_QUEUE,
    LATEST,
    MODEL_QUEUE,
    QUIET,
    Edits,
    Failed,
    Page,
    Shown,
    as_sent,
    as_text,
    at_frame,
    guard,
    in_toast,
    news,
    owner_of,
    target_said,
)
from vit.clips import SUFFIXES, ClipError, clip_of_pictures, is_clip, save_animated
from vit.pictures import SUFFIXES as PICTURES
from vit.pictures import open_safely

FOLDER = Path(__file__).parent
TITLE = "ViT Explorer"
LINE = "See where a Vision Transformer looks, why it answers, and how it learned to."
# (name in the address, label, what is on it)
TABS = (
    ("explore", "Explore", (classes, explore, take_home)),
    ("lesson", "How it works", (lesson,)),
    ("why", "Why", (why,)),
    ("heads", "Heads & layers", (heads,)),
    ("training", "Training", (training,)),
    ("compare", "Compare", (pairs, compare)),
    ("about", "About", (about,)),
)
# Gradio takes quoted names in a script for events; "words": those that the address names
EVENTS = ", ".join(f'"{name}"' for name in (*(name for name, _, _ in TABS), "words"))
FIRST = "(...said) => window.vitPage.first(...said)"  # explorer/views/waiting.js
# what the page offers to try, beside what the viewer can do by itself; answers: of a model that has some
LESSON = {"label": "How does this work?", "tab": "lesson"}
TRIES = (
    {"label": "A lion: is it among its answers?", "example": "lion", "answers": True},
    {"label": "What was it like when training began?", "tab": "training"},
    LESSON,
)
# of the page, in order
SCRIPTS = ("page.js", "waiting.js", "upload.js", "compare.js", "widgets.js")
LONG = 1e11  # operations of a forward pass from which on the visitor is told what it will take


def strip(examples: list[Example], chosen: str = "") -> Markup:
    """The row of small pictures under the large one. A data set's folders may be called anything."""
    button = Markup(
        '<button type="button" data-example="{name}" data-tip="{label}" aria-label="{label}"'
        ' aria-pressed="{pressed}"><img src="{thumb}" alt=""></button>'
    )
    buttons = (
        button.format(
            name=e.name, label=e.label, pressed=str(e.name == chosen).lower(), thumb=file_address(e.thumb)
        )
        for e in examples
    )
    return Markup('<div class="vx-examples">{}</div>').format(Markup("").join(buttons))


def file_address(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def examples_of(session: Session) -> dict[str, Example]:
    return make_examples(session.folder / "examples")


# handlers -------------------------------------------------------------------------------------------


def describe(look: Look, offered: Sequence[str] = ()) -> Markup:
    """What this model is; what it can answer at all is said beside its answer. offered: the models that the
    app lends to browsers."""
    config, card = look.model.config, look.card
    shape = " × ".join(map(str, config.grid_at(look.image_size).shape))
    through = f" and {config.tubelet} frames" if config.tubelet > 1 else ""
    parameters = sum(p.numel() for p in look.model.parameters())
    facts = [
        f"{shape} patches of {config.patch_size} px{through}",
        f"{config.depth} layers × {config.num_heads} heads",
        f"{parameters / 1e6:.1f} M parameters",
    ]
    if card.accuracy is not None:
        facts.append(f"{100 * card.accuracy:.2f} % right on its test set")
    said = [" · ".join(facts)]
    if card.note:
        said.append(card.note)
    if can_be_lent(look.name, offered, look.model, card):
        said.append(live_link(look.name))
    return Markup('<p class="vx-card">{}</p>').format(Markup("<br>").join(said))


def cost_of(look: Look) -> str:
    """What this look will take, said before it is run."""
    cost, size = look.cost, look.cost.attn_bytes / 2**30
    kept = "kept at once" if look.keeps_attention else "made again layer by layer"
    work = f"{cost.tokens:,} tokens, {cost.flops / 1e9:,.0f} billion operations"
    return f"{work}, {size:.1f} GiB of attention, {kept}."


class Screen(NamedTuple):
    """All that changes with another picture, model or size: components, or a value for each of them."""

    viewer: Any
    card: Any
    thumbs: Any
    target: Any
    edits: Any
    shown: Any
    beacon: Any


UNCHANGED = Screen(*[gr.skip()] * len(Screen._fields))


def show(
    page: Page,
    examples: dict[str, Example],
    chosen: Shown,
    request: gr.Request,
    target: int | None = None,
    edits: Edits = Edits(),  # noqa: B008  # a tuple: nobody changes it
) -> Screen:
    """Another picture, model or size.

    target: the class to explain, None for the answer. edits: the interventions.
    """
    look = page.look(chosen, request)
    chosen_there: dict[str, Any] = {} if target is None else {"target": target}
    if look.has_timeline:  # one scale for all that stands together, as for the moments of a training
        chosen_there["scale"] = "uniform"
    state = {"state": chosen_there} if chosen_there else {}
    if look.cost.flops > LONG:
        gr.Info(cost_of(look), title="This takes a moment")
    look.trace()  # here, in the queue: what the browser then asks for is drawn from it
    example = next((e.name for e in examples.values() if e.path == look.picture), "")
    return Screen(
        viewer=look.viewer_value(look.edits(*edits), **state),
        card=describe(look, page.session.names()),
        thumbs=strip(suited(examples, look.card.data + look.name), example),
        target=target,
        edits=edits,
        shown=chosen,
        beacon={
            **news(look),
            "example": example,
            "size": "" if look.size == TRAINED else look.size,
            "words": chosen.classes.address if chosen.classes else "",
            "seen": look.seen_part,
        },
    )


def first_model(session: Session, query: Mapping[str, str]) -> tuple[str, str, str]:
    """(the model that is shown at once, the one that the address names if it must be fetched first, why it
    is another than the address names)."""
    default = session.names()[0]
    asked = as_text(query.get("model")) or default
    try:
        name = session.allowed(asked)
        if not session.is_here(name):
            return default, name, ""
        session.model(name)
    except (ValueError, OSError) as error:
        return default, "", why_another(error, default)
    return name, "", ""


def why_another(error: Exception, default: str) -> str:
    why_not = sentence_of(error) or "That model could not be opened."
    return in_toast(f"{why_not} Showing {default} instead.")


def first_shown(session: Session, query: Mapping[str, str]) -> Shown:
    """What a visitor finds: the picture that the address names, else the first one."""
    model, *_ = first_model(session, query)
    examples, example, size = examples_of(session), query.get("example", ""), query.get("size", TRAINED)
    if example not in examples:
        example = suited(examples, session.model(model).card.data + model)[0].name
    return Shown(str(examples[example].path), model, size if size in SIZES else TRAINED)


def first_value(session: Session, query: Mapping[str, str]) -> dict[str, Any] | None:
    """What the viewer shows first, where somebody has looked at it already, so that it waits for no turn."""
    shown = first_shown(session, query)
    look = session.look(shown.picture, shown.model, size=shown.size)
    return look.viewer_value() if look.is_at_hand else None


# the page -------------------------------------------------------------------------------------------


def text_of(name: str) -> str:
    """A file of the page's, as text."""
    return (FOLDER / "views" / name).read_text(encoding="utf-8")


def build(session: Session) -> gr.Blocks:
    """The whole page."""
    examples = examples_of(session)
    gr.set_static_paths([session.folder / "examples"])
    with gr.Blocks(title=TITLE, delete_cache=(600, 3600), analytics_enabled=False, fill_width=True) as demo:
        skip = '<button class="vx-skip">Skip to the pages</button>'
        gr.HTML(
            f'<header class="vx-header"><h1>{TITLE}</h1><p>{LINE}</p>{skip}</header>', apply_default_css=False
        )
        with gr.Row(elem_id="page", equal_height=False):
            with gr.Column(elem_id="side", scale=0, min_width=264):
                picture, clip, thumbs, model, size, card = side(session)
            with gr.Column(elem_id="main", scale=1, min_width=320):
                shown, target = gr.State(None), gr.State(None)
                edits, picked = gr.State(Edits()), gr.State({})
                beacon = gr.HTML(
                    {},
                    html_template="<span></span>",
                    js_on_load=f"// events: {EVENTS}\n" + text_of("beacon.js"),
                    elem_id="beacon",
                    tabs=[name for name, _, _ in TABS],
                )
                methods = [method.entry for method in METHODS.values()]
                with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                    viewer = None
                    for name, label, views in TABS:
                        with gr.Tab(label, id=name, elem_id=f"tab-{name}", render_children=True) as tab:
                            gr.HTML(f"<h2>{escape(label)}</h2>", elem_classes="vx-hidden", padding=False)
                            if viewer is None:
                                viewer = attention_viewer(
                                    elem_id="viewer",
                                    methods=methods,
                                    link="main",
                                    tries=TRIES,
                                    lesson=LESSON,
                                    asks=classes.ASKS,
                                )
                                states = shown, target, edits, picked
                                page = Page(
                                    session,
                                    picture,
                                    model,
                                    size,
                                    *states,
                                    viewer,
                                    beacon,
                                    examples,
                                    gr.State(""),
                                    gr.State(Failed(one_choice=5.0)),
                                )
                            for view in views:
                                view.build(page)
                        tab.select(None, None, None, js=f"() => window.vitPage.opened('{name}')")
        screen = Screen(page.viewer, card, thumbs, page.target, page.edits, page.shown, page.beacon)
        on_show = show_what_is_chosen(page, examples, screen, clip)
        page.classes_chosen.change(on_show, page.asked, list(screen), **LATEST, **QUIET, **MODEL_QUEUE)
        api.build(page)
        arrive_and_leave(demo, page, examples, screen, on_show)
    guard(demo)
    return demo


def side(
    session: Session,
) -> tuple[gr.Image, gr.UploadButton, gr.HTML, gr.Dropdown, gr.Dropdown, gr.HTML]:
    """The column on the left: picture, a clip of one's own, examples, model, size, what the model is."""
    picture = gr.Image(
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        height=196,
        label="Picture",
        show_label=False,
        buttons=[],
        elem_id="picture",
        placeholder="Drop a picture",
    )
    as_sent(picture)
    kinds = sorted(SUFFIXES | PICTURES)  # several pictures are the frames of one
    clip = gr.UploadButton("Bring a clip", file_count="multiple", file_types=kinds, size="sm", elem_id="clip")
    thumbs = gr.HTML("", js_on_load=text_of("examples.js"), elem_id="examples", apply_default_css=False)
    choices = [(name, name) for name in session.names()]
    model = gr.Dropdown(
        [*choices, *((label, hub_id) for hub_id, label in PUBLISHED.items())],
        value=session.names()[0],
        label="Model or Hub id" if session.public else "Model, Hub id or folder",
        allow_custom_value=True,
        elem_id="model",
    )
    size = gr.Dropdown(list(SIZES), value=TRAINED, label="Picture size", elem_id="size")
    card = gr.HTML("", elem_id="card", apply_default_css=False)
    if session.broken:
        left_out = Markup("<br>").join(session.broken.values())
        gr.HTML(
            Markup('<p class="vx-card" id="left-out">Left out:<br>{}</p>').format(left_out),
            apply_default_css=False,
        )
    return picture, clip, thumbs, model, size, card


def kept_clip(session: Session, files: Sequence[str], owner: str) -> str:
    """An uploaded clip, or several pictures that are its frames, as an animated picture beside the first of
    them, which every browser shows, and whose frames need not be decoded again; a picture is itself. Raises
    ClipError."""
    if not files:
        raise ClipError("Choose a clip, or several pictures that are its frames.")
    if len(files) > 1:
        if any(map(is_clip, files)):
            raise ClipError("One clip at a time: choose one file, or several pictures that are its frames.")
        clip = clip_of_pictures([Path(file) for file in files], read=open_safely)
    elif is_clip(files[0]):
        clip = session.clip(files[0], digest_of(files[0]), owner)
    else:
        session.pixels(files[0], digest_of(files[0]), owner)
        return files[0]
    beside = Path(files[0]).parent  # which Gradio names after this file's content: it may be others', too
    fresh = beside / f"{secrets.token_hex(8)}.webp"
    try:
        save_animated(clip, fresh)
        digest = digest_of(fresh)
        path = beside / digest[:16] / "clip.webp"
        path.parent.mkdir(exist_ok=True)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    session.keep_decoded(digest, lambda: clip, owner)
    return str(path)


def show_chosen(
    page: Page,
    examples: dict[str, Example],
    widgets: Sequence[Any],
    shown: Shown | None,
    target: int | None,
    edits: Edits,
    request: gr.Request,
) -> Screen:
    """What picture, model and size are in the widgets. target and edits: of what is shown."""
    picture, model, size = widgets
    if not picture:  # it was taken away: what is shown stays until there is another
        if not shown or (model, size) == (shown.model, shown.size):
            return UNCHANGED
        picture = shown.picture
    if (name := page.name_of(model)) in page.session.coming:  # then what is chosen by then is shown
        if not shown or (picture, size) != (shown.picture, shown.size):
            gr.Info(f"{in_toast(name)} is still downloading; it will appear when it is ready.")
        return UNCHANGED
    if page.is_unread(picture):  # then what is chosen by then is shown
        gr.Info("This picture or clip is still being read; if it does not appear, choose it once more.")
        return UNCHANGED
    own = shown.classes if shown and shown.model == model else None
    chosen = Shown(picture, model, size, classes=own)
    if not shown or (picture, model) != (shown.picture, shown.model):
        return show(page, examples, chosen, request)
    # at another size, or once more
    return show(page, examples, chosen, request, target, edits if size == shown.size else Edits())


def show_what_is_chosen(
    page: Page, examples: dict[str, Example], screen: Screen, clip: gr.UploadButton
) -> Callable[..., Screen]:
    """Another picture, model or size: the events that every tab lives from. Returns what shows the choice."""
    values = list(screen)

    def on_drop(picture, model, size, failed, request: gr.Request):
        if not picture:
            raise Left  # taken away: what is shown stays
        with failed.noting(picture, model, size):
            page.on_file(picture, request)

    def on_show(picture, model, size, shown, target, edits, failed, request: gr.Request):
        with failed.noting(picture, model, size):
            return show_chosen(page, examples, (picture, model, size), shown, target, edits, request)

    def on_clip(files, request: gr.Request):
        sent = [file for file in (files if isinstance(files, list) else [files]) if isinstance(file, str)]
        return kept_clip(page.session, sent, owner_of(request))

    def on_choose(event: gr.EventData):
        """Only say which: by the time that it can be shown, there may be another model, too."""
        example = examples.get(str(getattr(event, "example", "")))
        if example is None:
            raise gr.Error("This example does not exist.", print_exception=False)
        return str(example.path)

    def put_back(picture, model, size, shown, failed):
        """What failed goes from the widgets, unless something else has been chosen since."""
        is_it = failed.goes(picture, model, size)
        return shown[:3] if shown and is_it else [gr.skip()] * 3

    def on_left_out(picture, model, size, shown, target, edits, failed, request: gr.Request):
        """What was chosen while something else failed: Gradio forgets an event that waited for that one."""
        chosen = picture, model, size
        if chosen == failed.choice or not shown or chosen == shown[:3]:
            return UNCHANGED
        return on_show(picture, model, size, shown, target, edits, failed, request)

    then = {**LATEST, **QUIET, **MODEL_QUEUE}
    tried, tried_last = [*page.chosen, page.failed], [*page.chosen, page.shown, page.failed]
    sized = page.size.input(on_show, page.asked, values, **then)
    dropped = page.picture.input(on_drop, tried, None, **EACH, **QUIET, **FILE_QUEUE)
    fetched, named_again = page.fetched(page.model, lambda last: last.model if last else gr.skip())
    picked = screen.thumbs.choose(on_choose, None, [page.picture], **HEARD)
    brought = clip.upload(on_clip, [clip], [page.picture], **EACH, **QUIET, **FILE_QUEUE)
    # none of these answers touches the widgets: there may be another choice in them by then
    chosen = dropped, fetched, named_again, picked, brought
    shows = [step.success(on_show, page.asked, values, **then) for step in chosen]
    for step in (sized, dropped, *shows):
        back = step.failure(put_back, tried_last, page.chosen, queue=False, **QUIET)
        if step is not dropped:
            back.success(on_left_out, page.asked, values, **then)
    return on_show


def arrive_and_leave(
    demo: gr.Blocks,
    page: Page,
    examples: dict[str, Example],
    screen: Screen,
    on_show: Callable[..., Screen],
) -> None:
    """What a visitor finds, what a click on the viewer tells all tabs, and what is forgotten at the end."""
    values = list(screen)
    wanted = gr.State("")  # the model that the address names, while it is on its way
    built = [None, page.session.names()[0], TRAINED]  # what the widgets hold before anything is chosen

    def on_address(request: gr.Request):
        """By its name the page can ask for its place among those who wait."""
        model, coming, why_not = first_model(page.session, dict(request.query_params))
        if why_not:
            gr.Warning(why_not, title="Another model")
        shown = first_shown(page.session, dict(request.query_params))
        first = [FileData(path=shown.picture).model_dump(), model, shown.size]
        return coming, {"name": owner_of(request), "built": built, "first": first}

    def on_load(request: gr.Request):
        """Nothing that may have been chosen by the time that this is there."""
        return show(page, examples, first_shown(page.session, dict(request.query_params)), request)

    def on_target(shown, event: gr.EventData, request: gr.Request):
        """A class was clicked: explain this one."""
        look = page.look(shown, request)
        return look.valid_target(target_said(event)), news(look)

    def on_frame(shown, event: gr.EventData, request: gr.Request):
        """Another frame of a clip is looked at. In the queue of `on_show`, where a visitor's events come one
        after the other: between reading what is shown and writing it, nothing else is chosen."""
        look = page.look(at := at_frame(shown, event), request)
        return at, news(look)

    def on_close(request: gr.Request):
        if request.session_hash:
            page.session.release(request.session_hash)

    # its own: where a page is hidden, the beacon may have news by the time that this is read
    first = gr.HTML({}, html_template="", visible=False)
    # in a queue, without which Gradio says of no state that it has changed
    arrived = demo.load(on_address, None, [wanted, first], **QUIET, **ADDRESS_QUEUE)
    arrived.success(None, [first, *page.chosen], page.chosen, js=FIRST)
    demo.load(on_load, None, values, **QUIET, **MODEL_QUEUE)
    came = model_of_the_address(page, wanted)
    came.success(on_show, page.asked, values, **LATEST, **QUIET, **MODEL_QUEUE)
    page.viewer.target(on_target, [page.shown], [page.target, page.beacon], **EACH, **QUIET, **MODEL_QUEUE)
    page.viewer.frame(on_frame, [page.shown], [page.shown, page.beacon], **EACH, **QUIET, **MODEL_QUEUE)
    demo.unload(on_close)


def model_of_the_address(page: Page, wanted: gr.State) -> Any:
    """The event after which a model that the address names has come, and stands in its list."""

    def on_wanted(wanted):
        """The page does not wait for a download: it shows the first model until then."""
        try:
            page.say_if_fetched(wanted)
            page.session.fetch(wanted)
        except (ValueError, OSError) as error:
            gr.Warning(why_another(error, page.session.names()[0]), title="Another model")
            raise Left from error

    def on_came(wanted, model):
        """Unless another model has been chosen since."""
        if model != page.session.names()[0]:
            raise Left
        return wanted

    fetched = wanted.change(on_wanted, [wanted], None, **QUIET, **HUB_QUEUE)
    return fetched.success(on_came, [wanted, page.model], [page.model], queue=False, **QUIET)


def launch_options(session: Session, shared: bool = False) -> dict[str, Any]:
    """How the page looks and how it is served. shared: through Gradio's tunnel, too."""
    scripts = "".join(map(text_of, SCRIPTS))
    styles = text_of("page.css") + host.STYLES + lesson_css()  # Gradio's own `css` rewrites media queries
    own = [Text.own("css", styles), Text.own("js", f"{{{scripts}}}{viewer_script()}")]
    front = Front(own, [lesson.SCRIPT], partial(first_value, session))
    threading.Thread(target=front.ready, daemon=True).start()
    return {"theme": theme(), **serve.options(session, front, shared)}


def keep_first(session: Session) -> None:
    """Look at what most visitors find first, so that it is at hand for all of them, or tell the owner why
    they will find nothing."""
    shown = first_shown(session, {})
    try:
        session.look(shown.picture, shown.model, size=shown.size).trace()
    except ValueError as error:
        print(f"app.py: {shown.model}: {error}", file=sys.stderr)


def theme() -> gr.themes.Base:
    """One accent colour; type is the system's, or what page.css brings."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="md",
    ).set(  # the usual ones are too pale to read
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
