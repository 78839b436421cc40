"""Weights files: what fits is loaded, what does not is named, what would run code is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import Bottleneck

from swabench.study.inputs import BackboneSettings, RunOfStudy
from swabench.system.errors import InputError
from swabench.training.backbone import Standardize, load_backbone, weights_digest

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(5)
    return dict(resnet50(num_classes=7).state_dict())


def write(state: State, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


def test_residual_blocks_may_begin_by_adding_nothing() -> None:
    plain = load_backbone(BackboneSettings(seed=3))
    quiet = load_backbone(BackboneSettings(seed=3, zero_init_residual=True))
    blocks = [module for module in quiet.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 16
    assert not any(torch.any(block.bn3.weight) for block in blocks)
    # All the rest is what the seed draws without it.
    for block in blocks:
        nn.init.ones_(block.bn3.weight)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, quiet.state_dict()[name]), name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_are_loaded_whatever_their_final_layer(
    state: State, tmp_path: Path, suffix: str
) -> None:
    network = load_backbone(BackboneSettings(weights=write(state, tmp_path / f"w{suffix}")))
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    assert weights_digest(network) != weights_digest(load_backbone(BackboneSettings()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("layer3.0.conv1.weight"), r"1 missing keys \(layer3.0.conv1.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 surplus keys \(extra\)"),
        (lambda s: s.update({"conv1.weight": torch.zeros(2)}), "size mismatch for conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    state: State, tmp_path: Path, edit: Callable[[State], object], message: str
) -> None:
    changed = dict(state)
    edit(changed)
    with pytest.raises(InputError, match=message):
        load_backbone(BackboneSettings(weights=write(changed, tmp_path / "w.pth")))


class Malicious:
    """Would write a file while it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._trace,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "ran"
    if how == "torch":
        torch.save({"conv1.weight": Malicious(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(InputError, match=r"is no file of weights .*was not opened\)$") as error:
        load_backbone(BackboneSettings(weights=str(path)))
    assert not trace.exists()
    assert "weights_only" not in str(error.value)  # torch's advice on how to run it


@pytest.mark.filterwarnings("ignore:.*torch.*jit")
def test_an_archive_of_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    with pytest.raises(InputError, match=r"is no file of weights .*was not opened\)$"):
        load_backbone(BackboneSettings(weights=str(path)))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"w\..* is no file of weights \(.+\)$"):
        load_backbone(BackboneSettings(weights=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("conv1.weight", lambda t: t.to(torch.complex64), "holds complex64 where there are real"),
        ("conv1.weight", lambda t: t.to(torch.int32), "holds int32 where there are real"),
        ("conv1.weight", lambda t: t.to_sparse(), "holds no numbers"),
        ("conv1.weight", lambda t: t.to("meta"), "holds no numbers"),
        ("layer4.2.bn3.bias", lambda t: t * torch.nan, "holds numbers that are not finite"),
        ("bn1.running_mean", lambda t: t + torch.inf, "holds numbers that are not finite"),
        ("bn1.running_var", lambda t: t - 2, "holds negative variances"),
    ],
)
def test_numbers_that_are_no_weights_are_named(
    state: State, tmp_path: Path, name: str, change: Callable[[Tensor], Tensor], told: str
) -> None:
    changed = {**state, name: change(state[name])}
    with pytest.raises(InputError, match=f"w.pth: {name} {told}"):
        load_backbone(BackboneSettings(weights=write(changed, tmp_path / "w.pth")))


def test_weights_of_half_precision_and_any_final_layer_are_loaded(
    state: State, tmp_path: Path
) -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    half["fc.weight"] = half["fc.weight"] * torch.nan  # is not used
    network = load_backbone(BackboneSettings(weights=write(half, tmp_path / "w.pth")))
    torch.testing.assert_close(network.conv1.weight, state["conv1.weight"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files_are_refused(state: State, tmp_path: Path, name: str) -> None:
    path = Path(write(state, tmp_path / name))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match="is no file of weights"):
        load_backbone(BackboneSettings(weights=str(path)))


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="IMAGENET1K_V1"):
        load_backbone(BackboneSettings(weights="imagenet"))


def test_old_files_without_counters_are_loaded(state: State, tmp_path: Path) -> None:
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    network = load_backbone(BackboneSettings(weights=write(old, tmp_path / "w.pth")))
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    assert not network.training


def test_of_many_keys_the_first_are_named(state: State, tmp_path: Path) -> None:
    fewer = {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}
    missing = sorted(
        name for name in state.keys() - fewer.keys() if not name.endswith("num_batches_tracked")
    )
    with pytest.raises(InputError) as error:
        load_backbone(BackboneSettings(weights=write(fewer, tmp_path / "w.pth")))
    shown = f"{len(missing)} missing keys ({', '.join(missing[:5])}, …); 0 surplus keys"
    assert str(error.value).endswith(f"w.pth does not fit ResNet-50: {shown}")


@pytest.mark.parametrize(
    "content", [{"conv1.weight": 1}, {"a": torch.zeros(1), "b": 2}, [1], {1: torch.zeros(1)}, None]
)
def test_what_holds_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="it holds something else than named tensors"):
        load_backbone(BackboneSettings(weights=str(tmp_path / "w.pth")))


def test_a_file_in_ones_home_is_found(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(state, tmp_path / "w.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    network = load_backbone(BackboneSettings(weights="~/w.pth"))
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def test_another_studys_run_is_given_by_its_tensors_and_named_where_they_do_not_fit(
    state: State,
) -> None:
    settings = BackboneSettings(weights=RunOfStudy(study="source", method="swa", seed=2))
    network = load_backbone(settings, state)
    assert torch.equal(network.layer1[0].bn1.weight, state["layer1.0.bn1.weight"])
    assert torch.equal(network.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    with pytest.raises(InputError, match="swa at seed 2 of study source does not fit ResNet-50"):
        load_backbone(settings, {})
    with pytest.raises(ValueError, match="is given by its state"):
        load_backbone(settings)


def test_weights_by_name_are_checked_as_they_come_and_a_failure_is_told(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []

    def download(_: object, **options: bool) -> State:
        asked.append(options)
        return state

    def fail(_: object, **__: bool) -> State:
        raise errors.pop()

    settings = BackboneSettings(weights="IMAGENET1K_V2")
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", download)
    assert torch.equal(load_backbone(settings).conv1.weight, state["conv1.weight"])
    assert asked == [{"progress": False, "check_hash": True}]
    errors = [OSError("no network"), RuntimeError("invalid hash value")]
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", fail)
    for reason in ("invalid hash value", "no network"):
        with pytest.raises(InputError, match=f"IMAGENET1K_V2 could not be downloaded .{reason}"):
            load_backbone(settings)


def test_standardising_takes_out_mean_and_deviation_as_they_were() -> None:
    mean, deviation = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
    standardize = Standardize(mean, deviation)
    mean.zero_()
    deviation.zero_()
    assert standardize(torch.tensor([[3.0, 10.0]])).tolist() == [[1, 2]]
    assert standardize.state_dict() == {}
