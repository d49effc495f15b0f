"""The app without a browser: handlers called as functions, then over HTTP as any client may."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from gradio_client import Client, handle_file
from PIL import Image

import app
from explorer import ui
from explorer.maps import METHODS
from explorer.payload import unpack
from explorer.session import SIZES, TRAINED, Look, Session
from explorer.views import compare, explore, heads, inside, take_home, training, why
from vit import ViT, save
from vit.checkpoint import Card, CheckpointError, save_snapshot

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = '<img src=x onerror="alert(1)">'
NAMES = (HOSTILE, "bee", "${Object.assign(window,{pwn:1})}", "dog", "{{value}}", "fox", "gnu")

# every kind of model that a view must stand
KINDS = {
    "cls": {},
    "registers": {"num_registers": 2},
    "mean": {"pool": "mean", "class_token": False},
    "headless": {"num_classes": 0},
    "post_norm": {"post_norm": True},
    "deit": {"distillation": True},
}


def make_checkpoint(folder: Path, **changes) -> str:
    config = tiny_config(**changes)
    model = randomised(ViT(config))
    card = Card(name=folder.name, class_names=NAMES if config.num_classes else (), accuracy=0.5)
    save(folder, model, card)
    for step in (1, 10, 100):
        save_snapshot(
            folder, randomised(model, 0.01), card, step, {"accuracy": step / 200, "epoch": step / 50}
        )
    (folder / "history.csv").write_text(
        "step,epoch,loss,accuracy\n1,0.02,2,0.1\n10,0.2,1.5,0.3\n100,2,1,0.5\n"
    )
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(folder / kind, **changes) for kind, changes in KINDS.items()}


@pytest.fixture(scope="module")
def session(checkpoints: dict[str, str]) -> Session:
    return Session(extra=tuple(checkpoints.values()))


def picture_bytes(seed: int, size: tuple[int, int] = (40, 24)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(picture_bytes(0))
    return path


@pytest.fixture(params=KINDS)
def look(request, session: Session, checkpoints: dict[str, str], picture: Path) -> Look:
    return session.look(picture, checkpoints[request.param])


# ---- every view stands every kind of model -----------------------------------------------------------


def served(look: Look, address: str) -> bytes:
    content = look.session.keep_promise(address.rpartition("/")[2])
    assert content is not None
    return content


class Attributes(HTMLParser):
    """The names of all attributes, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__()
        self.seen: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {name for name, _ in attrs}


def has_no_code(html: str) -> None:
    """Names from outside are text: nothing of them became an element or an attribute."""
    assert HOSTILE not in html
    assert not [name for name in Attributes(html).seen if name.startswith("on")]


def target_of(look: Look) -> int | None:
    return explore.valid_target(look, None)


def test_the_viewer_is_given_the_trace_of_this_picture(look: Look) -> None:
    value = json.loads(json.dumps(explore.viewer_value(look)))
    arrays, meta = unpack(served(look, value["head"]))
    assert (meta["num_layers"], meta["num_heads"], tuple(meta["grid_size"])) == (3, 4, (3, 5))
    assert len(value["layers"]) == 3
    for layer, address in enumerate(value["layers"]):
        arrays, _ = unpack(served(look, address))
        shown = arrays["attn"].astype(float) / 255
        assert shown.shape == tuple(look.trace().attn[layer].shape)


def test_every_map_that_is_offered_arrives_and_every_other_says_why(look: Look) -> None:
    for name, method in METHODS.items():
        value = explore.maps_value(look, name, target_of(look), ())
        if explore.refusal(look, method):
            assert "maps" not in value and value["progress"].endswith(".")
            continue
        arrays, _ = unpack(served(look, value["maps"][0]))
        np.testing.assert_allclose(arrays[name], explore.map_of(look, method, target_of(look)).numpy())
    refused = [m.name for m in METHODS.values() if explore.refusal(look, m)]
    assert set(refused) >= {
        m.name for m in METHODS.values() if m.class_specific and not look.model.config.num_classes
    }


SIGNATURES = {
    "png": b"\x89PNG", "svg": b"<?xml", "npz": b"PK", "gif": b"GIF8", "mp4": b"", "csv": b"", "html": b"<!",
}  # fmt: skip


def test_every_file_to_take_home_arrives_in_its_format(look: Look) -> None:
    html = take_home.links(look, target_of(look), {"query": 3, "layer": 1, "head": 2})
    has_no_code(html)
    links = re.findall(r'href="([^"]+)" download="([^"]+)"', html)
    assert len(links) >= 15 and ("ledger.csv" in dict(links).values()) == (
        bool(look.model.config.num_classes) and not look.model.config.post_norm
    )
    for address, name in links:
        content = served(look, address)
        assert content.lstrip().startswith(SIGNATURES[name.rpartition(".")[2]]) and len(content) > 100, name


