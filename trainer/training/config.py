"""What one training phase is: lengths, rates, precision, and which weights come out of it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.kinds import StrictModel

Precision = Literal["float32", "bfloat16", "float16"]
Tracker = Literal["tensorboard", "wandb"]


class FreezeConfig(StrictModel):
    """What is not trained. A frozen part is held in eval mode, too: its running statistics stay.

    backbone: all of ``detector.backbone``. stages: its first so many stages (``detector.backbone.stages``).
    batch_norm: the running statistics of every batch norm, whose scale and shift still learn; for few photos.
    """

    backbone: bool = False
    stages: int = Field(default=0, ge=0)
    batch_norm: bool = False

    @property
    def names_parts(self) -> bool:
        """Whether it wants a detector with a backbone of its own."""
        return self.backbone or self.stages > 0


class TrainingConfig(StrictModel):
    """One phase.

    steps: optimiser steps. batch_size: images a step, of all ranks together.
    accumulate: parts that a step's images pass through the detector in, where they do not fit at once. The
    gradient is the parts' mean; losses and batch norms see one part at a time.
    optimiser: ``momentum`` is SGD's. weight_decay: decoupled for adamw; norms and biases go without it unless
    ``decay_all``. lr_factors: of the rate, by the start of the parameters' names, the longest that fits:
    ``{backbone: 0.1}``.
    schedule: after a linear warm-up ``constant``, ``cosine`` (to 0), or ``multistep``: times ``step_factor``
    when each share of the steps in ``milestones`` is done.
    clip_norm: largest norm of the gradient.
    ema_decay: of an exponential moving average of the weights, 0 is off. The decay warms up as
    (1 + step) / (10 + step). Where there is an average, it is what is validated and handed on.
    precision: of convolutions and matrix products; weights, losses and scores stay float32. bfloat16 is fast
    on GPUs and on processors with AMX, and slow on others; float16 wants a GPU.
    compile: torch.compile for the network's forward pass. tf32: on GPUs, float32 products with 10-bit
    mantissas.
    validate_every: steps, 0 is never; the last step is validated, too. validate_on: ``photos`` are labelled
    photos beyond the training subset (the paper's way, also to choose a pretraining; METHOD 0.4);
    ``synthetic`` are composites of another seed, which cost no label.
    keep: which weights the phase hands on: ``last``, or ``best`` by ``best_by`` in the validations.
    checkpoint_every: steps. keep_last: how many of these checkpoints stay beside ``last``.
    loggers: beside ``metrics.jsonl``.
    """

    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay_all: bool = False
    lr: float = Field(default=1e-4, gt=0)
    lr_factors: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.7, 0.9)
    step_factor: float = Field(default=0.1, gt=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float = Field(default=10.0, gt=0)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    freeze: FreezeConfig = FreezeConfig()
    precision: Precision = "float32"
    compile: bool = False
    tf32: bool = True
    validate_every: int = Field(default=0, ge=0)
    validate_on: Literal["photos", "synthetic"] = "photos"
    keep: Literal["last", "best"] = "last"
    best_by: Literal["AP50", "AP"] = "AP50"
    checkpoint_every: int = Field(default=100, ge=1)
    keep_last: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1)
    loggers: tuple[Tracker, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "TrainingConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: found {self.accumulate}, wanted a divisor of batch_size {self.batch_size}"
            )
        if self.keep == "best" and not self.validate_every:
            raise ValueError("keep=best wants validate_every > 0")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: found {list(self.milestones)}, wanted ascending shares")
        return self
