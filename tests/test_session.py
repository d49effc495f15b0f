"""The session: everything once, nothing forever, nobody's picture with somebody else's name."""

import io
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from conftest import NO_QUEUE, clip_config, kept, randomised, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer import look as looks
from explorer import serve
from explorer import session as sessions
from explorer.cache import EVERYONE, Cache, nbytes
from explorer.look import TRAINED, WHOLE, Look, TooLarge
from explorer.methods import METHODS
from explorer.refusals import Left
from explorer.session import Session
from vit import ViT, library, save, trace
from vit.card import Card, CheckpointError
from vit.checkpoint import save_snapshot
from vit.pretrained import describe
from vit.trace import ZeroHeads

CARD = Card("tiny", ("ant", "bee", "cat", "dog", "eel", "fox", "gnu"), image_size=(12, 20))


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    save(tmp_path / "tiny", randomised(ViT(tiny_config())), CARD)
    return str(tmp_path / "tiny")


@pytest.fixture
def session(checkpoint: str) -> Session:
    return Session(extra=(checkpoint,))


def picture_file(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def together(count: int, task: Callable[[int], object]) -> list:
    """Run task(0 ... count - 1) in as many threads, all let go at the same moment."""
    gate = threading.Barrier(count)

    def run(index: int) -> object:
        gate.wait()
        return task(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_a_picture_stands_still_for_a_model_of_clips(tmp_path: Path) -> None:
    save(tmp_path / "clips", randomised(ViT(clip_config())), replace(CARD, name="clips"))
    look = Session(extra=(str(tmp_path / "clips"),)).look(picture_file(tmp_path, 0), str(tmp_path / "clips"))
    assert look.image.shape == (8, 3, 12, 20) and torch.equal(look.image[7], look.image[0])
    assert look.trace().grid_size == (4, 3, 5)
    seen = Image.open(io.BytesIO(looks.make_picture(look)))
    assert seen.size == (4 * 20, 12)  # one frame of each time, side by side


def until_somebody_waits(cache: Cache) -> None:
    """For a value that another is making."""
    end = time.monotonic() + 20
    while not any(made._condition._waiters for made in [*cache._making.values()]):  # type: ignore[attr-defined]
        assert time.monotonic() < end, "nobody waits"
        time.sleep(0.001)


# ---- the cache -------------------------------------------------------------------------------------


def test_what_thirty_ask_for_at_once_is_made_once() -> None:
    made = []

    def make() -> object:
        made.append(1)
        time.sleep(0.05)
        return object()

    cache: Cache[object] = Cache(100, lambda value: 1)
    values = together(30, lambda i: cache.get("key", make))
    assert len(made) == 1 and len({id(value) for value in values}) == 1


def test_who_waited_for_a_value_holds_it_as_who_made_it_does() -> None:
    """Else it would go with the one who asked first, while the other looks at it."""
    cache: Cache[str] = Cache(100, len)
    begun, go_on = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        go_on.wait(10)
        return "made"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key", make, "ann")
        begun.wait(10)
        second = pool.submit(cache.get, "key", make, "bob")
        until_somebody_waits(cache)
        go_on.set()
        assert first.result(20) == second.result(20) == "made"
    assert cache.peek("key") == ("made", {"ann", "bob"})
    cache.release("ann")
    assert cache.peek("key") == ("made", {"bob"})
    cache.release("bob")
    assert cache.peek("key") is None


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache: Cache[int] = Cache(100, lambda value: 1)

    def fail() -> int:
        time.sleep(0.05)
        raise ValueError("no")

    def ask(index: int) -> str:
        with pytest.raises(ValueError, match="no"):
            cache.get("key", fail)
        return "told"

    assert together(8, ask) == ["told"] * 8
    assert cache.get("key", lambda: 7) == 7


def test_a_size_that_cannot_be_told_is_an_error_for_all_who_wait() -> None:
    def fail(value: object) -> int:
        raise OSError("gone")

    cache: Cache[int] = Cache(100, fail)

    def ask(index: int) -> str:
        with pytest.raises(OSError, match="gone"):
            cache.get("key", lambda: time.sleep(0.05) or 7)
        return "told"

    assert together(4, ask) == ["told"] * 4 and len(cache) == 0


def test_the_oldest_goes_first_and_the_bound_holds() -> None:
    dropped: list[str] = []
    cache: Cache[str] = Cache(10, len, dropped.append)
    for key in ("aaaa", "bbbb"):
        cache.get(key, lambda key=key: key)
    cache.get("aaaa", lambda: "never made")
    cache.get("cccc", lambda: "cccc")
    assert dropped == ["bbbb"] and cache.held == 8
    assert cache.get("x" * 11, lambda: "x" * 11) == "x" * 11, "too large to keep, but given"
    assert cache.held == 8 and dropped == ["bbbb", "x" * 11], "and nothing else goes for it"
    assert cache.peek("aaaa") is not None, "who is looked at stays"
    cache.get("dddd", lambda: "dddd")
    assert dropped[2:] == ["cccc"]


def test_who_holds_most_makes_room_under_however_many_names() -> None:
    """One visitor's thousand pins, or a new page for each of them, push out nobody else's pictures."""
    cache: Cache[str] = Cache(10, len, party=lambda owner: owner[0])
    for number in range(3):
        cache.get(("ann", number), lambda: "x", "ann")
    for number in range(30):
        cache.get(("bob", number), lambda: "x", f"b{number}")
    assert all(cache.peek(("ann", number)) for number in range(3)) and cache.held == 10
    assert [number for number in range(30) if cache.peek(("bob", number))] == list(range(23, 30))
    cache.get(("ann", 0), lambda: "x", "bob")  # now it is everybody's
    assert cache.held_by == {"a": 2, "b": 7, "": 1}
    cache.release("bob")
    assert cache.held_by == {"a": 3, "b": 7} and cache.held == 10


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("gpr"), st.integers(0, 6), st.sampled_from(["a1", "a2", "b1", ""])))
)
def test_what_is_held_is_what_lies_there(steps) -> None:
    """held_by against a count of the entries, after any order of get, put and release."""
    cache: Cache[str] = Cache(12, len, party=lambda owner: owner[:1])
    for what, key, owner in steps:
        if what == "r":
            cache.release(owner)
        else:
            (cache.get if what == "g" else lambda k, make, o: cache.put(k, make(), o))(
                key, lambda size=key: "x" * (size + 1), owner
            )
        entries = [(entry.owners, entry.size) for entry in cache._entries.values()]
        counted: Counter[str] = Counter()
        for owners, size in entries:
            parties = {owner[:1] for owner in owners}
            counted[parties.pop() if len(parties) == 1 else ""] += size
        assert cache.held_by == counted and cache.held <= 12