def test_the_file_of_a_head_is_the_head_that_was_pinned(look: Look) -> None:
    html = take_home.links(look, None, {"query": 3, "layer": 1, "head": 2})
    address = re.search(r'href="([^"]+)" download="head.npz"', html)
    assert address
    with np.load(io.BytesIO(served(look, address[1]))) as arrays:
        row = look.trace(exact=True).attn[1, 2, 3, look.model.config.num_prefix_tokens :]
        np.testing.assert_allclose(arrays["attention"].ravel(), row.numpy(), atol=1e-6)


def test_what_a_browser_pins_is_taken_only_as_far_as_the_model_has_it(look: Look) -> None:
    assert take_home.pinned(look, {"query": 10**6, "layer": -1, "head": 4}) == (None, 2, None)


def test_the_self_check_is_green(look: Look) -> None:
    strip = explore.check_strip(look)
    assert "vx-good" in strip and "vx-bad" not in strip


def test_the_why_page_stands_every_model(look: Look) -> None:
    target = target_of(look)
    grid = why.maps_grid(look, -1 if target is None else target)
    assert grid.count("<figure") == len(METHODS)
    if target is None:
        assert "no classification head" in grid
        return
    done: list[tuple[int, int]] = []
    runners = why.run_race(look, target, True, lambda *args: done.append(args))
    report = why.race_report(look, target, runners)
    assert done and done[-1][0] == done[-1][1]
    assert "centre prior" in report and "beats the centre" in why.maps_grid(look, target, runners)
    book = why.ledger_report(look, target)
    assert ("It adds up" in book) == (not look.model.config.post_norm)
    has_no_code(grid + report + book)


def test_the_heads_page_stands_every_model(look: Look) -> None:
    board = heads.report(look, target_of(look))
    L, H = look.trace().attn.shape[:2]
    assert board.count('class="vx-dot"') % (L * H) == 0 and "Attention distance" in board
    assert ("Logit lens" in board) == bool(look.model.config.num_classes)
    has_no_code(board)


def test_the_inside_page_tells_the_true_numbers(look: Look) -> None:
    told = inside.story(look, 2, 4, 1, 3)
    token = look.trace().num_prefix_tokens + 14
    attn = look.trace().attn[1, 3, token]
    assert f"{100 * float(attn.max()):.2f} %" in told
    first = f"{float(look.trace().tokens[2, token, 0]):+.3f}"
    assert f"x2 = [{first}" in told
    if look.model.config.num_classes:
        assert f"{float(look.trace().logits.max()):+.3f}" in told
    has_no_code(told)


def test_the_block_shown_inside_is_the_block_of_the_trace(look: Look) -> None:
    tensors = inside.block_tensors(look, 2)
    torch.testing.assert_close(tensors["attn"], look.trace().attn[2])
    torch.testing.assert_close(tensors["resid_post"], look.trace().tokens[3])


def test_the_timeline_has_every_snapshot(look: Look) -> None:
    value = training.timeline_value(look, look.name)
    assert [moment["step"] for moment in value["moments"]] == [1, 10, 100]
    _, meta = unpack(served(look, value["moments"][0]["head"]))
    assert meta["num_layers"] == 3
    assert value["charts"].count('data-step="10"') == 2, "accuracy and loss, linked"
    assert "step 100 · epoch 2 · accuracy 50.0 %" in value["moments"][2]["words"]


@pytest.mark.parametrize("size", SIZES)
def test_other_sizes_and_shapes_are_looked_at(session, checkpoints, tmp_path, size: str) -> None:
    tall = tmp_path / "tall.png"
    tall.write_bytes(picture_bytes(3, (30, 90)))
    look = session.look(tall, checkpoints["registers"], size=size)
    h, w = look.trace().grid_size
    assert (h > w) == ("whole" in size), "the picture's own shape"
    assert (h * w > 40) == ("twice" in size)
    board = heads.report(look, 0) + why.maps_grid(look, 0) + inside.story(look, h - 1, w - 1, 0, 0)
    _, meta = unpack(served(look, explore.viewer_value(look)["head"]))
    assert meta["grid_size"] == [h, w] and f"patch ({h - 1}, {w - 1})" in board
    assert len(training.timeline_value(look, look.name)["moments"]) == 3


def test_two_moments_can_be_compared(look: Look) -> None:
    offered = [step for _, step in compare.moments(look)]
    assert offered == [compare.LAST, 100, 10, 1]
    has_no_code(compare.answer(look))


