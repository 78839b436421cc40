from pathlib import Path

import pytest

from swabench.study.inputs import RunOfStudy
from swabench.study.loading import bundled_folder, bundled_studies, find_study, load_study
from swabench.study.study import Study
from swabench.system.errors import InputError

MINIMAL = """
title: A small study
pretrain:
  optimizer: {name: adam}
  rate: {schedule: constant, learning_rate: 0.001}
  epochs: 1
finetune: {optimizer: {name: sgd}, epochs: 6}
methods:
  sgd: {title: SGD, rate: {schedule: constant, learning_rate: 0.005}}
  pswa:
    title: PSWA
    rate: {schedule: cyclical, high: 0.01, low: 0.005}
    averaging: {phases: 3}
seeds: 2
"""


def study(tmp_path: Path, text: str, name: str = "mine.yaml") -> Study:
    path = tmp_path / name
    path.write_text(text)
    return load_study(str(path))


@pytest.mark.parametrize("name", bundled_studies())
def test_bundled_studies_load_and_say_how_to_run_them(name: str) -> None:
    loaded = load_study(name)
    assert loaded.name == name
    head = (Path(__file__).parent.parent / "configs" / f"{name}.yaml").read_text()
    assert head.startswith("#")
    assert f"--config {name}" in head


def test_the_default_study_is_the_papers_protocol() -> None:
    loaded = load_study("mnist")
    expected = ("adam", "sgd", "sgd-multiplicative", "swa", "swa-cyclical", "pswa")
    assert loaded.row_names == expected
    assert loaded.seeds == tuple(range(10))
    papers = [loaded.row_method(name).paper_accuracy for name in expected]
    assert papers == [92.31, 93.01, 93.0, 92.90, 93.04, None]