def test_many_pages_of_one_address_push_out_nobody_elses(session: Session, monkeypatch) -> None:
    monkeypatch.setattr(session, "pages", Cache(5, lambda page: 1))
    demo = SimpleNamespace(queue=lambda **options: None, _queue=SimpleNamespace(**NO_QUEUE))
    demo.state_holder = SimpleNamespace(session_data={}, time_last_used={})
    serve.open_queue(demo, session)
    for page, address in [("ann", "1.1.1.1"), *((f"bob{n}", "2.2.2.2") for n in range(20))]:
        demo.state_holder.session_data[page] = "what Gradio keeps of it"
        session.came_from(page, address)
    assert list(demo.state_holder.session_data) == ["ann", "bob16", "bob17", "bob18", "bob19"]
    session.release("bob17")
    demo.state_holder.session_data["who only left"] = "what Gradio keeps of it"
    session.release("who only left")
    assert list(demo.state_holder.session_data) == ["ann", "bob16", "bob17", "bob18", "bob19"]
    assert session.address_of("ann") == "1.1.1.1" and session.address_of("nobody") == "nobody"
    promised = [session.promise((page, n), bytes, owner=page) for page in ("ann", "bob19") for n in range(3)]
    monkeypatch.setattr(session.promises, "max_bytes", 6)
    session.promise("more", bytes, owner="bob18")
    kept_by = [session.promises.peek(address.rpartition("/")[2]) is not None for address in promised]
    assert kept_by == [True, True, True, False, True, True]


def test_who_leaves_takes_along_only_what_nobody_else_holds() -> None:
    cache: Cache[str] = Cache(100, len)
    cache.get("mine", lambda: "mine", "ann")
    cache.get("ours", lambda: "ours", "ann")
    cache.get("ours", lambda: "ours", "bob")
    cache.get("the house's", lambda: "the house's")
    cache.get("the house's", lambda: "", "ann")
    cache.release("ann")
    assert cache.peek("mine") is None
    assert cache.peek("ours") == ("ours", {"bob"})
    assert cache.peek("the house's") is not None
    cache.release("bob")
    assert len(cache) == 1 and cache.held == len("the house's")


