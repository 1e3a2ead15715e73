"""Features that are computed from a row's columns: relations between inputs, and what can be counted of texts."""

from collections.abc import Mapping

from pegel_agent.reference.columns import Column, as_numbers
from pegel_agent.reference.joint import Directions, directions_of
from pegel_agent.reference.profile import Profile
from pegel_agent.reference.texts import measures_of

Names = tuple[str, ...]


class Computed:
    """What to compute: `relations`, and of each column of text the features that its measures are."""

    def __init__(self, relations: Directions | None, texts: Mapping[str, Names]) -> None:
        self._relations = relations
        self._texts = texts

    @classmethod
    def by(cls, profile: Profile) -> "Computed":
        """What a profile watches besides its columns."""
        texts = {text.column: tuple(feature.name for feature in text.features) for text in profile.texts}
        return cls(directions_of(profile.joint) if profile.joint is not None else None, texts)

    def of(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """The features' values (rows,) that follow from columns (rows,), without those that need one that is not there.

        Categories must still have their own names.
        """
        found: dict[str, Column] = {}
        if self._relations is not None and columns.keys() >= frozenset(self._relations.inputs):
            inputs = {name: columns[name] for name in self._relations.inputs}
            numbers = {name: as_numbers(of)[0] if of.dtype == object else of for name, of in inputs.items()}
            found |= self._relations.scores(numbers)
        for column, names in self._texts.items():
            if column in columns:
                found |= dict(zip(names, measures_of(columns[column]), strict=True))
        return found
