"""What every view is handed: the components that all share, and how to turn their values into a `Look`."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from explorer.cache import EVERYONE
from explorer.classes import Classes
from explorer.examples import Example
from explorer.look import SIZES, TRAINED, Look
from explorer.patience import with_patience
from explorer.refusals import Left, sentence_of
from explorer.session import Session, digest_of
from vit.clips import is_clip
from vit.hub import is_id

LOG = logging.getLogger(__name__)

# Of a lane's places one address has at most half (`explorer.turns`): one at a time, unless there are others.
# a pass gets all cores, and the next one waits
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2}
# what takes seconds runs beside it, and lets it go first
SLOW_QUEUE: dict[str, Any] = {"concurrency_id": "slow", "concurrency_limit": 2}
# a file is decoded before it is looked at: no look waits for another visitor's
FILE_QUEUE: dict[str, Any] = {"concurrency_id": "file", "concurrency_limit": 4}
# what an address names is said at once, whatever it takes to show it
ADDRESS_QUEUE: dict[str, Any] = {"concurrency_id": "address", "concurrency_limit": 4}
# a download holds up only other downloads; it waits for the network, not for a core
HUB_QUEUE: dict[str, Any] = {"concurrency_id": "hub", "concurrency_limit": 4}
# an event that says something: none may be skipped while another is being answered; of `LATEST`, Gradio says
# what the first one said once more
EACH: dict[str, Any] = {"trigger_mode": "multiple"}
# one that says only that something has changed: after the answer, what is chosen by then is asked for
LATEST: dict[str, Any] = {"trigger_mode": "always_last"}
# an event of the page's own: no spinner, not on the API page; callable by anyone, so it checks its inputs
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# what stands in a box, or was pointed at, is only heard, at once: by the time that it can be done, there may
# be something else. What cannot be done is said then: of what is not queued, Gradio shows no error
HEARD: dict[str, Any] = {"queue": False, **EACH, **QUIET}

NOT_FROM_HERE = "This is not what the page sends."


class Shown(NamedTuple):
    """What the viewer shows, as its visitor chose it."""

    picture: str  # a file
    model: str
    size: str = TRAINED  # one of SIZES
    frame: int = 0  # of a clip, where the model looks at pictures
    classes: Classes | None = None  # the visitor's own, of this model


class Edits(NamedTuple):
    """Interventions as a browser named them: `Look.edits` takes what this model has of them."""

    patches: Any = ()
    heads: Any = ()
    frozen: Any = -1  # the frame of a clip that all others are replaced by


@contextmanager
def kindly() -> Iterator[None]:
    """What went wrong becomes one sentence for the visitor; what is on the screen stays there."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise told(error) from error


def told(error: Exception) -> gr.Error:
    """What a visitor is told of an error. A fault of the program is in its log."""
    if isinstance(error, gr.Error):
        return error
    title, sentence = "That did not work", sentence_of(error)
    if isinstance(error, Left):
        return gr.Error("Stopped.", visible=False, print_exception=False)
    if sentence is None:
        LOG.error("A handler failed.", exc_info=error)
        sentence = "This failed in the program itself: try something else, and tell who runs this page."
    return gr.Error(in_toast(sentence), title=title, print_exception=False)


@dataclass
class Failed:
    """What was chosen last and could not be had. A choice may come twice, by two events of the page: its
    reason is said once."""

    one_choice: float = 1.0  # seconds: what comes within them is the same choice
    choice: tuple[Any, ...] = ()
    at: float = 0.0  # when it failed, or went from the widgets

    def is_said(self, *choice: Any) -> bool:
        return self.choice == choice and time.monotonic() < self.at + self.one_choice

    @contextmanager
    def noting(self, *choice: Any) -> Iterator[None]:
        """Note the choice if it cannot be had: an event that fails has no answer, so it is written here."""
        try:
            yield
        except Exception as error:
            if self.is_said(*choice):
                raise Left from error
            self.choice, self.at = choice, time.monotonic()
            raise

    def goes(self, *choice: Any) -> bool:
        """Whether this choice, which stands in the widgets, is the one that failed, and goes from them."""
        is_it = self.choice == choice
        if is_it:
            self.at = time.monotonic()
        return is_it


def as_sent(component: Any, read: Callable[[Any], Any] = lambda sent: sent and sent.path) -> None:
    """Take this component's value from what the page sends with `read`, not in Gradio's own way: that opens
    every picture, say, and drops what it cannot read without a word."""
    component.preprocess = component.as_sent = read


