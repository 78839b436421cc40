"""A study's seeds, and which sources of chance they draw.

A run depends on chance in four places (Bouthillier et al. 2021, arXiv 2103.03098, name these and
more). Seeds either draw all that a study names together, or one source at a time: then the
others stay where they are, and what each of them does to the results can be told apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from swabench.study.limits import MOST_SEEDS, SeedNumber

Source = Literal["head", "order", "split", "backbone"]
SOURCES: tuple[Source, ...] = get_args(Source)

_VARIES: dict[Source, str] = {
    "head": "the final layer's start",
    "order": "the order of the data",
    "split": "the split",
    "backbone": "the backbone's random weights",
}
_SHARED: dict[Source, str] = {
    "head": "one start of the final layer",
    "order": "one order of the data",
    "split": "one split",
    "backbone": "one backbone",
}


@dataclass(frozen=True)
class Draws:
    """The numbers from which a seed's runs draw.

    Attributes:
        head: For the final layer's start.
        order: For the order of the training images, in every stage.
        split: For the images that are held out of training.
        backbone: For the backbone's random weights.
    """

    head: int = 0
    order: int = 0
    split: int = 0
    backbone: int = 0


def draws_of(seed: int, base: Draws, drawn: Sequence[Source], one_at_a_time: bool) -> Draws:
    """What a seed draws.

    Args:
        seed: The seed.
        base: The numbers of what it does not draw.
        drawn: The sources that the study's seeds draw.
        one_at_a_time: Whether a seed draws one of them alone, by turns, rather than all.
    """
    if not one_at_a_time:
        return replace(base, **dict.fromkeys(drawn, seed))
    return replace(base, **{source_of(seed, drawn): seed // len(drawn) + 1})


def source_of(seed: int, drawn: Sequence[Source]) -> Source:
    """The one source that a seed draws, where they take turns: further seeds only add draws."""
    return drawn[seed % len(drawn)]


def in_words(drawn: Sequence[Source], one_at_a_time: bool) -> str:
    """What seeds draw, as a sentence without its full stop."""
    names = listed(_VARIES[source] for source in SOURCES if source in drawn)
    if one_at_a_time and len(drawn) > 1:
        return f"Seeds draw one of these at a time, while the others are held: {names}"
    shared = [_SHARED[source] for source in SOURCES if source not in drawn]
    if not shared:
        return f"Seeds draw {names}"
    return f"Seeds draw {names}; {listed(shared)} serve{'s' * (len(shared) == 1)} all seeds"


def listed(words: Iterable[str]) -> str:
    """Words as a list in a sentence."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def in_spans(seeds: Iterable[int]) -> str:
    """Seeds in their order, three or more that follow each other as a span: `0, 1, 5-9`."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][-1] + 1:
            spans[-1].append(seed)
        else:
            spans.append([seed])
    return ", ".join(
        f"{span[0]}-{span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans
    )


def check_draws(drawn: Sequence[Source], weights: str, test_images: int | None) -> None:
    """Check that a study's sources can be drawn.

    Raises:
        ValueError: Names the key, and what to do.
    """
    if "backbone" in drawn and weights != "random":
        raise ValueError(
            f"seed_draws: 'backbone' needs random weights, and backbone.weights is {weights!r}; "
            "take it out, or set backbone.weights to random"
        )
    if "split" in drawn and test_images is not None:
        raise ValueError(
            f"seed_draws: 'split' would draw other test images at every seed, as data.test_images "
            f"asks for {test_images:,} of them; set data.test_images to null, which takes all"
        )


def _seed_list(value: object) -> object:
    """A plain number n stands for the seeds 0 … n − 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > MOST_SEEDS:
        raise ValueError(f"{value} seeds are more than {MOST_SEEDS}")
    return list(range(value))


def _seeds_differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{list(seeds)} names a seed twice")
    return seeds


def _sources_differ(drawn: tuple[Source, ...]) -> tuple[Source, ...]:
    if len(set(drawn)) < len(drawn):
        raise ValueError(f"{list(drawn)} names a source twice")
    return drawn


DistinctSeeds = Annotated[
    tuple[SeedNumber, ...], Field(min_length=1, strict=False), AfterValidator(_seeds_differ)
]
Seeds = Annotated[DistinctSeeds, BeforeValidator(_seed_list)]
SeedDraws = Annotated[tuple[Source, ...], Field(min_length=1), AfterValidator(_sources_differ)]
