"""What a stage draws: its mixture, whose keys name datasets or kinds of sample and whose values say how much."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import Count, Range, Weight, check_fields
from vl3.config.data import Category
from vl3.errors import ConfigError

Epochs = Annotated[float, Range(above=0, at_most=1e4)]
"""How often data are seen, as a mean."""
ONLY_DATASET = "data"
"""Name of the dataset that a plain data folder is, in mixtures and plans."""
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Names of datasets: no dot, which would part the path of an override, and no colon, which parts a mixture's key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How much a mixture draws of one key. A plain number in its place is an amount."""

    amount: Weight | None = None
    """Samples in each epoch of the stage; in a stage of `steps` only the proportions count. None: `epochs` says it."""
    epochs: Epochs | None = None
    """Instead of an amount: so often every sample of the key in each epoch of the stage."""
    max_epochs: Epochs | None = None
    """How often the stage sees a sample of the key at most; None sets no limit."""
    cap: Count | None = None
    """Samples of the key that may be drawn at most, the same ones in every run; None takes all."""

    def __post_init__(self) -> None:
        check_fields(self, "stage.mixture")
        if (self.amount is None) == (self.epochs is None):
            raise ConfigError(
                f"stage.mixture has {'neither' if self.amount is None else 'both'} of amount and epochs for a key, so "
                "how much is drawn would be unclear. Set one of them."
            )


MixtureValue = Weight | Draw
Mixture = Mapping[str, MixtureValue]
"""Amount of each key: a number, or a Draw."""


def draw_of(value: MixtureValue) -> Draw:
    """The value of a mixture's key in its full form: 3 becomes Draw(amount=3)."""
    return value if isinstance(value, Draw) else Draw(amount=value)


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureKey:
    """Which samples a key names; None stands for any.

    `chart` and `chart:qa` name samples of any dataset, `plotqa`, `plotqa:chart` and `plotqa:chart:qa` those of one.
    """

    dataset: str | None
    category: Category | None
    source: str | None

    @classmethod
    def parse(cls, key: str) -> "MixtureKey":
        """Read `[DATASET:]CATEGORY[:SOURCE]` or `DATASET`; what is no category is a dataset.

        Raises:
            ConfigError: it is neither.
        """
        parts = key.split(":")
        dataset = None if parts[0] in tuple(Category) else parts.pop(0)
        if dataset is not None and not DATASET_NAME.fullmatch(dataset):
            raise ConfigError(
                f"stage.mixture key={key!r:.200} is neither a category ({', '.join(Category)}) nor a name of a "
                "dataset. Use up to 63 letters, digits, '_' and '-' for a dataset's name."
            )
        category = parts.pop(0) if parts else None
        if category is not None and category not in tuple(Category):
            raise ConfigError(
                f"stage.mixture key={key!r:.200}: {dataset} is no category and so a dataset, of which "
                f"{category!r:.100} is no category either. Choose one of {', '.join(Category)}."
            )
        source = parts.pop(0) if parts else None
        if parts or source == "":
            raise ConfigError(
                f"stage.mixture key={key!r:.200} is not of the form [DATASET:]CATEGORY[:SOURCE]. Correct it."
            )
        return cls(dataset=dataset, category=Category(category) if category else None, source=source)

    def names(self, dataset: str, category: str, source: str) -> bool:
        """Whether the key names the samples of a source of a dataset."""
        return self.dataset in (None, dataset) and self.category in (None, category) and self.source in (None, source)


def check_mixture(mixture: Mixture, *, by_epochs: bool) -> None:
    """Check keys and amounts.

    Raises:
        ConfigError: there is no key, a key names nothing, or the stage counts epochs and an amount is no whole number
            of samples.
    """
    if not mixture:
        raise ConfigError("stage.mixture is empty, so no sample could be drawn. Name at least one category or dataset.")
    for key, value in mixture.items():
        MixtureKey.parse(key)
        amount = draw_of(value).amount
        if by_epochs and amount is not None and amount != int(amount):
            raise ConfigError(
                f"stage.mixture.{key}={amount:g} is no whole number, and in a stage of epochs an amount is a number of "
                'samples. Write whole numbers, or {"epochs": 1} for all samples that there are.'
            )