def guard(demo: gr.Blocks) -> None:
    """No handler answers without a word, whatever it is sent: anyone may call any of them with anything."""
    for function in demo.fns.values():
        if callable(function.fn):
            function.fn = guarded(function.fn)
    preprocess = demo.preprocess_data

    async def checked(function: Any, inputs: Any, state: Any, *more: Any, **options: Any) -> Any:
        """What no component can read does not come from the page, and is nothing for the log."""
        for component in function.inputs if state is not None else ():
            if hasattr(component, "as_sent") and component._id in state:
                state[component._id].preprocess = component.as_sent  # a copy, made at its first update
        try:
            return await preprocess(function, inputs, state, *more, **options)
        except gr.Error as error:  # a component's own sentence
            error.print_exception = False
            raise
        except Exception as error:
            gone = sentence_of(error) if isinstance(error, OSError) else None
            raise gr.Error(gone or NOT_FROM_HERE, print_exception=False) from error

    demo.preprocess_data = checked  # type: ignore[method-assign, assignment]


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def run(*values: Any) -> Any:
        for value in values:
            if isinstance(value, gr.EventData) and not isinstance(value._data, dict):
                raise gr.Error(NOT_FROM_HERE, print_exception=False)
        with kindly():
            return with_patience(handler, *values)

    return run


def in_toast(text: Any) -> str:
    """Toasts are HTML: what a visitor or a file wrote must not become an element."""
    return escape(str(text), quote=False)


def owner_of(request: gr.Request | None) -> str:
    """Whose page asks: what is made for it goes when it is closed."""
    return (request.session_hash if request is not None else None) or EVERYONE


def as_text(value: Any) -> str:
    """What a box of text holds; "" for what is none, which only a program sends."""
    return value.strip() if isinstance(value, str) else ""


