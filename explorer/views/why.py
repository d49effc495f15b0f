"""Why this answer? Every method points at the patches that it holds responsible for one class. They
disagree, so do not believe a map because it looks right: the **race** below hides and shows patches in
each map's order and measures what happens to the answer. A map that does not beat the **controls**, maps that
never saw the model, by more than one measure, is not to be believed. What a map costs is counted in
**forwards** and **backwards**: one run of the model, and one from its answer back to the picture.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import gradio as gr
import torch

from explorer import faithfulness
from explorer import look as looks
from explorer.ablation import without_heads
from explorer.export import HIDDEN
from explorer.faithfulness import RANDOM, Runner
from explorer.ledger import Ledger, ledger
from explorer.look import Look
from explorer.methods import METHODS
from explorer.payload import class_name
from explorer.record import BEST, Record
from explorer.refusals import Left
from explorer.render import number
from explorer.totals import total_effects
from explorer.views.page import (
    LATEST,
    MODEL_QUEUE,
    QUIET,
    Page,
    news,
)
from explorer.views.parts import cells, escape, lines, note, panel, picture_map, scale, table
from explorer.views.prose import words
from vit.cost import from_every_layer
from vit.grid import Grid
from vit.objective import OTHERS
from vit.trace import Trace, trace

NO_HEAD = "This model has no classification head: it gives no answer that could be explained."
RACE = "race"  # the task's name
TOP_ENTRIES = 12
PLAN = faithfulness.Plan()
BEFORE = note(
    "Not raced on this picture yet: nobody knows which of these maps to believe here. The race measures it."
)


# maps -----------------------------------------------------------------------------------------------


def maps_grid(look: Look, target: int, runners: list[Runner] | None = None) -> str:
    """Every method's map of one class, the most to be believed first: as raced on this picture, or else as
    measured of this checkpoint; those that take many passes wait for the race."""
    if not runners:
        found = look.loaded.record
        measured = [each.name for each in found.found if each.name in METHODS] if found else []
        names = [*measured, *(name for name in METHODS if name not in measured)]
        return note(measured_words(found)) + grid(
            figure_of(look, name, target, told(found, name)) for name in names
        )
    ahead = faithfulness.beliefs(runners)
    raced = sorted((r for r in runners if r.name in ahead), key=lambda r: (len(ahead[r.name]) < 2, -r.score))
    figures = {r.name: figure_of(look, r.name, target, verdict(r, ahead[r.name]), r.map) for r in raced}
    good = [figure for name, figure in figures.items() if len(ahead[name]) > 1]
    bad = [figure for name, figure in figures.items() if len(ahead[name]) < 2]
    bad += [figure_of(look, name, target, "") for name in METHODS if name not in figures]
    bar = faithfulness.best_control(runners)
    score = number(bar.score, "+.2f")
    words = f'<b>{escape(bar.name)}</b><span class="vx-verdict">{score}, the bar</span>'
    return (
        heading(f"Ahead of every map that never saw the model, by more than one measure: {len(good)}")
        + grid([picture_map(look.picture_address, bar.map, words), *good])
        + heading("No reason to believe them on this picture")
        + grid(bad)
    )


def figure_of(look: Look, name: str, target: int, words: str, values: torch.Tensor | None = None) -> str:
    """One method's map with what is known of it, or why there is none."""
    method = METHODS[name]
    if why_not := look.refusal(method):
        return waiting(method.label, why_not)
    if values is None and look.must_wait(method, target):
        words = f"Takes {look.cost_in_words(method)}: tick “include slow methods” and run the race."
        return waiting(method.label, words)
    values = look.map(method, target) if values is None else values
    caption = f"<b>{escape(method.label)}</b>{words}<span>{escape(method.about)}</span>"
    cost = look.cost_in_words(method)
    caption += f"<cite>cost: {escape(cost)}<br>{escape(method.source)}</cite>"
    return picture_map(look.picture_address, values, caption, signed=method.signed, method=name)


