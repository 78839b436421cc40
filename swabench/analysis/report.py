"""One page a person can read: table, figures, claims, settings and manifest of a study.

The page is self-contained: figures are embedded as data, there are no scripts, and nothing is
loaded from elsewhere. Figures are embedded as images, not as inline SVG, because the ids of
several SVGs on one page get in each other's way. The same records give the same bytes.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from swabench.analysis import claims_text, variance
from swabench.analysis import table as tables
from swabench.analysis.claims import Claim
from swabench.analysis.evidence import Verdict
from swabench.analysis.figures import Picture
from swabench.analysis.frame import Records, incompleteness, missing_runs
from swabench.analysis.tuning import chosen_settings
from swabench.analysis.words import other_seeds, what_was_run
from swabench.study.seeds import listed
from swabench.study.study import Study
from swabench.system.version import __version__

NO_BREAK = "\u00a0"

THE_FINDING = "figure7-rates"


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it.

    Attributes:
        source: The picture itself, as a data URI.
        caption: Its number and what it shows.
        description: The same for those who do not see it, with what it lacks.
    """

    source: str
    caption: str
    description: str


def render_report(
    study: Study,
    records: Records,
    seeds: Sequence[int],
    claims: Sequence[Claim],
    pictures: Sequence[Picture],
) -> str:
    """The page, as HTML.

    Args:
        study: The study.
        records: Records of all its runs (`collect` with `study.run_names`).
        seeds: The seeds asked for; what is missing of them is named on the page.
        claims: The decided claims.
        pictures: The figures, in the order in which they are shown; what was skipped is not.
    """
    rows = records.of(study.row_names)
    ensembles = tables.ensembles(study, rows)
    trajectories = tables.on_one_trajectory(study, records)
    choices = study.tuning.chosen if study.tuning else None
    return _page(
        "report.html.j2",
        study,
        records,
        seeds,
        pictures,
        findings=findings(study, rows, claims),
        comparison=tables.presentable(tables.comparison(study, rows), study),
        chosen=chosen_settings(choices) if choices else None,
        chosen_by=study.tuning.chosen_by if study.tuning else None,
        notes=[
            *other_seeds(study, seeds),
            *tables.divergences(study, records),
            *tables.not_distinguished(study, rows),
        ],
        trajectories=tables.presentable_trajectories(trajectories, study)
        if len(trajectories)
        else None,
        ensembles=tables.presentable_ensembles(ensembles, study) if len(ensembles) else None,
        rule=claims_text.rule_in_words(study),
        verdicts=claims_text.verdicts(claims, study),
        claims=claims,
        words={c.key: claims_text.in_words(c.verdict, study) for c in claims},
        evidence={c.key: claims_text.presentable_evidence(c, study) for c in claims},
    )


def render_sources_report(
    study: Study,
    records: Records,
    seeds: Sequence[int],
    frame: pd.DataFrame,
    pictures: Sequence[Picture],
) -> str:
    """The page of a study that varies one source of chance at a time, as HTML.

    Args:
        study: The study.
        records: Records of all its runs.
        seeds: The seeds asked for.
        frame: What each source does, from `variances`.
        pictures: The figures.
    """
    return _page(
        "report-sources.html.j2",
        study,
        records,
        seeds,
        pictures,
        findings=[*variance.divergences(records), *variance.findings(frame, study)],
        comparisons=[variance.presentable(frame, study, measure) for measure in variance.DIGITS],
        notes=variance.notes(frame, study),
        instead=variance.INSTEAD,
    )