@dataclass
class Page:
    """The shared components. `beacon` hears of every new picture, model or class, and then asks the tab
    that is open to show it: an event per tab, so that no view works for a tab that nobody looks at."""

    session: Session
    picture: gr.Image
    model: gr.Dropdown
    size: gr.Dropdown  # one of SIZES
    shown: gr.State  # `Shown`: what was chosen last that could be shown; None: nothing yet
    target: gr.State  # the class to explain; None: the model's answer
    edits: gr.State  # `Edits`
    picked: gr.State  # {query, layer, head, fuse} that was last pinned
    viewer: gr.HTML
    beacon: gr.HTML
    examples: Mapping[str, Example]  # by name, as in the address
    classes_chosen: gr.State  # the key of a visitor's own classes: changes when `shown` has got others
    failed: gr.State  # `Failed`, of picture, model and size
    on_its_way: set[tuple[str, str]] = field(default_factory=set)  # (visitor, model) that is being fetched

    @property
    def chosen(self) -> list[Any]:
        """Picture, model and size as the widgets have them: perhaps still on their way."""
        return [self.picture, self.model, self.size]

    @property
    def asked(self) -> list[Any]:
        """What is chosen, and what is known of it: all that showing it takes."""
        return [*self.chosen, self.shown, self.target, self.edits, self.failed]

    def name_of(self, model: Any) -> str:
        """The model's one name: checked first, for a stranger must not learn which folders there are."""
        if not isinstance(model, str):
            raise gr.Error("Choose a model first.", title="No model", print_exception=False)
        with kindly():
            return self.session.allowed(model)

    def fetch(self, model: Any, request: gr.Request) -> None:
        """See to it that this model is here. A handler of HUB_QUEUE, where it may take minutes."""
        name = self.name_of(model)
        asked = owner_of(request), name
        if asked in self.on_its_way:  # a choice from a list is said twice
            return
        self.on_its_way.add(asked)
        try:
            if self.say_if_fetched(name):
                with kindly():
                    self.session.fetch(name)
        finally:
            self.on_its_way.discard(asked)

    def fetched(self, box: gr.Dropdown, back: Callable[[Any], Any]) -> tuple[Any, Any]:
        """(the event after which a model that this box names is here, the one after which one that cannot be
        had has gone from it). back: of what is shown, what the box holds then. Who waits for a download may
        choose another model meanwhile."""
        failed = gr.State(Failed())

        def on_model(model, failed, request: gr.Request):
            if failed.is_said(model):  # a choice from a list is said twice: it is not fetched twice
                raise Left
            with failed.noting(model):
                if as_text(model):
                    self.fetch(model, request)

        def on_failed(model, failed, shown):
            return back(shown) if failed.goes(model) else gr.skip()

        here = box.input(on_model, [box, failed], None, **EACH, **QUIET, **HUB_QUEUE)
        gone = here.failure(on_failed, [box, failed, self.shown], [box], queue=False, **QUIET)
        return here, gone

    def say_if_fetched(self, name: str) -> bool:
        """Tell the visitor if this model is not here yet."""
        if self.session.is_here(name):
            return False
        if is_id(name):  # else a sentence says what it is not
            gr.Info(f"Fetching {in_toast(name)} from the Hugging Face Hub: the first time takes a while.")
        return True

    def look(self, shown: Shown | None, request: gr.Request | None, step: int | None = None) -> Look:
        """The picture in front of the model, at this size, or one sentence about why not."""
        if not shown or not shown.picture:
            left_alone = "Choose a picture first, or once more if this page was left alone for long."
            raise gr.Error(left_alone, title="No picture", print_exception=False)
        name = self.name_of(shown.model)
        if not self.session.is_here(name):
            raise gr.Error(
                f"{in_toast(name[:200])} is not here yet: choose it as the model, and it is fetched.",
                title="No model",
                print_exception=False,
            )
        if self.is_unread(shown.picture):
            left = "This picture or clip is not kept any more: choose it once more."
            raise gr.Error(left, title="No picture", print_exception=False)
        size = shown.size if shown.size in SIZES else TRAINED
        with kindly():
            own = shown.classes if step is None else None  # they are of the model as it is
            return self.session.look(shown.picture, name, step, owner_of(request), size, shown.frame, own)

    def is_unread(self, file: Any) -> bool:
        """Must a stranger's file be decoded before it can be looked at? That is for FILE_QUEUE alone."""
        return self.session.public and isinstance(file, str) and not self.session.is_decoded(file)

    def on_file(self, file: Any, request: gr.Request) -> None:
        """In FILE_QUEUE, in front of what looks at a file: it is decoded here."""
        if isinstance(file, str):
            with kindly():
                decode = self.session.clip if is_clip(file) else self.session.pixels
                decode(file, digest_of(file), owner_of(request))

    def when_open(
        self,
        tab: str,
        fn: Callable,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        linked: tuple[Sequence[Any], str] | None = None,
        **options: Any,
    ) -> None:
        """Run fn when something new is to be shown and this tab is open, or when it is opened.

        linked: widgets, and a script that fills them from the address before. What fn returns comes later: in
        what a visitor chooses, it would undo a choice made meanwhile.
        """
        event = getattr(self.beacon, tab)  # the beacon's events are named after the tabs
        if linked:
            widgets, script = linked
            event = event(None, list(widgets), list(widgets), js=script, **EACH, **QUIET).success
        asked = event(fn, list(inputs), list(outputs), **LATEST, **QUIET, **MODEL_QUEUE, **options)
        # opened again, it asks again
        asked.failure(None, None, None, js=f"() => window.vitPage.forget('{tab}')")

    def wanted(self, owner: str, task: str) -> None:
        """Between the steps of `with_stop`: raises Left where nobody waits for it, or who asked said Stop."""
        self.session.still_wanted(owner)
        if task in self.session.stopped.get(owner, ()):
            raise Left

    def with_stop(
        self, task: str, start: gr.Button, stop: gr.Button, bar: gr.HTML, run: Callable, inputs: list
    ) -> Any:
        """Work that one button starts, with its progress on `bar`, and that another stops: what runs ends
        after its next step, what only waits when its turn comes. task: its name; other work goes on. Returns
        the event after which it ended."""

        def on_start(request: gr.Request):
            self.session.stopped.get(owner_of(request), set()).discard(task)
            return gr.Button(visible=False), gr.Button(visible=True)

        def on_stop(request: gr.Request):
            self.session.stopped.setdefault(owner_of(request), set()).add(task)

        def on_end():
            return gr.Button(visible=True), gr.Button(visible=False)

        begun = start.click(on_start, None, [start, stop], queue=False, **QUIET)
        stop.click(on_stop, None, None, queue=False, **QUIET)
        private = {"show_progress_on": [bar], "api_visibility": "private"}
        ran = begun.then(run, inputs, None, **private, **LATEST, **SLOW_QUEUE)
        ran.then(on_end, None, [start, stop], queue=False, **QUIET)
        return ran


def news(look: Look) -> dict[str, str]:
    """For the beacon: something else is to be shown of this look."""
    return {"model": look.name, "stamp": secrets.token_hex(4)}


def at_frame(shown: Shown | None, event: gr.EventData) -> Shown | None:
    """What is shown, at the frame of a clip that the browser named."""
    frame = getattr(event, "frame", None)
    return shown._replace(frame=frame) if shown and isinstance(frame, int) and frame >= 0 else shown


def target_said(event: gr.EventData) -> Any:
    """The class that the browser named. `event.target` is the component that was pointed at, not this."""
    return event._data.get("target") if isinstance(event._data, dict) else None
