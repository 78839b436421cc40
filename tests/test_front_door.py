"""How a user comes in: notebooks, programs, shells, narrow terminals, an installed wheel."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import swabench
from swabench.analysis.publish import Publication
from swabench.cli import app
from swabench.cli.options import _studies
from swabench.cli.printing import print_table
from swabench.records import RecordStore
from swabench.runs.estimate import Estimate
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from tests.made_up import outcome, set_costs, small_study, write_run, write_study

ROOT = Path(__file__).parents[1]
STUDIES = list((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def study() -> Study:
    return small_study()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, study: Study) -> RecordStore:
    """Every run of the study, with the documents that `table` writes."""
    store = write_study(tmp_path_factory.mktemp("results"), study)
    done = invoke(store, study, "table")
    assert done.exit_code == 0, done.stderr
    return store


def as_yaml(study: Study, folder: Path) -> Path:
    """A study as the file that a user would write."""
    path = folder / f"{study.name}.yaml"
    path.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    return path


def invoke(store: RecordStore, study: Study, command: str, *options: str) -> Any:
    """Run a command on made-up records; its exit code and streams."""
    config = as_yaml(study, store.folder.parent)
    where = ("--config", str(config), "--results", str(store.folder.parent))
    return CliRunner().invoke(app, [command, *where, *options])


def elsewhere(code: str, **options: Any) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **options
    )
    return str(done.stdout)


# --- notebooks -----------------------------------------------------------------------------


def test_load_gives_every_measurement_of_every_run(store: RecordStore, study: Study) -> None:
    frame = swabench.load(store.folder)
    expected = [
        (name, seed, m.epoch, m.predictor, m.split, m.batchnorm, m.accuracy, m.loss)
        for name in study.run_names
        for seed in study.seeds
        for m in outcome(study, name, seed).history
    ]
    assert list(frame.itertuples(index=False, name=None)) == expected
    assert frame.attrs["source"] == "records"


def test_load_finds_seeds_beyond_the_studys_by_the_manifest(tmp_path: Path, study: Study) -> None:
    more = study.model_copy(update={"seeds": (*study.seeds, 9)})
    store = write_study(tmp_path, more)
    Publication(study, store, list(more.seeds)).table()
    assert set(swabench.load(store.folder)["seed"]) == {*study.seeds, 9}


def test_load_without_records_reads_the_same_from_the_committed_file(
    store: RecordStore, tmp_path: Path
) -> None:
    committed = tmp_path / "smoke"
    committed.mkdir()
    shutil.copy(store.folder / "metrics.csv", committed)
    frame = swabench.load(str(committed))
    assert frame.attrs["source"] == "metrics.csv"
    whole = swabench.load(store.folder)
    pd.testing.assert_frame_equal(frame, whole, atol=1e-6, rtol=0)
    assert set(swabench.load(committed, seeds=[1])["seed"]) == {1}


def test_load_without_records_numbers_the_rows_anew_and_leaves_no_nan(
    store: RecordStore, tmp_path: Path
) -> None:
    """Of a file that was written before there was a column batchnorm, too."""
    written = pd.read_csv(store.folder / "metrics.csv")
    for frame in (written, written.drop(columns="batchnorm")):
        frame.to_csv(tmp_path / "metrics.csv", index=False)
        found = swabench.load(tmp_path, seeds=[1])
        assert list(found.index) == list(range(len(found)))
        assert all(value is None for value in found["batchnorm"])
        own = written.loc[written["seed"] == 1, "accuracy"]
        np.testing.assert_allclose(found["accuracy"], own)


def test_load_takes_the_studys_seeds_and_the_manifests_together(
    store: RecordStore, study: Study, tmp_path: Path
) -> None:
    """The table was last made of seed 0 alone; the other's records are there all the same."""
    folder = tmp_path / "smoke"
    shutil.copytree(store.folder, folder)
    Publication(study, RecordStore(tmp_path, study), [0]).table()
    assert json.loads((folder / "manifest.json").read_text())["seeds"] == [0]
    assert set(swabench.load(folder)["seed"]) == {0, 1}


