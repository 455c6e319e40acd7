"""What the passes that train may be asked for."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from app.recipes.base import Arguments, Name, Need, PassConfig

LEARNING_RATES = {"adamw": 1e-3, "sgd": 1e-2}
WEIGHT_DECAYS = {"adamw": 1e-2, "sgd": 1e-4}


class TrainingOptions(Arguments):
    """How long, how fast and on what is trained."""

    # Infinity is no number of JSON: a manifest could not record it.
    model_config = ConfigDict(allow_inf_nan=False)

    epochs: int = Field(default=5, ge=1, le=10_000, description="Times that the training data is gone through.")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Samples of a step.")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="AdamW, or SGD with Nesterov's momentum.")
    learning_rate: float | None = Field(
        default=None, gt=0, le=100, description="The highest; by default 0.001 with `adamw` and 0.01 with `sgd`."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="With `sgd`.")
    weight_decay: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Of matrices and filters; by default 0.01 with `adamw`, 0.0001 with `sgd`.",
    )
    warmup: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of all steps in which the learning rate rises to its highest; after it, it falls to zero "
        "along a cosine.",
    )
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="Longest gradient, all weights together; null: as long as it is."
    )
    averaging: float | None = Field(
        default=0.999,
        gt=0,
        lt=1,
        description="Decay of the average over steps that is judged and kept in place of the last weights; of the "
        "first steps it is smaller. Null: no average.",
    )
    held_out: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the training data, drawn by the seed, that is not trained on and chooses the epoch that "
        "is kept.",
    )
    patience: int | None = Field(
        default=5, ge=1, description="Stop after so many epochs in a row without a better one; null: never."
    )
    freeze_statistics: bool = Field(
        default=False, description="Keep the running means and variances of BatchNormalization, and train with them."
    )
    restore_normalization: bool = Field(
        default=True,
        description="Where classes are learned, train convolutions that BatchNormalization was folded into with one "
        "behind them again, and fold it anew in the end: more is learned, in about a third more time. Not where "
        "weights are rounded or lose their smallest meanwhile.",
    )
    freeze: list[Name] = Field(
        default=[], max_length=10_000, description="Names of weight tensors that are not trained."
    )
    keep_zeros: bool = Field(
        default=True,
        description="Keep what is zero in weight tensors of which 5 % and more are, as pruning leaves them, and what "
        "is zero and was not in the model as it was uploaded.",
    )
    labels: dict[Name, Name] = Field(
        default={},
        max_length=256,
        description="By output: the array of the training data with its labels. By default arrays bear the names of "
        "their outputs, or the only one of whole numbers goes with the first output that scores its classes; a "
        "column of them, where an output holds one number a sample, with that. "
        "Numbers of classes may be whole floats, and have an axis of one where the output has its scores; NaN and "
        "negative ones are not counted. Whole numbers or booleans that are all 0 or 1, one for each element of the "
        "output, are learned by binary cross-entropy, rows of them with a single 1 as numbers of classes; other "
        "numbers by squared error.",
    )
    kinds: dict[Name, Literal["classes", "numbers"]] = Field(
        default={},
        max_length=256,
        description="By output: whether it scores classes or holds numbers. By default labels say it, or a Softmax at "
        "the end; rows of numbers that could be either are taught as both. Classes of rows and sequences lie on the "
        "last axis, those of images on the second. `numbers` holds for labels of 0 and 1, too.",
    )
    stop_after: int | None = Field(
        default=None,
        ge=1,
        description="End after so many epochs of a schedule made for `epochs`, as a manifest records it where time ran "
        "out.",
    )

    @property
    def highest_rate(self) -> float:
        return self.learning_rate or LEARNING_RATES[self.optimizer]

    @property
    def decay(self) -> float:
        return WEIGHT_DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    def training_labels(self) -> dict[str, str]:
        return dict(self.labels)

    def training_kinds(self) -> list[str]:
        return list(self.kinds)

    def filled_in(self) -> dict[str, Any]:
        """Every argument as JSON has it, with the defaults that depend on others."""
        return self.model_dump(mode="json", by_alias=True) | {
            "learning_rate": self.highest_rate,
            "weight_decay": self.decay,
        }


class TeachingOptions(TrainingOptions):
    """L = alpha L_soft + beta L_features + gamma L_hard."""

    alpha: float = Field(
        default=1.0,
        ge=0,
        description="Weight of what the teacher answers: of classes the cross-entropy of its probabilities at "
        "`temperature`, times the square of that; of numbers the squared error as a share of the mean square over "
        "training samples.",
    )
    beta: float = Field(
        default=0.0,
        ge=0,
        description="Weight of what the teacher computes within: squared error as a share of the mean square over "
        "training samples, summed over features.",
    )
    gamma: float | None = Field(
        default=None, ge=0, description="Weight of the labels; by default 1 where there are any, else 0."
    )
    temperature: float = Field(default=4.0, gt=0, le=100, description="Of the softmax on both sides in L_soft.")
    features: dict[Name, Name] = Field(
        default={},
        max_length=64,
        description="By tensor of the student: the teacher's that it should come close to. By default tensors of the "
        "same name, else of the same place in space, through a projection that is learned and thrown away. `beta` is "
        "their weight.",
    )

    @property
    def needs_labels(self) -> bool:
        """Whether nothing else can be learned from, or they are given a weight."""
        return bool(self.gamma) or self.alpha == self.beta == 0

    def own_needs(self) -> frozenset[Need]:
        labels: set[Need] = {"labels"} if self.needs_labels else set()
        return super().own_needs() | labels

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.alpha == self.beta == self.gamma == 0:
            raise ValueError("`alpha`, `beta` and `gamma` are all 0: nothing would be learned")
        if self.features and self.beta == 0:
            raise ValueError("`features` are named and have no weight: give `beta` as well, or leave them out")
        return self


class FineTune(TrainingOptions, PassConfig):
    """The model trained on with labels, at a small rate: what an earlier pass took, it may learn again."""

    pass_: Literal["fine_tune"] = Field(alias="pass", description="The pass.")


class TeachingPass(TeachingOptions, PassConfig):
    """A pass that is a lesson by a teacher, and has its arguments for its own."""

    argument_needs: ClassVar[Mapping[str, frozenset[Need]]] = {"gamma": frozenset({"labels"})}


class Distill(TeachingPass):
    """The model trained to answer as its original does, or as another model; needs no labels."""

    pass_: Literal["distill"] = Field(alias="pass", description="The pass.")
    teacher: UUID | None = Field(
        default=None, description="An uploaded model to learn from; by default the job's, as it was uploaded."
    )
    student: UUID | None = Field(
        default=None,
        description="An uploaded model to be trained and delivered, of any architecture, that takes the calls of the "
        "job's: inputs of the same names and types, and as many samples. By default the job's, as the passes before "
        "leave it.",
    )

    def other_models(self) -> dict[str, UUID]:
        named = {"teacher": self.teacher, "student": self.student}
        return {argument: model for argument, model in named.items() if model is not None}