def test_interventions_are_what_was_asked_as_far_as_the_model_has_it(look: Look) -> None:
    assert explore.edits_of(look, [], []) == ()
    nonsense = explore.edits_of(look, [-1, 99, "x", None], [[9, 9], [0], "xx", [0, -1], None])
    assert nonsense == ()
    edits = explore.edits_of(look, [3, 3, 1], [[0, 1], [2, 3]])
    assert edits[0].patches == (1, 3) and edits[1].heads == ((0, 1), (2, 3))
    value = explore.viewer_value(look, edits)
    _, before = unpack(served(look, value["head"]))
    _, after = unpack(served(look, value["after"]["head"]))
    if look.model.config.num_classes:
        assert before["classes"] != after["classes"]
    with pytest.raises(gr.Error, match="at least one patch"):
        explore.edits_of(look, list(range(15)), [])


# ---- the page's own handlers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(session: Session) -> gr.Blocks:
    return ui.build(session)


def handler(demo: gr.Blocks, name: str):
    """A handler by its function's name."""
    return next(fn.fn for fn in demo.fns.values() if getattr(fn.fn, "__name__", "") == name)


def visitor(query: dict[str, str] | None = None, name: str = "ann") -> SimpleNamespace:
    return SimpleNamespace(session_hash=name, query_params=query or {})


def test_a_picture_is_there_without_a_click(demo: gr.Blocks, session: Session) -> None:
    picture, model, _, viewer, card, thumbs, target, *_, beacon = handler(demo, "on_load")(visitor())
    assert Path(picture).exists() and model == session.names()[0]
    assert viewer["head"].startswith("shard/") and target is None
    assert "4 heads" in card and thumbs.count("data-example") >= 5 and beacon["example"] in thumbs


def test_the_address_restores_model_and_example(demo: gr.Blocks, checkpoints: dict[str, str]) -> None:
    query = {"model": checkpoints["mean"], "example": "tower"}
    picture, model, *_, beacon = handler(demo, "on_load")(visitor(query))
    assert Path(picture).stem == "tower" and model == checkpoints["mean"]
    assert beacon["model"] == model and beacon["example"] == "tower"


@pytest.mark.parametrize(
    "query", [{"model": "no/such"}, {"model": "/etc"}, {"example": "../../etc"}, {"model": "\0"}]
)
def test_a_bad_address_shows_the_default_and_says_so(demo, session, monkeypatch, query) -> None:
    told: list[str] = []
    monkeypatch.setattr(ui.gr, "Warning", lambda text, **_: told.append(text))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, model, *_ = handler(demo, "on_load")(visitor(query))
    assert model == session.names()[0]
    assert len(told) == ("model" in query)


def test_a_class_can_be_chosen_and_nonsense_means_the_answer(demo, session, checkpoints, picture) -> None:
    choose = handler(demo, "on_target")
    name = checkpoints["cls"]
    answer = int(session.look(picture, name).trace().logits.argmax())
    for asked, expected in [(2, 2), (99, answer), (-1, answer), ("x", answer), (None, answer)]:
        target, _ = choose(str(picture), name, TRAINED, SimpleNamespace(target=asked), visitor())
        assert target == expected
    assert (
        choose(str(picture), checkpoints["headless"], TRAINED, SimpleNamespace(target=1), visitor())[0]
        is None
    )