@pytest.mark.parametrize(
    ("old", "new", "key", "found"),
    [
        ("epochs: 1", "epochs: 1\n  epohcs: 2", "pretrain.epohcs: unknown key", "2"),
        ("0.005}}", "-0.005}}", "methods.sgd.rate.learning_rate", "-0.005"),
        ("0.005}}", ".nan}}", "methods.sgd.rate.learning_rate", "nan"),
        ("0.005}}", ".inf}}", "methods.sgd.rate.learning_rate", "inf"),
        ("0.005}}", "fast}}", "methods.sgd.rate.learning_rate", "fast"),
        ("schedule: constant, learning_rate: 0.005", "schedule: cosine", "methods.sgd.rate", ""),
        ("epochs: 6", "epochs: 7", "methods.pswa.averaging.phases: 3 phases", "7"),
        ("epochs: 6", "epochs: 2.5", "finetune.epochs", "2.5"),
        ("epochs: 6", "epochs: true", "finetune.epochs", "True"),
        ("epochs: 6", "epochs: 0", "finetune.epochs", "0"),
        ("seeds: 2", "seeds: 0", "seeds", ""),
        ("seeds: 2", "seeds: [1, 1]", "seeds", "twice"),
        ("seeds: 2", "seeds: [-1]", "seeds", "-1"),
        ("seeds: 2", "seeds: 2\nreference: sdg", "reference: unknown method 'sdg'", "pswa"),
        ("seeds: 2", "seeds: 2\nconfidence: 95", "confidence", "95"),
        ("seeds: 2", "seeds: 2\nseeds: 3", "'seeds' is given twice", "line"),
        ("seeds: 2", "seeds: 2\ndata: {dataset: svhn}", "data.dataset", "svhn"),
        ("seeds: 2", "seeds: 2\ndata: {dataset: folder}", "folder", "path"),
        ("  pswa:", "  all:", "methods", "all"),
        ("  pswa:", "  adam:", "pretrain.name", "adam"),
        ("epochs: 6", "epochs: 6, momentum: 0.9", "finetune.momentum: unknown key", "0.9"),
        ("name: sgd", "name: sgd, momentum: 1.5", "finetune.optimizer.momentum", "1.5"),
        ("name: sgd", "name: sgd, momentum: 0, nesterov: true", "finetune.optimizer", "momentum"),
        ("0.005}}", "true}}", "methods.sgd.rate.learning_rate", "True"),
        ("seeds: 2", "seeds: 99999999999", "seeds", "more than"),
        ("seeds: 2", "seeds: 2\nname: ../escaped", "name", "../escaped"),
        ("seeds: 2", "seeds: 2\nclaims: {sgd: 5}", "claims.sgd", "5"),
        ("  pswa:", "  ../pswa:", "methods", "../pswa"),
        ("  epochs: 1", "  epochs: 1\n  name: a/b", "pretrain.name", "a/b"),
        ("title: A small study", "title: 2024-13-45", "YAML", "month"),
        ("title: A small study", "? [a, b]\n: 1\ntitle: A small study", "YAML", "unhashable"),
        ("seeds: 2", "seeds: 2\ndata: " + 3000 * "[", "YAML", "recursion"),
        (
            "seeds: 2",
            "seeds: 2\nrate_sweep: {methods: [pswa], rates: [0.1]}",
            "rate_sweep.methods",
            "pswa",
        ),
        ("high: 0.01", "high: 0.001", "methods.pswa.rate", "above high"),
        ("title: A small study", "- a list", "", "YAML"),
        (MINIMAL, "[1, 2]", "mapping", "list"),
        (MINIMAL, "", "mapping", "NoneType"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, key: str, found: str) -> None:
    assert old in MINIMAL
    with pytest.raises(InputError) as error:
        study(tmp_path, MINIMAL.replace(old, new, 1))
    message = str(error.value)
    assert "mine.yaml" in message
    assert key in message
    assert found in message


def test_frozen_layers_that_pretraining_trained_are_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace("epochs: 1", "epochs: 1\n  trainable: layer4")
    with pytest.raises(InputError, match=r"finetune.trainable: 'head' would freeze"):
        study(tmp_path, text)


def test_an_unknown_study_names_the_bundled_ones() -> None:
    with pytest.raises(InputError, match=r"'mnits' is neither .*mnist"):
        load_study("mnits")


def test_extending_replaces_keys_of_sections_and_whole_methods(tmp_path: Path) -> None:
    study(tmp_path, MINIMAL, "base.yaml")
    child = study(
        tmp_path,
        """
extends: base
finetune: {epochs: 9}
methods:
  pswa: null
  sgd: {title: SGD, rate: {schedule: cyclical, high: 0.02, low: 0.01}}
""",
    )
    assert child.name == "mine"
    assert child.title == "A small study"
    assert child.finetune.epochs == 9
    assert child.finetune.optimizer.name == "sgd"
    assert list(child.methods) == ["sgd"]
    assert child.methods["sgd"].rate.schedule == "cyclical"


def test_a_study_of_ones_own_may_extend_the_bundled_one_of_its_name(tmp_path: Path) -> None:
    assert study(tmp_path, "extends: mnist\nseeds: 3", "mnist.yaml").seeds == (0, 1, 2)


def test_extends_takes_a_file_name_and_merge_keys_work(tmp_path: Path) -> None:
    study(tmp_path, MINIMAL, "base.yaml")
    text = "extends: base.yaml\nfinetune: &own {epochs: 3}\npretrain: {<<: *own, epochs: 2}"
    child = study(tmp_path, text)
    assert (child.finetune.epochs, child.pretrain.epochs) == (3, 2)


def test_relative_folders_are_meant_from_where_the_study_lies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    text = MINIMAL + "data: {dataset: folder, folder: ../images}"
    path = tmp_path / "deep" / "mine.yaml"
    path.write_text(text)
    assert load_study(str(path)).data.folder == (tmp_path / "images").resolve()


def test_extending_in_a_circle_or_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: two")
    (tmp_path / "two.yaml").write_text("extends: one")
    with pytest.raises(InputError, match="circle"):
        load_study(str(tmp_path / "one.yaml"))
    with pytest.raises(InputError, match="'nothing' is neither"):
        study(tmp_path, "extends: nothing")


def test_a_rate_in_yamls_bare_exponent_form_is_read_as_a_number(tmp_path: Path) -> None:
    loaded = study(tmp_path, MINIMAL.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert loaded.pretrain.rate.rates(1, 1)[0] == 0.001


@pytest.mark.parametrize(
    ("own", "keeps"),
    [
        ("seeds: 3\n", True),
        ("methods: {pswa: null}\n", True),
        ("data: {validation_images: 6000}\n", False),
        ("backbone: {seed: 1}\n", False),
        ("finetune: {epochs: 9}\n", False),
    ],
)
def test_the_papers_numbers_are_not_inherited_by_a_study_of_something_else(
    tmp_path: Path, own: str, keeps: bool
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: mnist\n{own}")
    study = load_study(str(path))
    assert (study.methods["sgd"].paper_accuracy == 93.01) is keeps
    assert (study.pretrain.paper_accuracy is not None) is keeps


@pytest.mark.parametrize(
    "base",
    [
        "title: x\n",
        "pretrain: null\nmethods: null\n",
        "methods: [1]\n",
        "methods: {sgd: null}\n",
    ],
)
def test_what_is_extended_may_lack_anything(tmp_path: Path, base: str) -> None:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text("extends: base\ndata: {validation_images: 10}\n")
    with pytest.raises(InputError, match=r"own\.yaml: "):
        load_study(str(tmp_path / "own.yaml"))


# --- where files lie, and which counts -------------------------------------------------------


def test_a_folder_that_is_called_like_a_bundled_study_is_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `results/mnist` beside which somebody works."""
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_study("mnist") == bundled_folder() / "mnist.yaml"


def test_bundled_studies_are_named_in_order() -> None:
    names = bundled_studies()
    assert names == sorted(names)
    assert {"mnist", "smoke", "transfer"} <= set(names)


def test_a_study_names_itself_or_is_called_like_its_file(tmp_path: Path) -> None:
    assert study(tmp_path, MINIMAL).name == "mine"
    assert study(tmp_path, MINIMAL + "name: other").name == "other"
    # What is extended keeps its name to itself.
    assert study(tmp_path, "extends: mine", "child.yaml").name == "child"
    assert study(tmp_path, "extends: mine\nname: own", "child.yaml").name == "own"


def test_studies_are_utf_8_and_what_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL.replace("A small study", "Größer × 2"), encoding="utf-8")
    assert load_study(str(path)).title == "Größer × 2"
    path.write_text(MINIMAL.replace("A small study", "Größer"), encoding="latin-1")
    with pytest.raises(InputError, match=r"mine\.yaml: cannot be read"):
        load_study(str(path))

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError("no permission")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"mine\.yaml: cannot be read \(no permission\)"):
        load_study(str(path))


def test_a_circle_is_found_from_wherever_the_studies_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, other in (("one", "two"), ("two", "three"), ("three", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {other}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="circle"):
        load_study("one.yaml")


def test_relative_paths_are_meant_from_the_study_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from one that extends it, nor from where somebody happens to stand."""
    base, own, home = (tmp_path / name for name in ("base", "own", "home"))
    for folder in (base, own, home):
        folder.mkdir()
        (folder / "w.pth").touch()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))

    def loaded(data: str, backbone: str) -> Study:
        text = f"{MINIMAL}data: {{dataset: folder, folder: {data}}}\nbackbone: {backbone}\n"
        study(base, text, "base.yaml")
        return study(own, "extends: ../base/base\nseeds: 3\n")

    both = loaded("images", "{weights: w.pth}")
    assert both.data.folder == (base / "images").resolve()
    assert both.backbone.weights == str((base / "w.pth").resolve())
    both = loaded("~/images", "{weights: ~/w.pth}")
    assert both.data.folder == (home / "images").resolve()
    assert both.backbone.weights == str((home / "w.pth").resolve())
    child = study(own, "extends: ../base/base\ndata: {folder: mine}\nbackbone: {weights: w.pth}")
    assert child.data.folder == (own / "mine").resolve()
    assert child.backbone.weights == str((own / "w.pth").resolve())
    # What is no file beside the study stays a name.
    for name in ("random", "IMAGENET1K_V1", "nowhere.pth"):
        assert loaded("images", f"{{weights: {name}}}").backbone.weights == name
    run = "{weights: {study: base.yaml, method: sgd}}"
    expected = RunOfStudy(study=str((base / "base.yaml").resolve()), method="sgd")
    assert loaded("images", run).backbone.weights == expected
    run = "{weights: {study: mnist, method: sgd}}"
    assert loaded("images", run).backbone.weights == RunOfStudy(study="mnist", method="sgd")


@pytest.mark.parametrize("folder", ["~nobody-of-that-name/images", '"a\\0b"'])
def test_what_cannot_be_a_path_is_told(tmp_path: Path, folder: str) -> None:
    text = MINIMAL + f"data: {{dataset: folder, folder: {folder}}}"
    with pytest.raises(InputError, match=r"mine\.yaml: data\.folder: .* cannot be a path"):
        study(tmp_path, text)


# --- what an extending study changes ---------------------------------------------------------


def test_null_takes_out_methods_and_controls_and_is_a_value_elsewhere(tmp_path: Path) -> None:
    controls = "controls:\n  one: {title: x, rate: {schedule: linear, learning_rate: 0.1}}\n"
    more = controls + "  two: {title: x, rate: {schedule: cosine, learning_rate: 0.1}}\n"
    more += "data: {training_images: 100, test_images: 10}\n"
    whole = study(tmp_path, MINIMAL + more, "base.yaml")
    assert list(whole.controls) == ["one", "two"]
    own = "extends: base\ncontrols: {one: null}\ndata: {training_images: null}\n"
    child = study(tmp_path, own)
    assert list(child.controls) == ["two"]
    assert child.data.training_images is None
    assert child.data.test_images == 10
    with pytest.raises(InputError, match=r"data\.validation_images: Input should be .* found None"):
        study(tmp_path, "extends: base\ndata: {validation_images: null}\n")
    assert study(tmp_path, "extends: base\ncontrols: null\n").controls == {}


def test_pretraining_of_ones_own_has_none_of_the_papers_numbers(tmp_path: Path) -> None:
    child = study(tmp_path, "extends: mnist\npretrain: {epochs: 2}\n")
    assert child.pretrain.paper_accuracy is None
    assert {method.paper_accuracy for method in child.methods.values()} == {None}


# --- what is wrong, in words -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "averaging: {phases: 3}",
            "averaging: {plan: last, captures: 0}",
            "mine.yaml: methods.pswa.averaging.captures: "
            "Input should be greater than or equal to 1, found 0",
        ),
        (
            "name: sgd",
            "name: sgd, momentum: 2",
            "mine.yaml: finetune.optimizer.momentum: Input should be less than 1, found 2",
        ),
        (
            "high: 0.01",
            "high: 0",
            "mine.yaml: methods.pswa.rate.high: Input should be greater than 0, found 0",
        ),
        (
            "averaging: {phases: 3}",
            "averaging: {plan: median}",
            "mine.yaml: methods.pswa.averaging: unknown kind 'median'; choose from 'mean', "
            "'exponential', 'last', 'score-weighted', 'greedy-soup', 'newest'",
        ),
        (
            "high: 0.01",
            "high: 0.001",
            "mine.yaml: methods.pswa.rate: low (0.005) is above high (0.001); exchange them",
        ),
        (
            "  pswa:",
            "  p swa:",
            "mine.yaml: methods.p swa: use letters, digits, '-', '_' and '.', "
            "a letter or digit first, "
            "found 'p swa'",
        ),
        (
            "seeds: 2",
            "seeds: 2\nreference: sdg",
            "mine.yaml: reference: unknown method 'sdg'; choose from adam, sgd, pswa",
        ),
    ],
)
def test_a_mistake_is_told_by_the_files_own_keys_with_what_was_found(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in MINIMAL
    with pytest.raises(InputError) as error:
        study(tmp_path, MINIMAL.replace(old, new, 1))
    assert str(error.value) == f"{tmp_path}/{message}"


def test_every_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        study(tmp_path, MINIMAL.replace("seeds: 2", "seeds: 0\nconfidence: 3\nsedes: 4"))
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "seeds", "confidence", "sedes",
    ]  # fmt: skip