def grid(figures: Iterable[str]) -> str:
    return f'<div class="vx-maps">{"".join(figures)}</div>'


def heading(text: str) -> str:
    return f'<h3 class="vx-h3">{escape(text)}</h3>'


def measured_words(found: Record | None) -> str:
    """Which map to look at first, and by how much it leads."""
    if found is None:
        return "Which of these maps are true of this model was not measured: run the race on this picture."
    leader = found.leader()
    on = f"Measured on {found.images} test pictures of {found.data}"
    if leader is None:
        return f"{on}, no map beats every control by more than one measure: run the race on this picture."
    mean, low, high = map(number, (leader.lead.mean, leader.lead.low, leader.lead.high))
    lead = f"{mean} [{low}, {high}]"
    return (
        f"{on}, {METHODS[leader.name].label} leads: its score is {lead} above "
        f"that of “{found.bar}”, the best map that never saw the model. The maps stand in that order; "
        "the race measures them on this picture."
    )


def told(found: Record | None, name: str) -> str:
    """The measured verdict on one method."""
    each = found.of(name) if found else None
    if each is None:
        return ""
    good = each.verdict == BEST
    words = f"measured {number(each.lead.mean, '+.2f')}: {each.verdict}"
    return f'<span class="vx-verdict {"is-good" if good else "is-bad"}">{escape(words)}</span>'


def waiting(label: str, reason: str) -> str:
    """A method without a map, and why."""
    return (
        f'<figure class="vx-map is-off"><div>{escape(reason)}</div>'
        f"<figcaption><b>{escape(label)}</b></figcaption></figure>"
    )


def verdict(runner: Runner, ahead: Sequence[str]) -> str:
    """A score, and the measures by which the map is ahead of every control."""
    words = f"{number(runner.score, '+.2f')}, " + (
        f"ahead by {' and '.join(ahead)}" if ahead else "not ahead"
    )
    if METHODS[runner.name].judged_by:
        words += ", in part by its own operation"
    return f'<span class="vx-verdict {"is-good" if len(ahead) > 1 else "is-bad"}">{escape(words)}</span>'


# the race -------------------------------------------------------------------------------------------


def run_race(
    look: Look,
    target: int,
    slow: bool,
    progress: faithfulness.Progress,
    wanted: Callable[[], None] = lambda: None,
) -> list[Runner]:
    """The race of this picture, run once for all who ask. Raises TooLarge, and whatever `wanted` raises."""
    names = [name for name, m in METHODS.items() if not look.refusal(m) and (slow or look.is_quick(m))]
    of_maps = sum(look.passes(METHODS[name]) for name in names)
    look.check_work(of_maps + faithfulness.race_cost(PLAN, len(names), look.num_patches))
    trace = look.trace(target)
    shown = lambda name: look.map(METHODS[name], target, wanted)  # noqa: E731  # on the screen, too
    run = partial(
        faithfulness.race, look.model, trace, names, card=look.card, map_of=shown, progress=progress
    )
    return look.remember(("race", target, slow), run)


def maps_and_report(look: Look, target: int | None) -> tuple[str, str]:
    """The maps of this class, and how they fared in the race, if it was run; without a head, those that
    need no class."""
    if target is None:
        return maps_grid(look, -1), ""
    for slow in (True, False):
        if runners := look.remembered(("race", target, slow)):
            return maps_grid(look, target, runners), race_report(look, target, runners)
    return maps_grid(look, target), BEFORE


