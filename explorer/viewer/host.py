"""The viewer as a Gradio component: `attention_viewer(elem_id=...) -> gr.HTML`.

Its value is small JSON: addresses, never tensors. All keys but `head` and `layers` are optional.

    {
      "head": url,                  the bytes of payload.head_payload
      "layers": [url, ...],         payload.layer_payload of every layer, fetched when first wanted
      "embeddings": url,            payload.embeddings_payload, fetched when first wanted
      "maps": [url, ...],           payload.maps_payload: class-specific maps, as they come
      "after": {"head": url, ..., "edits": {"patches", "heads", "frozen"}},   the same image after an edit,
                                    shown beside the first; edits: this one, named as in viewer.edits
      "state": {"layer": 3, ...},   what to show: a patch of the viewer's state, `START` in js/state.js
      "timeline": [{"head", "layers", "embeddings", "exact", "words"}, ...],   the addresses of every frame
                                    of a clip that a model of pictures looks at; "head" is that of one of them
      "follow": url,                payload.follow_payload of these frames
      "progress": "text",           what is being worked on
      "refused": {method: "text"},  why this method's map does not come
      "nonce": any                  gr.HTML drops a value equal to the last one: change this to be heard
    }

A url may be relative to the page, so that it survives a proxy: "gradio_api/file=/folder/name.bin".
The viewer keeps its state (query, layer, head, settings) when another `head` arrives; a value with the same
`head` and other `maps` or `after` only adds to what is shown.

Events, each with its payload as attributes of `gr.EventData`. Layers, heads and tokens count from 0; tokens
count prefix tokens first, then patches.

    viewer.pick       {query, layer, head, fuse, direction, mode}   something was pinned or chosen
    viewer.target     {target}                                      a class was clicked: explain this one
    viewer.need_maps  {method, target, query, layer, head, frame}   a map that is not there yet is wanted
    viewer.edits      {patches: [patch index, ...], heads: [[layer, head], ...], frozen: frame or -1, frame}
                      all empty: undo all
    viewer.frame      {frame}                                       another frame of a clip is shown

Other parts of the page may point, too: the element `.vit-viewer` has the handle of `mount` (js/mount.js) as
its `.viewer` (set, setSource, ...) and hears the DOM event "vit-pick" (detail: a patch of its state): go
there, as if it had been clicked. It says "vit-hosted" when it is there (detail: what receives values, for a
page that has the first one sooner than Gradio), "vit-seen" when there is something to see, and "vit-loaded"
when all layers of it have come: the time for whatever may wait until the picture is there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from explorer.viewer.script import FOLDER

# What a page has in its head, once for all its viewers: these styles, and `viewer_script()`.
STYLES = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("viewer.css", "pair.css"))
# Scope given by Gradio: element, trigger, props, watch.  The quoted names are the component's events.
WIRING = """
const events = ["pick", "target", "need_maps", "edits", "frame"];
const viewer = ViTViewer.host(element.querySelector(".vit-viewer"), {
  ...props.options,
  emit: (name, payload) => events.includes(name) && trigger(name, payload),
});
viewer.receive(props.value);
watch("value", () => viewer.receive(props.value));
element.dispatchEvent(new CustomEvent("vit-hosted", { detail: viewer, bubbles: true }));
"""


def attention_viewer(
    value: dict[str, Any] | None = None,
    *,
    elem_id: str | None = None,
    name: str = "Viewer of a Vision Transformer",
    methods: Sequence[Mapping[str, Any]] | None = None,
    link: str | None = None,
    address: bool = True,
    modes: tuple[str, ...] = ("attention", "rollout", "method", "embeddings"),
    intervene: bool = True,
    predictions: bool = True,
    picture_height: int | None = None,
    lead: bool = True,
    tries: Sequence[Mapping[str, Any]] = (),
    lesson: Mapping[str, str] | None = None,
    asks: str = "",
    state: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> gr.HTML:
    """A viewer to put into `gr.Blocks`; return a new value (see above) to show another trace.

    name: what a screen reader calls it.
    methods: what the Methods view offers, [{"name", "label", "about", "depends"}, ...]; depends: which of
    target, query, layer, head a map belongs to (["target"] if not given; say the same in `maps_payload`).
    link: viewers on one page with the same link share query, layer, head and settings. address: keep the
    state in the address bar (one viewer per page). predictions: list the classes, always or only after an
    intervention. picture_height: the most that the image takes, in pixels (it follows the window if not
    given). lead: the viewer is what its page is about: it begins with the sentence of what the model says,
    offers things to try and, on a phone, tabs under the picture. tries: more of them, [{"label", ...}];
    lesson: where the phone's third tab leads; both are told as the DOM event "vit-try". asks: what
    to do where a model has no answer, the end of a sentence. state: what it starts with. The template is
    static: user text in a `gr.HTML` template would be executed.

    Its page has `STYLES` and `viewer_script()` in its head, once.
    """
    options = {
        "name": name,
        "methods": methods or [],
        "link": link,
        "address": address,
        "modes": list(modes),
        "intervene": intervene,
        "predictions": predictions,
        "picture_height": picture_height,
        "lead": lead,
        "tries": list(tries),
        "lesson": lesson,
        "asks": asks,
        "state": dict(state or {}),
    }
    return gr.HTML(
        value=value,
        elem_id=elem_id,
        html_template='<div class="vit-viewer"></div>',
        js_on_load=WIRING,
        apply_default_css=False,
        options=options,
        **kwargs,
    )


PAIR_WIRING = """
const pair = ViTViewer.mountPair(element.querySelector(".vit-pair"));
pair.receive(props.value);
watch("value", () => pair.receive(props.value));
"""


def pair_viewer(elem_id: str) -> gr.HTML:
    """Two pictures and what is like what in them. Its value: {"head": url, "depths": [url, ...]}, the bytes
    of `pairs.pair_payload`, and of `pair_depth_payload` of each depth; with a "nonce", to be heard.

    Its page has in its head what `attention_viewer` needs."""
    return gr.HTML(
        None,
        elem_id=elem_id,
        html_template='<div class="vit-viewer vit-pair"></div>',
        js_on_load=PAIR_WIRING,
        apply_default_css=False,
    )