def test_sizes_count_tensors_wherever_they_lie(session: Session, checkpoint: str, tmp_path: Path) -> None:
    look = session.look(picture_file(tmp_path, 0), checkpoint)
    found = look.trace()
    assert nbytes(found) >= found.attn.nbytes + found.tokens.nbytes
    assert nbytes({"a": [torch.zeros(10), np.zeros(5)]}) >= 40 + 40
    assert nbytes(look.model) >= 4 * sum(p.numel() for p in look.model.parameters())


# ---- traces ----------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list:
    """The arguments of every call of a function that a module uses."""
    calls: list = []
    original = getattr(module, name)

    def call(*args, **kwargs):
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return calls


def test_the_same_picture_asked_thirty_times_is_one_forward(
    session, checkpoint, tmp_path, monkeypatch
) -> None:
    forwards = counted(monkeypatch, looks, "trace")
    files = [tmp_path / f"copy{i}.png" for i in range(30)]
    content = picture_file(tmp_path, 1).read_bytes()
    for file in files:
        file.write_bytes(content)
    traces = together(30, lambda i: session.look(files[i], checkpoint, owner=f"visitor {i}").trace())
    assert len(forwards) == 1 and len({id(found) for found in traces}) == 1


def test_thirty_pictures_at_once_each_get_their_own_answer(session, checkpoint, tmp_path) -> None:
    files = [picture_file(tmp_path, seed) for seed in range(30)]
    looks = [session.look(file, checkpoint) for file in files]
    alone = [trace(look.model, look.image, target=i % 7) for i, look in enumerate(looks)]

    def ask(i: int) -> Look:
        return session.look(files[i], checkpoint, owner=str(i))

    found = together(30, lambda i: (ask(i).trace().logits, ask(i).trace(target=i % 7).attn_grad))
    for (logits, gradient), expected in zip(found, alone):
        assert torch.equal(logits, expected.logits)
        assert torch.equal(gradient, expected.attn_grad)


def test_memory_stays_within_its_bound_over_many_pictures(checkpoint: str, tmp_path: Path) -> None:
    session = Session(extra=(checkpoint,), result_bytes=200_000)
    for seed in range(40):
        session.look(picture_file(tmp_path, seed), checkpoint).trace()
        assert session.results.held <= 200_000
    assert len(session.results) < 80


def test_edits_and_classes_do_not_share_a_trace(session: Session, checkpoint: str, tmp_path: Path) -> None:
    look = session.look(picture_file(tmp_path, 2), checkpoint)
    plain, edited = look.trace(), look.trace(edits=(ZeroHeads(((0, 1),)),))
    assert not torch.equal(plain.logits, edited.logits)
    assert look.trace(edits=(ZeroHeads(((0, 1),)),)) is edited
    assert look.trace(target=1).attn_grad is not None and look.trace().attn_grad is None


def test_too_much_attention_is_made_layer_by_layer(session, checkpoint, tmp_path, monkeypatch) -> None:
    look = session.look(picture_file(tmp_path, 3), checkpoint)
    whole = look.trace().attn
    monkeypatch.setattr(looks, "ATTENTION_LIMIT", 1000)
    session.results.release(EVERYONE)
    assert look.trace().attn.numel() == 0
    for layer in range(3):
        torch.testing.assert_close(look.attention(layer), whole[layer])
    with pytest.raises(TooLarge, match=r"GiB of attention at once: .* a model with fewer tokens"):
        look.trace(target=0)


def test_a_pass_that_is_too_large_is_never_begun(session, checkpoint, tmp_path, monkeypatch) -> None:
    forwards = counted(monkeypatch, looks, "trace")
    file = picture_file(tmp_path, 3)
    look = session.look(file, checkpoint)
    layer, flops = 3 * look.cost.layer_bytes, look.cost.flops
    for limit in ((layer - 1, flops), (layer, flops - 1)):
        monkeypatch.setattr(looks, "PASS_LIMIT", limit)
        with pytest.raises(TooLarge, match="choose a smaller size or a model with fewer tokens"):
            look.trace()
        with pytest.raises(TooLarge):
            look.attention(0)
    assert not forwards
    monkeypatch.setattr(looks, "PASS_LIMIT", (layer, flops))
    look.trace()
    assert all(a < b for a, b in zip(looks.PUBLIC_PASS_LIMIT, (8 * 2**30, 20e12)))
    monkeypatch.setattr(looks, "PUBLIC_PASS_LIMIT", (layer - 1, flops))
    with pytest.raises(TooLarge):
        Session(public=True, extra=(checkpoint,)).look(file, checkpoint).trace()