BROKEN = {
    "text.png": b"hello",
    "empty.png": b"",
    "cut.png": picture_bytes(1)[:200],
    "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_picture_is_one_sentence_without_paths(demo, checkpoints, tmp_path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(gr.Error) as error:
        handler(demo, "on_show")(str(path), checkpoints["cls"], TRAINED, visitor())
    text = str(error.value.message)
    assert text.endswith(".") and "/" not in text and "\n" not in text


@pytest.mark.parametrize("model", ["", "no such model", "/etc/passwd", "weights.pt"])
def test_a_bad_model_is_one_sentence(demo, picture, monkeypatch, model: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(gr.Error) as error:
        handler(demo, "on_show")(str(picture), model, TRAINED, visitor())
    assert "\n" not in str(error.value.message) and len(str(error.value.message)) < 300


def test_a_lost_picture_or_none_is_one_sentence(demo, checkpoints) -> None:
    with pytest.raises(gr.Error, match="picture"):
        handler(demo, "on_show")("/nowhere/x.png", checkpoints["cls"], TRAINED, visitor())
    kept = handler(demo, "on_show")(None, checkpoints["cls"], TRAINED, visitor())
    assert all(value == gr.skip() for value in kept), "taking the picture away loses nothing"


def test_a_closed_tab_frees_what_only_it_held(demo, session, checkpoints, tmp_path) -> None:
    files = []
    for seed in (11, 12):
        files.append(tmp_path / f"{seed}.png")
        files[-1].write_bytes(picture_bytes(seed))
    handler(demo, "on_show")(str(files[0]), checkpoints["cls"], TRAINED, visitor(name="leaving"))
    handler(demo, "on_show")(str(files[1]), checkpoints["cls"], TRAINED, visitor(name="staying"))
    held = session.results.held
    handler(demo, "on_close")(visitor(name="leaving"))
    assert session.results.held < held
    owners = {owner for entry in session.results._entries.values() for owner in entry.owners}
    assert "leaving" not in owners and "staying" in owners


def test_strangers_are_not_offered_folders(checkpoints: dict[str, str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "secret" / "snapshots").mkdir(parents=True)
    public = Session(public=True, extra=(checkpoints["cls"],))
    assert training.runs(public) == [] and training.runs(Session(extra=(checkpoints["cls"],))) == [
        "runs/secret"
    ]
    with pytest.raises(CheckpointError):
        public.snapshots("runs/secret")


# ---- over HTTP -------------------------------------------------------------------------------------------


def test_pictures_of_a_data_set_that_is_here_are_the_first_examples(tmp_path, monkeypatch) -> None:
    (tmp_path / "imagenette" / "train").mkdir(parents=True)
    for folder, seed in (("n01440764", 1), ("n02102040", 2), ("n03028079", 3)):
        (tmp_path / "imagenette" / "val" / folder).mkdir(parents=True)
        (tmp_path / "imagenette" / "val" / folder / "a.png").write_bytes(picture_bytes(seed))
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    examples = ui.make_examples(tmp_path / "examples")
    assert [e.name for e in ui.suited(examples, "imagenette")][:3] == [
        "imagenette-tench",
        "imagenette-church",
        "lion",
    ]
    assert ui.suited(examples, "")[0].name == "lion", "a model of other data gets photographs first"
    assert ui.suited(examples, "shapes")[0].data == "shapes"


def test_two_clients_each_get_their_own_picture(url: str, checkpoints, tmp_path) -> None:
    clients = [Client(url, verbose=False) for _ in range(2)]
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for seed, file in enumerate(files):
        file.write_bytes(picture_bytes(20 + seed))
    jobs = [
        client.submit(handle_file(file), checkpoints["cls"], api_name="/look")
        for client, file in zip(clients, files)
    ]
    heads = []
    for job, file in zip(jobs, files):
        viewer = job.result(timeout=30)[0]
        message = httpx.get(url + viewer["head"]).content
        arrays, _ = unpack(message)
        pixels = np.asarray(Image.open(io.BytesIO(arrays["image"].tobytes())).convert("RGB"), int)
        mine = np.asarray(Image.open(file).resize((20, 12), Image.Resampling.BICUBIC), int)
        assert np.abs(pixels - mine).mean() < 12, "the picture in the answer is the picture that was sent"
        heads.append(viewer["head"])
    assert heads[0] != heads[1]


@pytest.mark.parametrize(
    "path",
    [
        "shard/" + "0" * 64 + ".bin",
        "shard/..%2F..%2Fapp.py",
        "gradio_api/file=app.py",
        "gradio_api/file=/etc/passwd",
    ],
)
def test_nothing_else_can_be_fetched(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code in (403, 404)


def test_a_large_upload_is_refused(url: str) -> None:
    files = {"files": ("big.png", b"x" * (11 * 2**20))}
    assert httpx.post(url + "gradio_api/upload", files=files).status_code == 413


def test_the_page_names_no_other_host(url: str) -> None:
    page = httpx.get(url).text + httpx.get(url + "theme.css").text
    assert not re.findall(r"(?:src|href)=[\"']https?://(?!127\.0\.0\.1)[^\"']*\.(?:js|css|woff2?)", page)
    assert "fonts.googleapis" not in page


# ---- the command line ------------------------------------------------------------------------------------


def test_help_teaches_and_is_quick() -> None:
    told = subprocess.run(
        [sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert told.returncode == 0
    for word in ("--host", "--port", "--share", "--public", "--checkpoint", "--open", "examples:"):
        assert word in told.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "public"),
    [
        ([], {}, False),
        (["--host", "127.0.0.1"], {}, False),
        (["--host", "0.0.0.0"], {}, True),
        (["--share"], {}, True),
        ([], {"SPACE_ID": "me/space"}, True),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}, True),
        (["--host", "0.0.0.0", "--no-public"], {}, False),
        (["--public"], {}, True),
    ],
)
def test_who_can_reach_the_page_decides_what_it_offers(monkeypatch, arguments, environment, public) -> None:
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert app.is_public(app.parse(arguments)) is public


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "x"], ["--checkpoint"], ["--nonsense"]])
def test_a_wrong_option_is_one_sentence(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        app.parse(arguments)
    assert stop.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_wrong_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"app\.py: "):
        app.main(["--checkpoint", str(tmp_path)])