def _page(
    template: str,
    study: Study,
    records: Records,
    seeds: Sequence[int],
    pictures: Sequence[Picture],
    **parts: Any,
) -> str:
    """What every page has, and the parts of its own."""
    environment = Environment(
        loader=PackageLoader("swabench.analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment.get_template(template).render(
        study=study,
        seeds=seeds,
        version=__version__,
        note=incompleteness(missing_runs(records, seeds)),
        figures=[figure(picture) for picture in _finding_first(pictures)],
        what_was_run=what_was_run(study),
        settings=yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        manifest=_manifest(records),
        **parts,
    )


def findings(study: Study, records: Records, claims: Sequence[Claim]) -> list[str]:
    """What was found, in plain sentences; each follows from the table or the verdicts."""
    frame = tables.comparison(study, records).set_index("method")
    accuracies = frame["accuracy"].dropna()
    tuned = accuracies.drop(study.pretrain.name, errors="ignore")
    said = []
    if study.pretrain.name in accuracies:
        start = accuracies[study.pretrain.name]
        said.append(
            f"Before fine-tuning, {start:.2f} % of the test images are classified correctly."
        )
    if len(tuned) > 1:
        said.append(
            f"The fine-tuned methods reach between {tuned.min():.2f} % ({tuned.idxmin()}) and "
            f"{tuned.max():.2f} % ({tuned.idxmax()}), as means over seeds."
        )
    said += [f"{line}, so no mean of it is shown." for line in records.divergences()]
    standings = tables.standings(study, records)
    differences = frame[f"difference_to_{study.reference}"]
    for standing, words in (
        ("above", f"Above {study.reference}, beyond what chance explains after Holm's correction"),
        ("below", f"Below {study.reference}, by the same test"),
        ("not distinguished", f"Not distinguished from {study.reference}"),
    ):
        names = [
            f"{name} ({float(differences[name]):+.2f} points)"
            for name, found in standings.items()
            if found == standing
        ]
        if names:
            said.append(f"{words}: {listed(names)}.")
    return [*said, *_claims_in_words(claims)]


def typeset(value: object) -> str:
    """Numbers as they are printed: a true minus, and no line break within an interval."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", str(value))
    text = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", NO_BREAK), text)
    return re.sub(r"(?<=\d) (?=%)|(?<=<) (?=\d)", NO_BREAK, text)


def figure(picture: Picture) -> Figure:
    """A picture made ready for the page."""
    numbered = re.match(r"figure(\d+)-", picture.name)
    encoded = str(base64.b64encode(picture.content["svg"]), "ascii")
    return Figure(
        source=f"data:image/svg+xml;base64,{encoded}",
        caption=f"Figure {numbered[1]}. {picture.caption}" if numbered else picture.caption,
        description=f"{picture.caption} {picture.note}".strip(),
    )


def _finding_first(pictures: Sequence[Picture]) -> list[Picture]:
    """What was drawn, the picture of what averaging does before the others."""
    drawn = [picture for picture in pictures if "svg" in picture.content]
    return sorted(drawn, key=lambda picture: picture.name != THE_FINDING)


def _claims_in_words(claims: Sequence[Claim]) -> list[str]:
    openings: Mapping[Verdict, str] = {
        "supported": "Supported",
        "contradicted": "Contradicted",
        "equal": "No difference beyond the margin, so neither supported nor contradicted",
        "open": "Open with these seeds",
        "not measured": "Not measured",
    }
    said = []
    for verdict, opening in openings.items():
        parts = [f"{c.statement} ({c.key})" for c in claims if c.verdict == verdict]
        if parts:
            said.append(f"{opening}: {listed(parts)}.")
    return said


def _manifest(records: Records) -> list[tuple[str, str]]:
    """Names and values: what went in, where it ran, and how long that took."""
    every = records.all()
    backbones = dict.fromkeys(str(record.provenance["backbone"]) for record in every)
    rows = [("Backbone", "; ".join(backbones))]
    rows += [(f"Data: {n}", d) for n, d in sorted(every[0].provenance["data"].items())]
    merged: dict[str, list[str]] = {}
    for record in every:
        for name, value in record.environment.items():
            shown = merged.setdefault(name, [])
            if str(value) not in shown:
                shown.append(str(value))
    rows += [(name.replace("_", " ").capitalize(), "; ".join(v)) for name, v in merged.items()]
    seconds = sum(record.seconds for record in every)
    rows.append(("Runs", f"{len(every)}, {seconds:.0f} s of training in all"))
    return rows