def test_the_largest_trace_with_gradients_is_kept_beside_the_one_without() -> None:
    def attention(limits: int) -> torch.Tensor:
        return torch.empty(1).expand(limits * looks.ATTENTION_LIMIT // 4)  # counts, and takes no memory

    results = Session().results
    results.get("trace", lambda: attention(1))
    results.get("with gradients", lambda: attention(2))
    assert len(results) == 2


@pytest.mark.parametrize(("size", "shown"), [(TRAINED, 0.5), (WHOLE, 1.0)])
def test_the_whole_picture_is_the_whole_picture(tmp_path: Path, size: str, shown: float) -> None:
    """A ramp from black to white: its ends are cut off with crop_pct, and there where it is whole."""
    save(tmp_path / "m", randomised(ViT(tiny_config())), replace(CARD, crop_pct=0.5, interpolation="nearest"))
    ramp = np.linspace(0, 255, 200).astype(np.uint8)[None, :, None]
    Image.fromarray(np.tile(ramp, (120, 1, 3))).save(tmp_path / "ramp.png")
    session = Session(extra=(str(tmp_path / "m"),))
    image = session.look(tmp_path / "ramp.png", str(tmp_path / "m"), size=size).image
    assert float(image.max() - image.min()) / 2 == pytest.approx(shown, abs=0.06)


def test_bf16_is_near_and_gradients_and_maps_are_exact(session, checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(looks, "BF16_FROM", 0)
    monkeypatch.setattr(looks, "native_bf16", lambda device: True)
    look = session.look(picture_file(tmp_path, 4), checkpoint)
    quick, exact = look.trace(), look.trace(exact=True)
    assert not torch.equal(quick.logits, exact.logits)
    torch.testing.assert_close(quick.attn, exact.attn, atol=0.02, rtol=0.05)
    assert torch.equal(look.trace(target=2).logits, exact.logits)
    attention = METHODS["attention"]
    assert torch.equal(look.map(attention, None), attention(exact, model=look.model))


# ---- models ----------------------------------------------------------------------------------------


def test_a_model_is_never_loaded_twice_at_once(session, checkpoint, monkeypatch) -> None:
    loads = counted(monkeypatch, sessions, "load")
    models = together(16, lambda i: session.model(checkpoint).model)
    assert len(loads) == 1 and len({id(model) for model in models}) == 1


def test_models_are_bounded(tmp_path: Path) -> None:
    names = [str(tmp_path / f"m{i}") for i in range(4)]
    for name in names:
        save(name, randomised(ViT(tiny_config())), CARD)
    one = nbytes(ViT(tiny_config()))
    session = Session(extra=tuple(names), model_bytes=2 * one + 10)
    for name in names:
        session.model(name)
    assert len(session.models) == 2


def test_two_models_too_large_for_the_cache_are_each_read_once(tmp_path: Path, monkeypatch) -> None:
    """As Compare asks them, in turn."""
    names = [str(tmp_path / f"m{i}") for i in range(2)]
    for name in names:
        save(name, randomised(ViT(tiny_config())), CARD)
    session = Session(extra=tuple(names), model_bytes=1000)
    loads = counted(monkeypatch, sessions, "load")
    looks = [session.look(picture_file(tmp_path, 1), name) for name in names]
    for look in 2 * looks:
        look.trace()
        look.viewer_value()
    assert len(loads) == 2


def test_a_model_that_reads_no_colours_is_one_sentence(tmp_path) -> None:
    save(tmp_path / "grey", ViT(tiny_config(in_chans=1)), CARD)
    with pytest.raises(CheckpointError, match="reads 1 channels: pictures here have 3"):
        Session().model(str(tmp_path / "grey"))


def test_a_checkpoint_that_is_written_again_is_read_again(session, checkpoint, tmp_path) -> None:
    file = picture_file(tmp_path, 5)
    before = session.look(file, checkpoint)
    old = before.trace().logits
    save(checkpoint, randomised(ViT(tiny_config())), CARD)
    os.utime(Path(checkpoint) / "model.safetensors", ns=(1, 1))  # whatever the clock's resolution
    assert not torch.equal(session.look(file, checkpoint).trace().logits, old)
    session.results.release(EVERYONE)
    assert torch.equal(before.trace().logits, old), "while they are held, the old picture has the old weights"
    session.models.release(EVERYONE)
    with pytest.raises(CheckpointError, match="written again"):
        _ = before.model  # never the old picture with the new weights


def test_snapshots_are_models_of_their_own(session, checkpoint, tmp_path) -> None:
    model = randomised(ViT(tiny_config()))
    save_snapshot(checkpoint, model, CARD, 30, {"accuracy": 0.5})
    assert [shot.step for shot in session.snapshots(checkpoint)] == [30]
    file = picture_file(tmp_path, 6)
    then, now = session.look(file, checkpoint, 30).trace(), session.look(file, checkpoint).trace()
    assert not torch.equal(then.logits, now.logits)
    with pytest.raises(CheckpointError, match="no snapshot of step 31"):
        session.look(file, checkpoint, 31)


def test_a_look_at_a_moment_opens_no_later_snapshot(session, checkpoint, tmp_path, monkeypatch) -> None:
    """Earlier ones it may: a snapshot is kept as what changed since the one before."""
    for step in (10, 20, 30):
        save_snapshot(checkpoint, randomised(ViT(tiny_config())), CARD, step, {})
    monkeypatch.setattr(sessions, "list_snapshots", None)
    # one is told by the moment before it, and by none that comes later
    (Path(checkpoint) / "snapshots" / "step_0000020.safetensors").write_bytes(b"broken")
    file = picture_file(tmp_path, 6)
    assert session.look(file, checkpoint, 10).trace().logits.shape == (7,)


# ---- strangers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc",
        "../checkpoints",
        "checkpoints/tiny",
        "a/b/c",
        "./tiny",
        "~/x/y",
        "x",
        "",
        "a/..",
        "https://x/y",
        "a\\b/c",
    ],
)
def test_strangers_name_no_folders(checkpoint: str, tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "tiny").mkdir(parents=True)
    session = Session(public=True, extra=(checkpoint,))
    with pytest.raises(CheckpointError, match="not a model on offer"):
        session.model(name)
    assert session.model(checkpoint).card == CARD, "the owner's own stays on offer"


