"""What a study is made from: which images, and which network with which weights."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from swabench.study.limits import LARGEST_SIDE, MOST_IMAGES, Images, SeedNumber
from swabench.study.published import DatasetName
from swabench.study.settings import (
    CHANGES_NO_RESULT,
    AddedLater,
    Name,
    Settings,
    Text,
    no_control,
)

SplitName = Literal["train", "selection", "validation", "test"]
Precision = Literal["float32", "bfloat16"]


def _no_control(path: Path) -> Path:
    no_control(str(path))
    return path


class DataSettings(Settings):
    """Which images, at what size, and how many are held out of training for validation.

    Attributes:
        dataset: A known data set, or `folder` for any four IDX files.
        folder: Where the files lie; without it they are looked for in the user's cache, then
            downloaded.
        image_size: Side in pixels; images of another size are resized (bilinear, antialiased).
        validation_images: Training images held out, the same share of every class.
        selection_images: How many of those held out are selection images: some averages choose
            or weigh their members by them. The others are the validation images. Neither is
            trained on, and no average sees validation or test images.
        split_seed: Seed of the draw that holds them out, where seeds do not draw the split.
        normalization: Mean and deviation of this data set, or ImageNet's for its weights.
        training_images: Train on a stratified draw of so many images; None for all.
        test_images: Test on a stratified draw of so many images; None for all.
    """

    dataset: DatasetName = "mnist"
    # Its bytes count, not where they lie.
    folder: Annotated[Annotated[Path, AfterValidator(_no_control)] | None, CHANGES_NO_RESULT] = None
    image_size: Annotated[int, Field(strict=True, ge=8, le=LARGEST_SIDE)] = 28
    validation_images: Images = 5000
    selection_images: Annotated[
        int, AddedLater(neutral=0), Field(strict=True, ge=0, le=MOST_IMAGES)
    ] = 0
    split_seed: SeedNumber = 0
    normalization: Literal["dataset", "imagenet"] = "dataset"
    training_images: Images | None = None
    test_images: Images | None = None

    @model_validator(mode="after")
    def _folder_is_named(self) -> "DataSettings":
        if self.dataset == "folder" and self.folder is None:
            raise ValueError("folder: the data set 'folder' needs the path of a folder")
        return self

    @model_validator(mode="after")
    def _some_are_left_to_validate(self) -> "DataSettings":
        if self.selection_images >= self.validation_images:
            raise ValueError(
                f"selection_images: {self.selection_images} are not fewer than "
                f"validation_images ({self.validation_images}), of which they are a part"
            )
        return self


class RunOfStudy(Settings):
    """A run of another study, whose result another study starts from.

    Attributes:
        study: The other study: a bundled one's name, or its file.
        method: Name of the run.
        seed: Its seed.
    """

    study: Text
    method: Name
    seed: SeedNumber = 0

    def __str__(self) -> str:
        return f"{self.method} at seed {self.seed} of study {Path(self.study).stem}"


class BackboneSettings(Settings):
    """ResNet-50: where its weights come from and how the frozen part is computed.

    Attributes:
        weights: `random`, a torchvision name such as `IMAGENET1K_V1`, a file (.pth,
            .safetensors), or the run of another study, which is run first where it is missing.
        reestimate_batchnorm: Whether BatchNorm's statistics are measured on this study's training
            images before anything else; those that come with the weights belong to other images.
        zero_init_residual: Whether random weights begin with every residual block adding nothing
            to its shortcut (the scale of its last BatchNorm is zero; Goyal et al. 2017, arXiv
            1706.02677). Such a network is to be trained as a whole.
        seed: Seed of random weights, where seeds do not draw the backbone: features are shared.
        standardize_features: Whether the head sees features with the training set's mean and
            deviation taken out. Random features need it: their scales differ by far.
        precision: Number format in which frozen layers are computed and cached.
        cache_features: Whether training reads the frozen layers' outputs from the cache; `false`
            runs the frozen layers anew each step, where the cache would not fit. The results are
            the same.
    """

    weights: Text | RunOfStudy = "random"
    reestimate_batchnorm: Annotated[bool, AddedLater(neutral=False)] = Field(
        default=False, strict=True
    )
    zero_init_residual: Annotated[bool, AddedLater(neutral=False)] = Field(
        default=False, strict=True
    )
    seed: SeedNumber = 0
    standardize_features: bool = Field(default=True, strict=True)
    precision: Precision = "float32"
    cache_features: Annotated[bool, CHANGES_NO_RESULT] = Field(default=True, strict=True)