def race_report(look: Look, target: int, runners: list[Runner]) -> str:
    """Curves of the best three and the controls, and the table of all."""
    best = [runner for runner in runners if runner.name in METHODS][:3]
    shown = [*best, faithfulness.best_control(runners), *(r for r in runners if r.name == RANDOM)]

    def curves(kind: str) -> str:
        series = {}
        for runner in shown:
            modes = list(runner.curves.values())
            mean = torch.stack([getattr(curve, kind) for curve in modes]).mean(dim=0)
            series[name_of(runner)] = (modes[0].fractions.tolist(), mean.tolist())
        x = "patches hidden" if kind == "deletion" else "patches shown"
        y_range = None if look.card.scores == "none" else (0, 1)
        return lines(series, f"share of {x}", look.card.value_name, y_range=y_range)

    answer, value = class_name(look.card, target), look.card.value_name
    rows = [
        [
            name_of(runner),
            number(runner.score, "+.3f"),
            *(number(value, ".3f") for value in list(runner.figures().values())[1:]),
        ]
        for runner in runners
    ]
    columns = ["map", "score", *list(runners[0].figures())[1:]]
    return (
        race_shown(look, shown[:4])
        + '<div class="vx-row">'
        + panel(
            "Deletion: lower is better",
            curves("deletion"),
            "The map's highest patches are hidden first. A true map makes the "
            f"{value} of {answer} fall at once.",
        )
        + panel(
            "Insertion: higher is better",
            curves("insertion"),
            "The map's highest patches are shown first. A true map makes the "
            f"{value} of {answer} rise at once.",
        )
        + "</div>"
        + panel(
            "All figures",
            table(columns, rows, range(1, len(columns))),
            "Score: insertion minus deletion area, the mean of two ways to hide a patch (painted grey, or "
            "left out of the sequence); 0 in the long run for random orders. Sensitivity: does it say how "
            "much? The correlation with what the logit loses without random sets of patches. Where they "
            "disagree, believe neither alone.",
        )
    )


def race_shown(look: Look, runners: Sequence[Runner]) -> str:
    """The race as it went: squares vanish in each map's order, and what is left of the class is drawn."""
    filmed = [runner for runner in runners if runner.order is not None]
    y_range = (0.0, 1.0)
    if look.card.scores == "none":  # no shares: from the lowest that a lane comes to, to the highest
        values = torch.cat([next(iter(runner.curves.values())).deletion for runner in filmed])
        y_range = float(values.min()), float(values.max())
    figures = [lane(look, runner, y_range) for runner in filmed]
    hidden = HIDDEN[next(iter(filmed[0].curves))]
    words = (
        "Each picture loses its squares in its map's order, the most important first, while the curve shows "
        f"what is left of the class where they are {hidden}."
    )
    again = '<label class="vx-again"><input type="checkbox"> Once more</label>'
    return panel("The race", f'<div class="vx-race">{again}{grid(figures)}</div>', words)