def test_strangers_fetch_few_and_small_hub_models(checkpoint: str, monkeypatch) -> None:
    bounds = []

    def fetch(name: str, max_bytes: int, cache: Path, token: bool) -> Path:
        assert token is False, "the owner's token is not lent"
        bounds.append(max_bytes)
        place = cache / f"models--{name.replace('/', '--')}"
        (place / "blobs").mkdir(parents=True, exist_ok=True)
        if "huge" in name:
            raise CheckpointError(f"{name} needs more than allowed: choose a smaller model.")
        return place

    def read_pretrained(folder: Path, name: str, max_bytes: int) -> tuple[ViT, Card]:
        bounds.append(max_bytes)
        if "broken" in name:
            raise CheckpointError(f"{name} has no tensor 'head': choose another model.")
        return ViT(tiny_config()), CARD

    monkeypatch.setattr(sessions, "fetch", fetch)
    monkeypatch.setattr(sessions, "read_pretrained", read_pretrained)
    session = Session(public=True, extra=(checkpoint,), hub_models=2, hub_bytes=1000)
    for number in range(5):
        with pytest.raises(CheckpointError, match="smaller model"):
            session.model(f"someone/huge-{number}")
    session.model("someone/small-1")
    assert session.is_here("someone/small-1") and [p.name for p in session.lent.iterdir()] == [
        "models--someone--small-1"
    ]
    session.models.release(EVERYONE)
    session.model("hf-hub:someone/small-1")  # the same one
    session.model("hf-hub:someone/small-2")
    with pytest.raises(CheckpointError, match="choose from the list"):
        session.model("someone/small-3")
    session.model("someone/small-1")
    assert set(bounds) == {1000}
    now = time.monotonic()
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now + sessions.DAY)
    session.model("someone/small-3")  # the next day, others
    assert [p.name for p in session.lent.iterdir()] == ["models--someone--small-3"], "no disk fills up"
    assert not session.is_here("someone/small-1") and session.is_here("someone/small-3")
    with pytest.raises(CheckpointError, match="another model"):
        session.model("someone/broken")
    with pytest.raises(CheckpointError, match="choose from the list"):
        session.model("someone/small-4")  # what was fetched is counted, of use or not
    assert not [place for place in session.lent.iterdir() if "broken" in place.name]
    session.forget_fetched()
    assert session.is_here("someone/small-3"), "it came today"
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now + 2 * sessions.DAY + 1)
    session.forget_fetched()
    assert not [*session.lent.iterdir()] and not session.is_here("someone/small-3"), "though nobody asks"