@pytest.mark.parametrize("manifest", [None, "{", "[]", "\x00"])
def test_load_of_a_bundled_study_needs_no_manifest(tmp_path: Path, manifest: str | None) -> None:
    bundled = load_study("smoke")
    store = RecordStore(tmp_path, bundled)
    write_run(store, bundled, "swa", 1)
    if manifest is not None:
        (store.folder / "manifest.json").write_text(manifest)
    found = swabench.load(store.folder)
    assert found.attrs["source"] == "records"
    assert set(found["method"]) == {"swa"}
    assert set(found["seed"]) == {1}


def test_load_reads_the_file_where_the_records_are_of_other_settings(
    store: RecordStore, study: Study, tmp_path: Path
) -> None:
    folder = tmp_path / "smoke"
    shutil.copytree(store.folder, folder)
    shutil.rmtree(folder / "runs" / study.pretrain.name)
    tuning = study.finetune.model_copy(update={"batch_size": 7})
    config = as_yaml(study.model_copy(update={"finetune": tuning}), tmp_path)
    found = swabench.load(folder, config=str(config))
    assert found.attrs["source"] == "metrics.csv"
    assert set(found["method"]) == set(study.run_names)


COMMITTED = sorted(path.parent.name for path in ROOT.glob("results/*/metrics.csv"))


@pytest.mark.parametrize("name", COMMITTED)
def test_load_reads_what_is_committed(name: str) -> None:
    frame = swabench.load(ROOT / "results" / name)
    assert list(frame.columns) == [
        "method", "seed", "epoch", "predictor", "split", "batchnorm", "accuracy", "loss",
    ]  # fmt: skip
    shown = ROOT / "results" / name / "table.csv"
    if not shown.is_file():  # a study of sources, whose seeds are not alike, has none
        assert set(frame["seed"]) == set(load_study(name).seeds)
        return
    table = pd.read_csv(shown).set_index("method")
    finals = frame[(frame["method"] == "sgd") & (frame["split"] == "test")]
    finals = finals[(finals["epoch"] == finals["epoch"].max()) & (finals["predictor"] == "iterate")]
    treated = finals[finals["batchnorm"] != "running"]
    assert treated["accuracy"].mean() == pytest.approx(table.loc["sgd", "accuracy"], abs=1e-5)


def test_load_knows_a_folder_that_was_renamed_and_one_without_a_manifest(
    store: RecordStore, study: Study, tmp_path: Path
) -> None:
    whole = swabench.load(store.folder)
    renamed = tmp_path / "yesterday"
    shutil.copytree(store.folder, renamed)
    pd.testing.assert_frame_equal(swabench.load(renamed), whole)
    (renamed / "manifest.json").unlink()
    (renamed / "metrics.csv").unlink()
    with pytest.raises(InputError, match=r"neither records of runs nor metrics\.csv.*config="):
        swabench.load(renamed)
    config = str(as_yaml(study, tmp_path))
    pd.testing.assert_frame_equal(swabench.load(renamed, config=config), whole)


