"""Labels joined to predictions: what clients post, when it may be judged, what is made of it, what is published."""

from pegel_agent.sidecar.feedback.answers import predictions_of, scores_of
from pegel_agent.sidecar.feedback.items import Answer, Item, items_of
from pegel_agent.sidecar.feedback.labels import Labels
from pegel_agent.sidecar.feedback.published import families

__all__ = ["Answer", "Item", "Labels", "families", "items_of", "predictions_of", "scores_of"]