def test_only_what_the_owner_offers_is_fetched_with_the_owners_rights(monkeypatch) -> None:
    tokens = {}
    monkeypatch.setattr(sessions, "fetch", lambda name, most, token: tokens.update({name: token}))
    monkeypatch.setattr(sessions, "read_pretrained", lambda folder, name, most: None)
    session, published = Session(public=True, extra=("me/private",)), next(iter(sessions.PUBLISHED))
    for name in ("me/private", published):
        session.load(name)
    assert tokens == {"me/private": None, published: False}
    own = Session(extra=("me/private",))
    own.load("me/other")
    assert tokens.pop("me/other") is None
    own.load("me/other")
    assert "me/other" not in tokens, "it is here: nobody waits for the Hub again"
    own.remove_files("me/other")
    own.load("me/other")
    assert "me/other" in tokens


def test_what_others_wait_for_is_made_though_its_first_visitor_leaves(session, checkpoint, tmp_path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made = []

    def make(owner: str) -> str:
        begun.set()
        go_on.wait(10)
        session.still_wanted(owner)
        made.append(owner)
        return "made"

    def ask(index: int) -> object:
        owner = ("leaves", "stays")[index]
        if index:
            begun.wait(10)
        try:
            return session.remember("key", lambda: make(owner), owner)
        except Left:
            return "left"

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, index) for index in (0, 1)]
        begun.wait(10)
        until_somebody_waits(session.results)
        session.release("leaves")
        go_on.set()
        assert [answer.result(20) for answer in answers] == ["left", "made"] and made == ["stays"]


def test_a_bundled_checkpoint_that_is_broken_is_left_out_and_named(tmp_path, monkeypatch) -> None:
    for name in ("good", "cut", "empty"):
        save(tmp_path / name, randomised(ViT(tiny_config())), CARD)
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    (tmp_path / "empty" / "config.json").unlink()
    for module in (sessions, library):
        monkeypatch.setattr(module, "BUNDLED", tmp_path)
    monkeypatch.setattr(sessions, "list_checkpoints", lambda: library.list_checkpoints(tmp_path))
    session = Session()
    session.open_bundled()
    assert session.names() == ["good"] and set(session.broken) == {"cut", "empty"}
    assert all(str(tmp_path) not in words and words.endswith(".") for words in session.broken.values())


