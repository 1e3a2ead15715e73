"""The sidecar's page for people: a model's state to one HTML document that needs nothing else."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pegel_agent.sidecar.monitor.state import ModelState
from pegel_agent.sidecar.status import charts, words

CONTENT_TYPE = "text/html; charset=utf-8"
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The header under which the page works: no script, no request but its own."""

REFRESH_SECONDS = 10
FEATURES_IN_FULL = 12

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="{}"/>'
    '<path fill="none" stroke="#fff" stroke-width="1.6" '
    'd="M5 2.6h6M5 5.3h3M5 8h6M2 12c2-2.6 4 2.6 6 0s4-2.6 6 0"/></svg>'
)
_ICON_FILLS: dict[words.Tone, str] = {"drift": "#b23c0a", "calm": "#1f5f99", "waiting": "#5d6771"}


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("pegel_agent.sidecar.status"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(charts=charts, words=words)
    return environment.get_template("page.html")


@cache
def _icon(tone: words.Tone) -> str:
    return base64.b64encode(_ICON.format(_ICON_FILLS[tone]).encode()).decode()


def render(state: ModelState) -> bytes:
    """The page in UTF-8, to be served under CONTENT_SECURITY_POLICY."""
    verdict = words.verdict(state)
    page = _template().render(
        state=state,
        verdict=verdict,
        icon=_icon(verdict.tone),
        refresh=REFRESH_SECONDS,
        in_full=state.features[:FEATURES_IN_FULL],
        rest=state.features[FEATURES_IN_FULL:],
        top=charts.evidence_top(state.evidence_limit, [feature.evidence for feature in state.features]),
    )
    # A name out of JSON may hold half of a surrogate pair, which no encoding has a place for.
    return page.encode("utf-8", "replace")