def lane(look: Look, runner: Runner, y_range: tuple[float, float]) -> str:
    """One picture that loses its squares, and its curve, drawn from the lowest value to the highest of
    `y_range`; both begin together and take as long."""
    grid = Grid(tuple(runner.map.shape))
    (h, w), total = grid.space, grid.count
    assert runner.order is not None

    def square(at: int, patch: int) -> str:
        *time, row, column = grid.place(patch)  # a clip's frames stand side by side
        x = column + sum(time) * w
        return f'<rect x="{x}" y="{row}" width="1.02" height="1.02" style="--at:{at / total:.4f}"/>'

    squares = "".join(square(at, patch) for at, patch in enumerate(runner.order.tolist()))
    curve, (low, high) = next(iter(runner.curves.values())), y_range
    points = " ".join(
        f"{100 * x:.1f},{40 - 38 * (y - low) / max(high - low, 1e-9):.1f}"
        for x, y in zip(curve.fractions.tolist(), curve.deletion.tolist())
    )
    words = f"{name_of(runner)}: deletion area {number(curve.deletion_area)}"
    return (
        f'<figure class="vx-map"><div><img src="{escape(look.picture_address)}" alt="">'
        f'<svg class="vx-over vx-squares" viewBox="0 0 {w * grid.frames} {h}" preserveAspectRatio="none" '
        f'aria-hidden="true">{squares}</svg></div><svg class="vx-lane" viewBox="0 0 100 42" role="img" '
        f'aria-label="{escape(words)}"><polyline points="{points}"/></svg>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def name_of(runner: Runner) -> str:
    return METHODS[runner.name].label if runner.name in METHODS else runner.name


# the ledger -----------------------------------------------------------------------------------------


def ledger_of(look: Look, target: int) -> Ledger:
    return look.remember(("ledger", target), lambda: ledger(look.trace(exact=True), look.model, target))


def ablation_passes(look: Look) -> float:
    """Forward passes that it takes to switch off each head in turn, each from its own layer on."""
    return look.model.config.num_heads * from_every_layer(look.model.config.depth)


def ablation_key(target: int) -> tuple[str, int]:
    return "without heads", target


def run_ablation(look: Look, target: int, wanted: Callable[[], None] = lambda: None) -> torch.Tensor:
    """(L, H): what the logit loses without each head, computed once for all who ask. Raises TooLarge, and
    whatever `wanted` raises."""
    look.check_work(ablation_passes(look))
    exact, step = look.trace(exact=True), lambda done, total: wanted()
    return look.remember(ablation_key(target), lambda: without_heads(exact, look.model, target, step))


def ablation_panel(look: Look, target: int) -> str:
    """The total effect of each head, beside the ledger's direct one."""
    title = "What is lost without each head"
    count = ablation_passes(look)
    if count * look.cost.flops > looks.QUICK and look.remembered(ablation_key(target)) is None:
        return panel(
            title, note(f"Takes {count:.0f} forwards: tick “include slow methods” and run the race.")
        )
    lost = run_ablation(look, target).numpy()
    return panel(
        title,
        cells(lost, signed=True, unit=" logit") + scale(signed=True),
        "Each head switched off alone, and the rest of the model run again: red cells are missed. Direct "
        "effects add up; these do not, because later layers make up for some heads and build on others.",
    )


def ledger_report(look: Look, target: int) -> str:
    """The class's logit as a sum: by head, by patch, and its largest entries."""
    if why_not := look.refusal(METHODS["logit_ledger"]):
        lost = ablation_panel(look, target) if look.keeps_attention else ""  # else there is no race, either
        return note(why_not) + f'<div class="vx-row is-narrow">{lost}</div>' + totals_report(look, target)
    book = ledger_of(look, target)
    answer, heads = class_name(look.card, target), book.head_grid().numpy()
    columns = {"MLP": book.mlp.numpy()}
    entries = sorted(book.table(), key=lambda entry: -abs(float(entry["logit"] or 0)))[:TOP_ENTRIES]
    rows = [[entry_name(entry), number(float(entry["logit"] or 0), "+.3f")] for entry in entries]
    total = [
        ["heads", number(heads.sum(), "+.3f")],
        ["MLPs", number(book.mlp.sum(), "+.3f")],
        ["embedding", number(float(book.embed.sum()), "+.3f")],
        ["biases", number(book.bias, "+.3f")],
        ["sum", number(book.total, "+.3f")],
        [f"logit of {answer}", number(book.logit, "+.3f")],
    ]
    normed = look.model.config.final_norm or look.model.config.norm_after_pool
    frozen = ", with the final norm's scale frozen" if normed else ""
    by_patch = "The same sum by patch, through all heads"
    if look.model.config.pool == "mean":
        by_patch += ", and what each patch's embedding gave directly"
    from_prefix = float(book.heads[..., : book.num_prefix_tokens].sum())
    return (
        '<div class="vx-row is-narrow">'
        + panel(
            "What each head gave",
            cells(heads, signed=True, unit=" logit", extra=columns) + scale(signed=True),
            f"Blue cells argued against {answer}, red ones for it. The last column is the layer's "
            "MLP, which may exceed the scale. Choose a cell to see that head in the viewer.",
        )
        + ablation_panel(look, target)
        + panel(
            "Where it was carried from",
            picture_map(look.picture_address, book.map(), "", signed=True),
            f"{by_patch}. {number(from_prefix, '+.2f')} more came from "
            f"{', '.join(look.model.config.prefix_names)}, which the picture does not show."
            if book.num_prefix_tokens
            else f"{by_patch}.",
        )
        + panel(
            "It adds up",
            table(["part", "logit"], total, [1])
            + f'<details class="vx-more"><summary>The {TOP_ENTRIES} largest entries</summary>'
            + table(["entry", "logit"], rows, [1])
            + "</details>",
            f"Direct effects{frozen}. Gap: {number(book.gap, '.0e')}.",
        )
        + "</div>"
        + totals_report(look, target)
    )


def totals_report(look: Look, target: int) -> str:
    """The logit as another sum: what each token gave in all, by whatever way."""
    if look.refusal(METHODS["cp_lrp"]):
        return ""
    made = partial(total_effects, look.trace(exact=True), look.model, target)
    totals = look.remember(("totals", target), made)
    above = "" if look.refusal(METHODS["logit_ledger"]) else ", where the map above shows direct ones"
    prefix = float(totals.tokens[: totals.num_prefix_tokens].sum())
    rows = [
        ["patches", number(totals.map().sum(), "+.3f")],
        *(
            [[", ".join(look.model.config.prefix_names), number(prefix, "+.3f")]]
            if totals.num_prefix_tokens
            else []
        ),
        ["biases", number(totals.bias, "+.3f")],
        [f"logit of {class_name(look.card, target)}", number(totals.logit, "+.3f")],
    ]
    return (
        '<div class="vx-row is-narrow">'
        + panel(
            "What each patch gave in all",
            picture_map(look.picture_address, totals.map(), "", signed=True),
            f"By whatever way, through all heads and MLPs: total effects{above}.",
        )
        + panel(
            "It adds up, too",
            table(["part", "logit"], rows, [1]),
            "With every norm's scale, attention and the MLPs' gates held at what they were (CP-LRP). "
            f"Gap: {number(totals.gap, '.0e')}.",
        )
        + "</div>"
    )


def entry_name(entry: dict[str, Any]) -> str:
    if entry["part"] == "head":
        return f"L{entry['layer']}.H{entry['head']}"
    return f"MLP of L{entry['layer']}" if entry["part"] == "mlp" else str(entry["part"])


# why A and not B ------------------------------------------------------------------------------------


def contrast_report(look: Look, target: int | None, contrast: int | str | None) -> str:
    """The quick methods' maps of what speaks for one class and not for another, or for all others."""
    known = contrast == OTHERS or (
        isinstance(contrast, int) and 0 <= contrast < look.model.config.num_classes
    )
    if target is None or contrast is None or not known or contrast == target:
        return note("Choose what the class shall be told from: what speaks for both drops out of the maps.")
    look.check_cost(target)

    def make() -> Trace:
        with look.session.model_lock:
            return trace(look.model, look.image, target=target, contrast=contrast)

    traced = look.remember(("contrast", target, contrast), make)
    figures = []
    for name, method in METHODS.items():
        if method.class_specific and look.is_quick(method) and not look.refusal(method):
            values = look.remember(("map", name, target, contrast), partial(method, traced, model=look.model))
            caption = f"<b>{escape(method.label)}</b>"
            figures.append(picture_map(look.picture_address, values, caption, signed=method.signed))
    other = "any other class" if isinstance(contrast, str) else class_name(look.card, contrast)
    return note(f"Why {class_name(look.card, target)} and not {other}.") + grid(figures)


def others_of(look: Look, target: int) -> list[tuple[str, int | str]]:
    """What a class can be told from: all others, or one of them, the likeliest first."""
    order = look.trace().logits.argsort(descending=True).tolist()
    every = [("all the other classes", OTHERS)] * (len(order) > 1)
    return [*every, *((class_name(look.card, index), index) for index in order if index != target)]


# the page -------------------------------------------------------------------------------------------


def build(page: Page) -> None:
    words(__doc__)
    with gr.Row(elem_classes="vx-tools"):
        classes = gr.Dropdown([], label="Class to explain", elem_id="why-class", interactive=True, scale=2)
        slow = gr.Checkbox(
            label="include slow methods", value=False, elem_id="why-slow", container=False, scale=1
        )
        start = gr.Button("Run the race", variant="primary", elem_id="why-race", scale=1)
        stop = gr.Button("Stop the race", visible=False, elem_id="why-stop", scale=1)
    bar = gr.HTML("", elem_id="why-progress", apply_default_css=False)
    grid = gr.HTML("", elem_id="why-maps", apply_default_css=False, min_height=320)
    report = gr.HTML("", elem_id="why-report", apply_default_css=False, min_height=92)
    gr.HTML(
        '<h2 class="vx-h2">The ledger: what every head gave, adding up exactly</h2>', apply_default_css=False
    )
    book = gr.HTML("", elem_id="why-ledger", apply_default_css=False)

    with gr.Row(elem_classes="vx-tools"):
        apart = gr.Dropdown([], label="Why this class and not …", elem_id="why-apart", interactive=True)
    contrasted = gr.HTML("", elem_id="why-contrast", apply_default_css=False)

    def on_open_apart(shown, target, request: gr.Request):
        look = page.look(shown, request)
        chosen = look.valid_target(target)
        choices = [] if chosen is None else others_of(look, chosen)
        return gr.Dropdown(choices, value=None), contrast_report(look, chosen, None)

    def on_apart(shown, target, contrast, request: gr.Request):
        look = page.look(shown, request)
        return contrast_report(look, look.valid_target(target), contrast)

    def on_open(shown, target, request: gr.Request):
        look = page.look(shown, request)
        chosen = look.valid_target(target)
        if chosen is None:
            return gr.Dropdown([], value=None), *maps_and_report(look, None), note(NO_HEAD)
        order = look.trace().logits.argsort(descending=True).tolist()
        choices = [(class_name(look.card, index), index) for index in order]
        maps = maps_and_report(look, chosen)
        return gr.Dropdown(choices, value=chosen), *maps, ledger_report(look, chosen)

    def on_class(shown, target, edits, request: gr.Request):
        """The viewer and every tab hear of it, this one too: `on_open` shows what it means here."""
        look = page.look(shown, request)
        chosen = look.valid_target(target)
        state = {"target": -1 if chosen is None else chosen}
        return chosen, look.viewer_value(look.edits(*edits), state=state), news(look)

    def on_race(shown, target, slow, request: gr.Request, progress=gr.Progress()):  # noqa: B008  # Gradio's own way
        """Only run it: by then the visitor may look at something else."""
        look = page.look(shown, request)
        chosen = look.valid_target(target)
        if chosen is None:
            raise gr.Error(NO_HEAD, title="No race", print_exception=False)

        wanted = partial(page.wanted, look.owner, RACE)

        def step(done: int, total: int) -> None:
            wanted()
            progress((done, total), desc="Racing")

        try:
            wanted()
            run_race(look, chosen, bool(slow), step, wanted)
            if slow:
                run_ablation(look, chosen, wanted)
        except Left:
            gr.Info("The race was stopped.")

    def on_raced(shown, target, request: gr.Request):
        look = page.look(shown, request)
        chosen = look.valid_target(target)
        ledger = note(NO_HEAD) if chosen is None else ledger_report(look, chosen)
        return *maps_and_report(look, chosen), ledger

    page.when_open("why", on_open, [page.shown, page.target], [classes, grid, report, book])
    chosen = [page.shown, classes]
    told = [page.target, page.viewer, page.beacon]
    classes.input(on_class, [*chosen, page.edits], told, **LATEST, **QUIET, **MODEL_QUEUE)
    raced = page.with_stop(RACE, start, stop, bar, on_race, [*chosen, slow])
    raced.success(on_raced, [page.shown, page.target], [grid, report, book], **QUIET, **MODEL_QUEUE)
    page.when_open("why", on_open_apart, [page.shown, page.target], [apart, contrasted])
    apart.input(on_apart, [page.shown, page.target, apart], [contrasted], **LATEST, **QUIET, **MODEL_QUEUE)