def test_a_full_disk_leaves_nothing_behind_and_all_is_well_when_there_is_room(
    checkpoint, monkeypatch
) -> None:
    session = Session(extra=(checkpoint,))
    name = session.promise("key", lambda: b"x").rpartition("/")[2]
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        real(path, b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        kept(session, name)
    assert not list(session.folder.iterdir())
    monkeypatch.setattr(Path, "write_bytes", real)
    assert kept(session, name) == b"x"


@pytest.mark.parametrize("public", [True, False])
def test_a_look_that_is_there_reads_nothing_but_its_picture(checkpoint, tmp_path, public: bool) -> None:
    """A stranger's request cost 2,000 reads of config files once: a name was looked up in all of them."""
    session, file = Session(public=public, extra=(checkpoint,)), picture_file(tmp_path, 1)
    session.look(file, checkpoint).maps_value(
        "rollout", 0, ()
    )  # what is imported when first used is read, too
    read: list[str] = []
    sys.addaudithook(lambda event, args: read.append(str(args[0])) if event == "open" and listening else None)
    listening = True
    look = session.look(file, checkpoint, owner="ann")
    for method in METHODS.values():
        look.refusal(method)
    look.maps_value("rollout", 0, look.edits([1], []))
    _ = look.cost, look.card, look.keeps_attention, look.addresses(), look.picture_address
    listening = False
    assert read == [str(file)]


@pytest.mark.parametrize("public", [True, False])
def test_a_name_too_long_for_a_path_is_one_sentence(public: bool) -> None:
    session, name = Session(public=public), "a" * 300
    assert not session.is_here(name)
    with pytest.raises(CheckpointError):
        session.model(name)


# ---- files for browsers ----------------------------------------------------------------------------


def test_addresses_cannot_be_guessed_and_unknown_ones_lead_nowhere(session: Session, checkpoint: str) -> None:
    other = Session(extra=(checkpoint,))
    address = session.promise("key", lambda: b"one")
    assert address != other.promise("key", lambda: b"one"), "names depend on this process's secret"
    assert kept(session, address.rpartition("/")[2]) == b"one"
    for name in ("0" * 64 + ".bin", "../../etc/passwd", "", ".", address):
        assert kept(session, name) is None


def test_a_file_larger_than_all_room_is_given_and_not_kept(checkpoint: str) -> None:
    session = Session(extra=(checkpoint,), shard_bytes=10)
    name = session.promise("key", lambda: b"x" * 11).rpartition("/")[2]
    assert [kept(session, name) for _ in range(2)] == [b"x" * 11] * 2
    assert not list(session.folder.iterdir())


def test_files_are_bounded_and_made_again_when_asked_for(checkpoint: str) -> None:
    session = Session(extra=(checkpoint,), shard_bytes=2500)
    names = [session.promise(i, lambda i=i: bytes([i]) * 1000).rpartition("/")[2] for i in range(5)]
    for i in (0, 1, 2, 3, 4, 0):
        assert kept(session, names[i]) == bytes([i]) * 1000
        files = list(session.folder.iterdir())
        assert sum(file.stat().st_size for file in files) <= 2500, files


def test_a_late_removal_of_an_old_file_spares_the_new_one(checkpoint: str) -> None:
    session = Session(extra=(checkpoint,), shard_bytes=1000)
    one, two = (session.promise(i, lambda: b"x" * 900).rpartition("/")[2] for i in range(2))
    late: list[Path] = []
    session.shards.dropped = late.append
    for name in (one, two, one):  # each drives the other out
        kept(session, name)
    for path in late:
        path.unlink()
    assert kept(session, one) == b"x" * 900 and len(late) == 2


def test_a_closed_tab_frees_what_it_held(session: Session, checkpoint: str, tmp_path: Path) -> None:
    look = session.look(picture_file(tmp_path, 7), checkpoint, owner="tab")
    held = session.results.held
    look.trace()
    kept(session, look.address("x", lambda: b"x" * 100).rpartition("/")[2])
    assert session.results.held > held and list(session.folder.iterdir())
    session.release("tab")
    assert session.results.held == held and not list(session.folder.iterdir())
    assert len(session.promises) == 0


def test_what_is_made_too_late_goes_however_many_leave_meanwhile(
    session: Session, checkpoint: str, tmp_path: Path
) -> None:
    for name in ("leaves", "comes back"):
        session.stopped[name] = {"race"}
        session.remember(name, lambda name=name: session.release(name) or "made", name)
        assert session.remembered(name) == "made"
    for number in range(sessions.MAX_GONE):
        session.release(str(number))
    session.look(picture_file(tmp_path, 7), checkpoint, owner="comes back")
    assert session.remembered("leaves") is None
    assert not session.late and not session.stopped and len(session.gone) <= sessions.MAX_GONE


def test_no_two_passes_run_at_once(checkpoint: str, tmp_path: Path, monkeypatch) -> None:
    session, locked, real = Session(extra=(checkpoint,)), [], looks.trace

    def watched(*args, **options):
        locked.append(session.model_lock.locked())
        return real(*args, **options)

    monkeypatch.setattr(looks, "trace", watched)
    session.look(picture_file(tmp_path, 1), checkpoint).trace()
    assert locked == [True]


def test_the_picker_shows_published_models_by_family_and_each_loads_or_would() -> None:
    """Size, licence and what to look at; the names of timm are such as the installed timm knows."""
    families = [model.family for model in library.PUBLISHED]
    assert [*dict.fromkeys(families)] == [name for name, _ in groupby(families)] and families[0] == "DINOv3"
    for model in library.PUBLISHED:
        title = sessions.PUBLISHED[model.name]
        for said in (model.label, f"{model.megabytes} MB", model.licence, model.look_at):
            assert said in title
        owner, _, name = model.name.partition("/")
        if owner == "timm":
            describe({"architecture": name.partition(".")[0]})
            assert timm.models.get_pretrained_cfg(name).hf_hub_id == model.name
