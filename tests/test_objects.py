"""explorer/objects.py: where maps land, against textbook statistics and places that are known."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image
from scipy.stats import mannwhitneyu
from torch import Tensor

from explorer import objects
from explorer.cli import commands as cli
from explorer.maps import attention
from vit import Card, ViT, save, trace

h, w = 3, 5


def random_pictures(count: int) -> list[tuple[Tensor, Tensor]]:
    masks = (torch.rand(count, h, w) < 0.4).float()
    return [(torch.randn(3, 4 * h, 4 * w), m.repeat_interleave(4, 0).repeat_interleave(4, 1)) for m in masks]


def test_auc_is_the_rank_statistic() -> None:
    maps = torch.randn(2, 3, 40).mul(3).round()  # with ties
    on = torch.rand(40) < 0.3
    found = objects.auc(maps, on)
    for index in np.ndindex(2, 3):
        values = maps[index].double().numpy()
        u = mannwhitneyu(values[on], values[~on]).statistic
        assert abs(float(found[index]) - u / (on.sum() * (~on).sum()).item()) < 1e-12
    assert objects.auc(torch.zeros(40), on) == 0.5
    assert objects.auc(on.float(), on) == 1 and objects.auc(-on.float(), on) == 0
    assert objects.auc(torch.zeros(40), torch.ones(40, dtype=torch.bool)).isnan()


def test_pointing_and_gain() -> None:
    covered = torch.tensor([0.0, 0.5, 1.0, 0.0])
    assert objects.pointing(torch.tensor([0.0, 3.0, 1.0, 2.0]), covered) == 1
    assert objects.pointing(torch.tensor([9.0, 3.0, 1.0, 2.0]), covered) == 0
    assert objects.pointing(torch.ones(4), covered) == 0.5  # any of them might have been taken
    assert objects.gain(torch.ones(4), covered) == 1
    assert objects.gain(torch.tensor([0.0, 0.0, 2.0, -7.0]), covered) == 1 / 0.375
    assert objects.gain(torch.tensor([0.0, -1.0, -1.0, 0.0]), covered) == 1


@pytest.mark.parametrize("family", [{}, dict(num_registers=2), dict(pool="mean", class_token=False)])
def test_head_maps_are_the_attention_that_the_page_shows(family: dict) -> None:
    model = randomised(ViT(tiny_config(**family)))
    images = torch.randn(2, 3, 12, 20)
    maps = objects.head_maps(model, images)
    assert maps.shape == (2, 3, 4, h, w)
    for at, image in enumerate(images):
        seen = trace(model, image)
        for layer, head in ((0, 1), (2, 3)):
            one = attention(seen, layer=layer, head=head, model=model)
            assert (maps[at, layer, head] - one).abs().max() < 1e-6


def test_the_best_head_is_chosen_on_the_other_half_of_the_pictures() -> None:
    values = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]).view(4, 1, 2)
    found = objects.best_of_halves({"auc": values, "gain": -values})
    assert found["auc"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])  # its luck there is no luck here
    assert found["gain"].tolist() == pytest.approx([-0.1, -0.2, -0.3, -0.4])
    assert objects.best_of_halves({"auc": values[:1]})["auc"] == 0.9


def test_every_figure_of_a_table_is_that_of_single_pictures() -> None:
    model = randomised(ViT(tiny_config()))
    pictures = random_pictures(5)
    pictures.append((pictures[0][0], torch.ones(4 * h, 4 * w)))  # nothing beside the object
    state = torch.get_rng_state()
    found = objects.measure(model, pictures, ["rollout", "relevance"], batch=2)
    assert (torch.get_rng_state() == state).all()
    assert (found.pictures, found.left_out) == (5, 1)
    names = [row.name for row in found.rows]
    layers = [f"L{i}, mean of heads" for i in range(3)]
    assert names == [
        "best head",
        *layers,
        "centre prior",
        "Attention rollout",
        "Class relevance",
        "untrained: best head",
    ]
    for at, (image, mask) in enumerate(pictures[:5]):
        covered = objects.coverage(mask, (h, w)).flatten()
        one = attention(trace(model, image), layer=1, head=2, model=model).flatten()
        assert abs(found.heads["auc"][at, 1, 2] - objects.auc(one, covered >= 0.5)) < 1e-6
        assert abs(found.heads["gain"][at, 1, 2] - objects.gain(one, covered)) < 1e-4
    records = {record["map"]: record for record in found.records()}
    assert len(records) == len(names) + 12 and len({tuple(record) for record in records.values()}) == 1
    learned = (found.heads["auc"] - found.untrained)[:, 1, 2].mean()
    assert records["L1.H2"]["beyond untrained"] == pytest.approx(float(learned), abs=1e-6)
    assert records["centre prior"]["beyond untrained low"] == ""
    assert (
        abs(found.rows[0].beyond_centre.mean - (found.rows[0].figures["auc"].mean - found.centre.mean()))
        < 1e-9
    )
    assert found.rows[names.index("centre prior")].beyond_centre.mean == 0
    assert "| best head |" in found.markdown()
    with pytest.raises(ValueError, match="nothing to measure"):
        objects.measure(model, pictures[5:])


def test_weights_that_learned_nothing_are_the_same_every_time() -> None:
    """Those of a ViT that is made right after the seed, whatever was drawn before."""
    model, pictures = randomised(ViT(tiny_config())), random_pictures(3)
    first = objects.measure(model, pictures).untrained
    torch.manual_seed(7)
    assert torch.equal(first, objects.measure(model, pictures).untrained)
    assert not torch.allclose(first, objects.measure(model, pictures, seed=1).untrained)
    torch.manual_seed(0)
    bare = ViT(model.config).eval()
    for found, (image, mask) in zip(first, pictures):
        maps = objects.head_maps(bare, image[None])[0].flatten(-2)
        on = objects.coverage(mask, (h, w)).flatten() >= 0.5
        torch.testing.assert_close(found, objects.auc(maps, on))


def test_a_box_is_where_it_says(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    head = "path,x0,y0,x1,y1,width,height\n"
    table.write_text(f"{head}a.png,4,0,12,4,20,12\na.png,16,8,20,12,20,12\n")
    mask = objects.read_boxes(table)["a.png"].mask()
    covered = objects.coverage(objects.on_object(mask, (12, 20)), (h, w))
    expected = torch.zeros(h, w)
    expected[0, 1:3] = expected[2, 4] = 1
    assert (covered - expected).abs().max() < 1e-6
    for box, pixel in (("10.2,3,10.4,4.3", [3, 10]), ("19.7,11.6,20,12", [11, 19])):
        table.write_text(f"{head}a.png,{box},20,12\n")
        assert np.argwhere(np.asarray(objects.read_boxes(table)["a.png"].mask())[..., 0]).tolist() == [pixel]
    for row, message in (
        ("a.png,4,0,2,4,20,12", "line 2: the box"),
        ("a.png,4,,2,4,20,12", "line 2: a number"),
    ):
        table.write_text(f"{head}{row}\n")
        with pytest.raises(ValueError, match=message):
            objects.read_boxes(table)
    for text, message in ((head, "holds no box"), ("path,x0\n", "needs the columns path,x0,y0")):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            objects.read_boxes(table)


def test_the_command_measures_with_boxes_and_with_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    save("tiny", randomised(ViT(tiny_config())), Card("tiny", ("a", "b", "c", "d", "e", "f", "g")))
    rng = np.random.default_rng(0)
    for folder in ("photos/x", "masks/x"):
        Path(folder).mkdir(parents=True)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(f"photos/x/{name}.png")
        mask = np.zeros((12, 20), np.uint8)
        mask[0:4, 4:12] = 255
        Image.fromarray(mask).save(f"masks/x/{name}.png")
    rows = "".join(f"x/{name}.png,4,0,12,4,20,12\n" for name in "abc")
    Path("boxes.csv").write_text(f"path,x0,y0,x1,y1,width,height\n{rows}")

    def run(*words: str) -> int:
        return cli.main(["objects", "--model", "tiny", *words])

    assert run("--data", "photos", "--boxes", "boxes.csv", "--out", "b.csv", "--out", "b.png") == 0
    assert run("--data", "photos", "--masks", "masks", "--method", "rollout", "--out", "m.csv") == 0
    assert "Attention rollout" in capsys.readouterr().out
    tables = [list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("b.csv", "m.csv")]
    boxes, masks = ({row["map"]: row["auc"] for row in table} for table in tables)
    assert boxes.items() <= masks.items() and len(masks) == len(boxes) + 1 == 3 * 4 + 3 + 3 + 1
    for words, message in (
        (["--data", "photos"], "--boxes CSV or --masks DIR"),
        (["--data", "photos", "--boxes", "no.csv"], "There is no table no.csv"),
        (["--data", "masks", "--masks", "photos"], None),
        (["--data", "photos", "--masks", "none"], "There is no folder none"),
        (["--data", "photos/x", "--boxes", "boxes.csv"], "names no picture of photos/x"),
        (["--data", "photos/x", "--masks", "masks"], "holds no mask of a picture"),
    ):
        assert (run(*words) == 0) == (message is None)
        assert message is None or message in capsys.readouterr().err