def test_load_of_changed_settings_does_not_pass_off_the_old_records(
    store: RecordStore, study: Study, tmp_path: Path
) -> None:
    tuning = study.finetune.model_copy(update={"batch_size": 7})
    config = as_yaml(study.model_copy(update={"finetune": tuning}), tmp_path)
    frame = swabench.load(store.folder, config=str(config))
    assert set(frame["method"]) == {study.pretrain.name}  # pretraining is as it was


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "neither records of runs nor metrics.csv"),
        ("", "cannot be read"),
        ("method,seed\nsgd,0\n", "no column epoch, predictor, split, accuracy, loss"),
        ("method,seed,epoch,predictor,split,accuracy,loss\nsgd,zero,1,iterate,test,1,2\n", "zero"),
    ],
)
def test_load_says_in_words_what_is_wrong(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        swabench.load(tmp_path)


@pytest.mark.parametrize("seeds", [[], [7]])
def test_load_of_seeds_that_are_not_there_is_an_error(store: RecordStore, seeds: list[int]) -> None:
    with pytest.raises(InputError, match="no measurements at the seeds asked for"):
        swabench.load(store.folder, seeds=seeds)
    assert set(swabench.load(store.folder, seeds=[1])["seed"]) == {1}


def test_load_of_no_folder_is_told() -> None:
    with pytest.raises(InputError, match="no such folder"):
        swabench.load("results/mnits")


def test_importing_swabench_imports_nothing_heavy() -> None:
    code = "import swabench, sys; print({'pandas', 'numpy', 'torch'} & sys.modules.keys())"
    assert elsewhere(code, cwd=ROOT).strip() == "set()"


# --- programs ------------------------------------------------------------------------------


def test_the_table_as_json_is_the_table_and_nothing_else(store: RecordStore, study: Study) -> None:
    done = invoke(store, study, "table", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    table = pd.read_csv(store.folder / "table.csv")
    shown = pd.DataFrame(found["table"])
    assert list(shown.columns) == list(table.columns)
    for column in table.columns:
        if table[column].dtype.kind == "f":
            np.testing.assert_allclose(shown[column].astype(float), table[column], atol=1e-6)
        else:
            assert list(shown[column]) == list(table[column])
    assert found["table"][1][f"difference_to_{study.reference}"] is None
    assert [row["method"] for row in found["ensembles"]] == list(study.averaging_methods)
    assert (found["study"], found["seeds"], found["missing"]) == ("smoke", [0, 1], {})
    assert "written to" in done.stderr


def test_claims_as_json_hold_verdicts_and_evidence(store: RecordStore, study: Study) -> None:
    done = invoke(store, study, "claims", "--json")
    assert done.exit_code == 0, done.stderr
    claims = json.loads(done.stdout)["claims"]
    written = pd.read_csv(store.folder / "claims.csv")
    assert [c["key"] for c in claims] == list(dict.fromkeys(written["claim"]))
    for claim in claims:
        own = written[written["claim"] == claim["key"]]
        assert set(own["verdict"]) == {claim["verdict"]}
        means = [e["estimate"]["mean"] for e in claim["evidence"]]
        np.testing.assert_allclose(own["difference"].dropna(), means, atol=1e-6)
        assert [e["decides"] for e in claim["evidence"]] == list(own["decides"].dropna())


def test_json_of_missing_runs_is_whole_and_the_command_fails(tmp_path: Path, study: Study) -> None:
    store = write_study(tmp_path, study, without=[("pswa", 1)])
    done = invoke(store, study, "table", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["missing"] == {"pswa": [1]}
    assert "INCOMPLETE: pswa lacks seeds 1" in done.stderr


def test_validate_as_json_says_what_would_run(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_study(tmp_path, study, without=[("pswa", 1), ("swa", 0)])
    set_costs(monkeypatch, lambda *_: Estimate(1.5, 20.0))
    done = invoke(store, study, "validate", "--json", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["valid"]
    assert found["rows"] == list(study.row_names)
    assert [*found["rows"], *found["controls"], *found["rate_sweep"]] == list(study.run_names)
    assert found["trajectories"] < found["fine_tuned_per_seed"] == len(study.all_methods)
    total = 2 * len(study.run_names)
    assert found["runs"] == {"to_do": [["swa", 0], ["pswa", 1]], "done": total - 2}
    assert found["time"] == {"device": "cpu", "features_seconds": 1.5, "training_seconds": 20.0}


def test_a_wrong_study_prints_no_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["validate", "--config", "mnits", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "mnits" in done.stderr


# --- shells and terminals ------------------------------------------------------------------


def test_the_version_is_printed_alone() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"{swabench.__version__}\n")


@pytest.mark.parametrize("asked", [["--help"], ["--version"], ["reproduce", "--help"]])
def test_help_and_version_import_nothing_heavy(asked: list[str]) -> None:
    code = (
        f"import sys\nfrom swabench.cli import main\nsys.argv = ['swabench', *{asked}]\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'pandas', 'torch', 'torchvision', 'scipy', 'statsmodels', 'matplotlib'}\n"
        "print(heavy & sys.modules.keys())"
    )
    assert elsewhere(code, cwd=ROOT).splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("repro", {"reproduce"}),
        ("reproduce --config n", {"network"}),
        ("reproduce --config mnist-", {"mnist-sources", "mnist-tuned"}),
        ("table --config configs/net", {"configs/network.yaml"}),
        ("table --config conf", {"configs/"}),
        ("table --config configs/", {f"configs/{path.name}" for path in STUDIES}),
        ("reproduce --device c", {"cpu", "cuda"}),
    ],
)
def test_a_shell_completes_commands_studies_and_devices(
    monkeypatch: pytest.MonkeyPatch, typed: str, offered: set[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = f"swabench {typed}"
    done = CliRunner().invoke(
        app,
        [],
        prog_name="swabench",
        env={
            "_SWABENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert set(done.stdout.split()) == offered


def test_of_a_folder_a_shell_is_offered_studies_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inner/below").mkdir(parents=True)
    for name in ("a.yaml", "b.yml", "notes.md", "below/c.yaml"):
        (tmp_path / "inner" / name).write_text("")
    assert _studies("inner/") == ["inner/a.yaml", "inner/b.yml", "inner/below/"]
    assert _studies("inn") == ["inner/"]
    assert _studies("inner/b") == ["inner/b.yml", "inner/below/"]
    assert _studies("absent/") == []
    assert _studies(str(tmp_path / "inner" / "a")) == [str(tmp_path / "inner" / "a.yaml")]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_narrow_table_cuts_no_methods_name_and_no_number(width: int) -> None:
    names = ["adam", "sgd-multiplicative", "a-method-with-a-long-name"]
    columns = ("Test accuracy, % [95 %]", "Test loss [95 %]", "Paper, %", "Difference", "Seeds")
    row = ("93.12 [93.01, 93.23]", "0.2512 [0.2486, 0.2538]", "92.31", "+0.15 [+0.1, +0.2]", "10")
    cells = dict.fromkeys(names, row)
    frame = pd.DataFrame.from_dict(cells, orient="index", columns=list(columns))
    frame.insert(0, "Method", names)
    text = io.StringIO()
    print_table("A study", frame, Console(width=width, file=text))
    assert all(name in text.getvalue() for name in names)
    assert "…" not in text.getvalue()


def test_words_of_a_study_are_printed_as_they_are(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = study.model_copy(update={"title": "[b]SWA[/b] :x: at 5e-3"})
    store = write_study(tmp_path, named)
    done = invoke(store, named, "validate", "--device", "cpu")
    assert "[b]SWA[/b] :x: at 5e-3" in done.stdout


# --- the pages -----------------------------------------------------------------------------

GUIDE = ROOT / "configs" / "README.md"
PAGES = [ROOT / "README.md", GUIDE, ROOT / "results" / "bench" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_guide_to_studies_names_every_section_and_every_choice() -> None:
    guide = GUIDE.read_text()
    kinds = Study.model_json_schema()["$defs"].values()
    choices = {
        kind["properties"][key]["const"]
        for kind in kinds
        for key in ("schedule", "plan", "name")
        if "const" in kind["properties"].get(key, {})
    }
    assert {"triangular", "greedy-soup", "lookahead"} <= choices
    assert [key for key in {*Study.model_fields, *choices} if f"`{key}`" not in guide] == []


def test_the_guides_examples_are_a_study(tmp_path: Path) -> None:
    method, images, tuning = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.S)
    assert method in (ROOT / "README.md").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(images)
    assert load_study(str(own)).data.folder == tmp_path / "my-images"
    path = tmp_path / "my.yaml"
    path.write_text(method + tuning)
    study = load_study(str(path))
    assert set(study.methods) == {*load_study("mnist").methods, "ema"}
    assert study.tuning
    assert set(study.tuning.families) == {"sgd", "ema"}


# --- the wheel -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_works_from_any_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    unpacked, away = tmp_path / "unpacked", tmp_path / "away"
    away.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    bundled = {path.name for path in (unpacked / "swabench" / "configs").glob("*.yaml")}
    assert bundled == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert (unpacked / "swabench" / "analysis" / "report.html.j2").is_file()
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    code = "import swabench; print(swabench.__file__)"
    assert str(unpacked) in elsewhere(code, cwd=away, env=environment)
    done = subprocess.run(
        [sys.executable, "-m", "swabench", "methods", "--config", "mnist"],
        cwd=away, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "swa-cyclical" in done.stdout
