"""A study: one comparison, as settings that fit together.

Every check that needs no data is made here, before anything is fetched or trained.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from swabench.study.averaging import NEEDS_SELECTION
from swabench.study.inputs import (
    BackboneSettings,
    DataSettings,
)
from swabench.study.landscape import LandscapeSettings, Part, rows_of_part
from swabench.study.limits import (
    MOST_METHODS,
    AboveHalf,
)
from swabench.study.methods import Method
from swabench.study.optimizers import ScheduleFreeSGD
from swabench.study.rules import ClaimRules
from swabench.study.seeds import Draws, SeedDraws, Seeds, check_draws, draws_of, in_words
from swabench.study.settings import CHANGES_NO_RESULT, Name, Settings, Title
from swabench.study.stages import BOUNDARIES, Pretraining, Stage
from swabench.study.sweep import RateSweep
from swabench.study.tuning import Tuning
from swabench.system.errors import InputError


def _none_is_empty(value: object) -> object:
    """`null` takes out what a study inherits."""
    return {} if value is None else value


class Study(Settings):
    """One comparison: what is trained, by which methods, on which seeds.

    Attributes:
        name: Names the folder under results; the file's stem.
        title: One line that says what the study is.
        seed_draws: What differs from seed to seed. What is not named is the same for all: the
            split and the backbone by their own settings, the others as at seed 0.
        one_source_at_a_time: Whether each seed draws only one of them, by turns, while the others
            are held: for telling how much each of them does, not for comparing methods.
        reference: The method that the others are compared with.
        confidence: Level of every interval.
        controls: Runs beside the table's rows that claims are held against.
        rate_sweep: The same methods at other rates: runs beside the table's rows, for claim C7.
        claims: The rules that decide the paper's claims.
        landscape: What is measured around the final weights.
        tuning: Search spaces of the methods, whose settings are then chosen before it runs.
        diverged: How a command ends that met a run whose loss left the finite numbers. Such a run
            is recorded and shown in either case. `fail`: in an error, after all else was done.
            `record`: as if nothing were wrong, for a study that tries such rates on purpose. The
            former is the default, for who meets one unawares has mostly set a rate wrongly, and
            an exit code is all that a script sees.
        mixed_hardware: Whether runs of one seed, which are compared in pairs, may come from
            several kinds of processors or GPUs. Those of different seeds may in either case.
    """

    name: Name
    title: Title
    data: DataSettings = DataSettings()
    backbone: BackboneSettings = BackboneSettings()
    pretrain: Pretraining
    finetune: Stage
    methods: Annotated[dict[Name, Method], Field(min_length=1, max_length=MOST_METHODS)]
    controls: Annotated[
        dict[Name, Method], Field(max_length=MOST_METHODS), BeforeValidator(_none_is_empty)
    ] = Field(default_factory=dict)
    seeds: Seeds
    seed_draws: SeedDraws = ("head", "order")
    one_source_at_a_time: bool = Field(default=False, strict=True)
    reference: str = "sgd"
    confidence: AboveHalf = 0.95
    rate_sweep: RateSweep | None = None
    claims: ClaimRules = ClaimRules()
    landscape: LandscapeSettings = LandscapeSettings()
    tuning: Tuning | None = None
    diverged: Annotated[Literal["record", "fail"], CHANGES_NO_RESULT] = "fail"
    mixed_hardware: Annotated[Literal["refuse", "allow"], CHANGES_NO_RESULT] = "refuse"

    @field_validator("methods", "controls")
    @classmethod
    def _all_means_all(cls, methods: dict[str, Method]) -> dict[str, Method]:
        if "all" in methods:
            raise ValueError("'all' names every method; choose another name")
        return methods

    @model_validator(mode="after")
    def _parts_fit(self) -> "Study":
        for stage in ("pretrain", "finetune"):
            if isinstance(getattr(self, stage).optimizer, ScheduleFreeSGD):
                raise ValueError(
                    f"{stage}.optimizer: 'schedule-free-sgd' is for single methods; set it as "
                    "a method's optimizer"
                )
        self._check_methods("methods", self.methods)
        self._check_methods("controls", self.controls)
        if self.pretrain.name in {**self.methods, **self.controls}:
            raise ValueError(f"pretrain.name: {self.pretrain.name!r} is also a method's name")
        if twice := sorted(self.methods.keys() & self.controls.keys()):
            raise ValueError(f"controls: {twice[0]!r} is also a method's name")
        if self.reference not in self.row_names:
            raise ValueError(
                f"reference: unknown method {self.reference!r}; "
                f"choose from {', '.join(self.row_names)}"
            )
        if BOUNDARIES.index(self.pretrain.trainable) > BOUNDARIES.index(self.finetune.trainable):
            raise ValueError(
                f"finetune.trainable: {self.finetune.trainable!r} would freeze layers that "
                f"pretraining trains ({self.pretrain.trainable!r}); train at least those"
            )
        self._check_random_weights()
        self._check_zero_init_residual()
        try:
            further = self.rate_sweep.further_methods(self.methods) if self.rate_sweep else {}
        except ValueError as error:
            raise ValueError(f"rate_sweep.{error}") from None
        for name in (self.pretrain.name, *self.controls):
            if name in further:
                raise ValueError(f"rate_sweep: its run {name!r} is also the name of another run")
        return self

    @model_validator(mode="after")
    def _named_methods_exist(self) -> "Study":
        known = {**self.methods, **self.controls}
        for part, name in self.claims.named_methods.items():
            if name not in known:
                raise ValueError(
                    f"claims.{part}: unknown method {name!r}; choose from {', '.join(known)}"
                )
        for name in self.landscape.methods or ():
            if name not in self.row_names:
                raise ValueError(
                    f"landscape.methods: unknown method {name!r}; "
                    f"choose from {', '.join(self.row_names)}"
                )
        shown = self.landscape.plane.method
        if shown is not None and shown not in self.averaging_methods:
            raise ValueError(
                f"landscape.plane.method: unknown averaging method {shown!r}; "
                f"choose from {', '.join(self.averaging_methods) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _tuning_fits(self) -> "Study":
        if self.tuning and self.one_source_at_a_time:
            raise ValueError("tuning: a study of one source at a time compares no methods; drop it")
        if self.tuning:
            self.tuning.check(self.methods, self.seeds, self.finetune.epochs, self.pretrain.name)
        return self

    @model_validator(mode="after")
    def _draws_fit(self) -> "Study":
        check_draws(self.seed_draws, str(self.backbone.weights), self.data.test_images)
        return self

    def _check_methods(self, key: str, methods: Mapping[str, Method]) -> None:
        for name, method in methods.items():
            try:
                method.check(self.finetune.epochs)
            except ValueError as error:
                raise ValueError(f"{key}.{name}.{error}") from None
            if isinstance(method.averaging, NEEDS_SELECTION) and not self.data.selection_images:
                raise ValueError(
                    f"{key}.{name}.averaging: {method.averaging.plan} needs selection images; "
                    "set data.selection_images to a part of data.validation_images"
                )

    def _check_random_weights(self) -> None:
        """Random weights come with means of 0 and variances of 1, which are not their own.

        As soon as BatchNorm trains, the network is another one, and what was fitted to the old
        one's features before (a final layer, a standardisation) means nothing.
        """
        stage = self.finetune
        if (
            self.backbone.weights != "random"
            or stage.trainable == "head"
            or stage.batchnorm == "frozen"
        ):
            return
        if self.pretrain.trainable == "head":
            raise ValueError(
                "pretrain.trainable: 'head' trains on random weights without BatchNorm statistics, "
                f"and is lost when finetune trains BatchNorm; use {stage.trainable!r}, set "
                "finetune.batchnorm to frozen, or name weights in backbone.weights"
            )
        if self.backbone.standardize_features:
            raise ValueError(
                "backbone.standardize_features: true would fit random weights without BatchNorm "
                f"statistics, and {stage.trainable!r} trains BatchNorm; set it to false"
            )

    def _check_zero_init_residual(self) -> None:
        """For random weights that train as a whole: frozen blocks would stay without effect."""
        if not self.backbone.zero_init_residual:
            return
        if self.backbone.weights != "random":
            raise ValueError(
                "backbone.zero_init_residual: true is for random weights; set it to false, or set "
                "backbone.weights to random"
            )
        if self.pretrain.trainable != "all":
            raise ValueError(
                "backbone.zero_init_residual: true leaves residual blocks without effect until "
                f"they train, and pretrain.trainable is {self.pretrain.trainable!r}; set that to "
                "all, or set zero_init_residual to false"
            )

    def draws(self, seed: int) -> Draws:
        """The numbers from which a seed's runs draw."""
        base = Draws(split=self.data.split_seed, backbone=self.backbone.seed)
        return draws_of(seed, base, self.seed_draws, self.one_source_at_a_time)

    def as_drawn(self, seed: int) -> "Study":
        """The study with the split and the backbone that a seed draws."""
        draws = self.draws(seed)
        data = self.data.model_copy(update={"split_seed": draws.split})
        backbone = self.backbone.model_copy(update={"seed": draws.backbone})
        return self.model_copy(update={"data": data, "backbone": backbone})

    @property
    def draws_in_words(self) -> str:
        """What the seeds draw, as a sentence."""
        return f"{in_words(self.seed_draws, self.one_source_at_a_time)}."

    @property
    def row_names(self) -> tuple[str, ...]:
        """Names of the table's rows: pretraining, then the methods in the study's order."""
        return (self.pretrain.name, *self.methods)

    @cached_property
    def sweep_cells(self) -> Mapping[tuple[str, float], str]:
        """The run behind each (method, rate) of the rate sweep; empty without one."""
        return self.rate_sweep.cells(self.methods) if self.rate_sweep else {}

    @cached_property
    def all_methods(self) -> Mapping[str, Method]:
        """The table's methods, the controls, and what the sweep adds: all that is fine-tuned."""
        further = self.rate_sweep.further_methods(self.methods) if self.rate_sweep else {}
        same = {"optimizer": None}  # the stage's, spelled out, is no other
        return {
            name: method.model_copy(update=same)
            if method.optimizer == self.finetune.optimizer
            else method
            for name, method in {**self.methods, **self.controls, **further}.items()
        }

    @property
    def run_names(self) -> tuple[str, ...]:
        """Names of all runs of a seed: the table's rows, the controls, then the sweep's."""
        return (self.pretrain.name, *self.all_methods)

    @property
    def averaging_methods(self) -> tuple[str, ...]:
        """Names of the methods whose result is an average."""
        return tuple(name for name, method in self.methods.items() if method.averaging)

    def row_method(self, name: str) -> Method:
        """The method behind a row of the table, or behind a run of the rate sweep."""
        return self.pretrain.method if name == self.pretrain.name else self.all_methods[name]

    def row_stage(self, name: str) -> Stage:
        """The stage that a row of the table is the result of."""
        return self.pretrain if name == self.pretrain.name else self.finetune

    def landscape_rows(self, part: Part) -> tuple[str, ...]:
        """The rows of the table that a part of the landscape looks at, see `rows_of_part`."""
        wanted = self.landscape.methods
        always = (self.pretrain.name, self.reference)
        rows = [n for n in self.row_names if wanted is None or n in (*always, *wanted)]
        return rows_of_part(
            part,
            rows,
            reference=self.reference,
            averages=[name for name in self.averaging_methods if name in rows],
            shown=self.landscape.plane.method,
        )

    def landscape_seeds(self, part: Part, seeds: Sequence[int]) -> list[int]:
        """Which of `seeds` a part of the landscape looks at: the first few, or all."""
        return list(seeds[: self.landscape.part(part).seeds])

    def select_methods(self, names: list[str]) -> list[str]:
        """The named methods in the study's order; `all` names every one, the sweep's too.

        Raises:
            InputError: A name is no method of this study.
        """
        for name in names:
            if name != "all" and name not in self.all_methods:
                raise InputError(
                    f"--method: unknown method {name!r} in study {self.name!r}; "
                    f"choose from {', '.join(self.all_methods)}, or all"
                )
        return [name for name in self.all_methods if name in names or "all" in names]
