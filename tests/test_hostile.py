"""Broken and hostile checkpoints: one CheckpointError in one sentence, no code run, no memory taken, no wait.

Every attack is made on all three layouts: our own, timm's and transformers'. What hypothesis changes is drawn
from every family's files, cut into several and in half precision.
"""

import contextlib
import json
import pickle
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS
from safetensors.torch import load_file, save_file

from vit import CheckpointError, load

PLAIN = ("ours", "timm", "transformers")  # one of each, in one file: what every single attack is made on
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("layout") for name in LAYOUTS}
    for name, layout in LAYOUTS.items():
        torch.manual_seed(0)
        layout.write(folders[name])
        load(folders[name])  # sound before anybody touches it
    return folders


@pytest.fixture(params=PLAIN)
def folder(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(originals[request.param], tmp_path / "model")
    return tmp_path / "model"


@contextlib.contextmanager
def half_a_gigabyte() -> Iterator[None]:
    """Whoever asks for more memory than that in here fails; whoever takes longer than ten seconds, too."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, limits[1]))
    start = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - start < 10


def refused(folder: Path, said: str = "") -> None:
    with half_a_gigabyte(), pytest.raises(CheckpointError, match=said) as caught:
        load(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence.strip() and 10 < len(sentence) < 600, sentence


def survives(folder: Path) -> None:
    """It loads, or it is refused in one sentence: there is no third way."""
    with half_a_gigabyte():
        try:
            load(folder)
        except CheckpointError as error:
            assert "\n" not in str(error).strip() and len(str(error)) < 600, error


def edit_json(file: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_tensors(folder: Path, change: Callable[[dict], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def write_header(folder: Path, header: bytes, length: int | None = None, data: bytes = b"") -> None:
    content = struct.pack("<Q", len(header) if length is None else length) + header + data
    (folder / "model.safetensors").write_bytes(content)


# --- the weights --------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_a_pickle_renamed_to_safetensors_is_not_unpickled(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    refused(folder)
    assert not (tmp_path / "boom").exists()


def test_a_torch_file_renamed_to_safetensors_is_not_unpickled(folder: Path, tmp_path: Path) -> None:
    torch.save({"head.weight": Bomb(tmp_path / "boom")}, folder / "model.safetensors")
    refused(folder)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("shape", [[10**12], [2**40, 2**40], [10**6, 10**6]])
@pytest.mark.parametrize("end", [4, 4 * 10**12])
def test_a_header_that_claims_a_trillion_numbers(folder: Path, shape: list[int], end: int) -> None:
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    write_header(folder, json.dumps({"head.weight": tensor}).encode(), data=b"1234")
    refused(folder)


@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 10**9, 0])
def test_a_header_that_claims_to_be_huge(folder: Path, length: int) -> None:
    write_header(folder, b"{}", length)
    refused(folder)


def test_a_header_that_is_huge(folder: Path) -> None:
    tensor = b'"%08d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    write_header(folder, b"{" + b",".join(tensor % i for i in range(200_000)) + b"}")
    refused(folder)


def test_a_header_that_is_a_deep_nest(folder: Path) -> None:
    write_header(folder, b"[" * 100_000)
    refused(folder)


def test_two_tensors_of_one_name(folder: Path) -> None:
    tensor = b'"head.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    write_header(folder, b"{" + tensor + b"," + tensor + b"}", data=b"1234")
    refused(folder)


def test_overlapping_tensors(folder: Path) -> None:
    tensor = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    write_header(folder, b'{"a":' + tensor + b',"b":' + tensor + b"}", data=b"1234")
    refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    edit_tensors(folder, lambda tensors: tensors[max(tensors)].flatten()[:1].fill_(value))
    refused(folder, "no finite floats")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_weights_of_a_wrong_type(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda t: t.update({max(t): t[max(t)].to(dtype)}))
    refused(folder, "no finite floats")


def test_a_wrong_number_of_classes(folder: Path) -> None:
    def more_classes(tensors: dict) -> None:
        for name in [name for name in tensors if name.startswith(("head.", "classifier."))]:
            tensors[name] = torch.zeros(11, *tensors[name].shape[1:])

    edit_tensors(folder, more_classes)
    refused(folder, "shape")


def test_no_tensors_at_all(folder: Path) -> None:
    write_header(folder, b"{}")
    refused(folder)


@pytest.mark.parametrize(
    "shard", ["../model-00001-of-00001.safetensors", "/etc/passwd", "..", "a/b.safetensors", 7]
)
def test_an_index_that_climbs_out_of_its_folder(folder: Path, shard: Any) -> None:
    weights = folder / "model.safetensors"
    shutil.copy(weights, folder.parent / "model-00001-of-00001.safetensors")
    weights.rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {name: shard for name in ("head.weight", "head.bias")}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder)


@FUZZ
@given(st.sampled_from(sorted(LAYOUTS)), st.floats(0, 1, exclude_max=True))
@example("ours", 0.0)
@example("timm", 7 / 10**6)
def test_a_file_cut_short_anywhere(originals: dict, tmp_path_factory, layout: str, share: float) -> None:
    folder = shutil.copytree(originals[layout], tmp_path_factory.mktemp("cut") / "model")
    file = min(folder.glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    refused(folder)


@FUZZ
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1),
)
def test_a_header_with_changed_bytes(originals: dict, tmp_path_factory, layout: str, changes: list) -> None:
    folder = shutil.copytree(originals[layout], tmp_path_factory.mktemp("changed") / "model")
    file = min(folder.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    for place, value in changes:
        content[place] = value
    file.write_bytes(content)
    survives(folder)


# --- the config ---------------------------------------------------------------------------------------

ABSURD = [10**9, 10**18, -1, 0, 1.5, 1e308, "12", None, True, [1, 2], {}, float("nan"), float("inf")]


def put(content: dict, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_absurd_depth(originals: dict, tmp_path: Path, layout: str, value: Any) -> None:
    folder = shutil.copytree(originals[layout], tmp_path / "model")
    edit_json(folder / "config.json", lambda config: put(config, list(LAYOUTS[layout].depth), value))
    refused(folder)


def paths_in(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The place of every value in a JSON object."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from paths_in(inner, (*path, key))


json_values = st.recursive(
    st.sampled_from([*ABSURD, 224, 16, 10**5, 10**6, "", "../x", "ViT", "x" * 10_000])
    | st.integers()
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@settings(FUZZ, max_examples=300)
@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_a_config_with_any_value_in_any_place(originals: dict, tmp_path_factory, layout: str, data) -> None:
    folder = shutil.copytree(originals[layout], tmp_path_factory.mktemp("config") / "model")
    file = data.draw(st.sampled_from(sorted(folder.glob("*config.json"))))
    config = json.loads(file.read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(paths_in(config))))
        with contextlib.suppress(TypeError, KeyError):  # the first change may have removed the second's place
            put(config, list(path), data.draw(json_values))
    file.write_text(json.dumps(config))
    survives(folder)


# what a config may well say instead: the other of two, a little more or less, another word
LIKELY = st.sampled_from([True, False, 0, 1, 2, 3, 4, 8, 16, 32, 48, 64, 0.5, 1e-3, "", "gelu", "silu"])
FIELDS = {
    "timm": [
        "qkv_bias",
        "qk_norm",
        "init_values",
        "class_token",
        "reg_tokens",
        "no_embed_class",
        "global_pool",
    ],
    "transformers": ["qkv_bias", "use_mean_pooling", "use_head", "vision_use_head", "value_bias", "key_bias"],
}
DAMAGE: dict[str, Callable[[dict, str], Any]] = {
    "gone": lambda tensors, name: tensors.pop(name),
    "another name": lambda tensors, name: tensors.update({f"{name}x": tensors.pop(name)}),
    "turned": lambda tensors, name: tensors.update({name: tensors[name].mT.contiguous()}),
    "one row less": lambda tensors, name: tensors.update({name: tensors[name][:-1].clone()}),
    "in float64": lambda tensors, name: tensors.update({name: tensors[name].double()}),
    "in integers": lambda tensors, name: tensors.update({name: tensors[name].int()}),
}


def exact_or_refused(folder: Path, layout: str) -> None:
    """What loads says what the library says that wrote the files; what the library refuses may load."""
    try:
        model, _ = load(folder)
    except CheckpointError as error:
        assert "\n" not in str(error).strip() and len(str(error)) < 600, error
        return
    pixels = torch.rand(1, *model.config.input_shape())
    try:
        theirs = LAYOUTS[layout].answer(folder, pixels)
    except Exception:  # in many ways
        return
    ours = model(pixels)
    if theirs.dim() == 3:  # tokens, not pooled
        theirs = theirs.mean(dim=1) if model.config.pool == "mean" else theirs[:, 0]
    if layout == "transformers, RADIO":  # several class tokens side by side
        theirs = theirs[:, : model.config.embed_dim]
    if model.config.num_classes or theirs.shape == ours.shape:  # a head may be left behind
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


THEIRS = sorted(set(LAYOUTS) - {"ours"})


@pytest.mark.parametrize("layout", THEIRS)
@settings(FUZZ, max_examples=6)
@given(data=st.data())
def test_a_changed_config_is_exact_or_refused(originals: dict, tmp_path_factory, layout: str, data) -> None:
    folder = shutil.copytree(originals[layout], tmp_path_factory.mktemp("changed") / "model")
    config = json.loads((folder / "config.json").read_text())
    library = layout.partition(",")[0]
    inside = config["model_args"] if library == "timm" else config
    key = data.draw(st.sampled_from(sorted({*inside, *FIELDS[library]})))
    inside[key] = data.draw(LIKELY)
    (folder / "config.json").write_text(json.dumps(config))
    exact_or_refused(folder, layout)


@pytest.mark.parametrize("layout", THEIRS)
@settings(FUZZ, max_examples=6)
@given(data=st.data())
def test_a_damaged_tensor_is_exact_or_refused(originals: dict, tmp_path_factory, layout: str, data) -> None:
    folder = shutil.copytree(originals[layout], tmp_path_factory.mktemp("damaged") / "model")
    file = data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
    tensors = load_file(file)
    name = data.draw(st.sampled_from(sorted(name for name in tensors if tensors[name].dim())))
    damage = data.draw(st.sampled_from(sorted(DAMAGE)))
    if damage == "turned" and tensors[name].dim() < 2:
        return
    DAMAGE[damage](tensors, name)
    save_file(tensors, file)
    exact_or_refused(folder, layout)


def test_the_bias_of_values_that_one_layer_lacks_is_not_taken_for_zero(
    originals: dict, tmp_path: Path
) -> None:
    folder = shutil.copytree(originals["transformers, DINOv3"], tmp_path / "model")
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if tensors.pop("layer.1.attention.v_proj.bias", None) is not None:
            save_file(tensors, file)
            break
    refused(folder, "v.bias")


@pytest.mark.parametrize(
    "layout, key, value, said",
    [
        ("transformers, DINOv3", "value_bias", False, "value_bias=False in its config, and one in its files"),
        ("transformers, DINOv3", "key_bias", True, "key_bias=True in its config, and none in its files"),
        ("transformers, BEiT", "use_shared_relative_position_bias", True, "tables of relative positions"),
    ],
)
def test_a_config_that_denies_what_its_files_hold(
    originals: dict, tmp_path: Path, layout: str, key: str, value: bool, said: str
) -> None:
    folder = shutil.copytree(originals[layout], tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update({key: value}))
    refused(folder, said)


@pytest.mark.parametrize("content", ["", "[]", "null", "{", "7", "[" * 100_000, '{"format": 7}', "\xff"])
def test_a_config_that_is_no_description(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refused(folder)


@pytest.mark.parametrize(
    "argument", ["checkpoint_path", "cache_dir", "pretrained", "scriptable", "exportable", "features_only"]
)
def test_timm_is_not_told_to_do_more_than_build(originals: dict, tmp_path: Path, argument: str) -> None:
    """checkpoint_path would unpickle a file."""
    folder = shutil.copytree(originals["timm"], tmp_path / "model")
    (folder / "weights.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    edit_json(
        folder / "config.json", lambda c: c["model_args"].update({argument: str(folder / "weights.pth")})
    )
    refused(folder, argument)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "name", ["hf-hub:evil/model", "local-dir:/tmp", "../vit", "resnet50", "vit_base_patch16_224\n"]
)
def test_timm_builds_nothing_but_its_own_plain_vits(originals: dict, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(originals["timm"], tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update(architecture=name))
    refused(folder)


def test_class_names_that_are_no_names(originals: dict, tmp_path: Path) -> None:
    folder = shutil.copytree(originals["transformers"], tmp_path / "model")
    names = {"0": ["list"], "1": None, "2": 7, "3": "x" * 10**6, "4": "fine"}
    edit_json(folder / "config.json", lambda config: config.update(id2label=names))
    _, card = load(folder)
    assert card.class_names == ("class 0", "class 1", "class 2", "x" * 200, "fine")


@pytest.mark.parametrize("file", ["model.pth", "model.bin", "model.ckpt", "model.npz", "model.pkl"])
def test_a_pickle_is_refused_by_its_name(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(CheckpointError, match="may run code"):
        load(tmp_path / file)
    assert not (tmp_path / "boom").exists()
