"""The page shows the state, in order, whatever it holds, and needs nothing but itself."""

import math
import re
from html.parser import HTMLParser

import msgspec
import pytest
from msgspec.structs import replace
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.state import AccuracyState, FeatureState, ModelState, ReferenceState
from pegel_agent.sidecar.status import charts
from pegel_agent.sidecar.status.page import CONTENT_SECURITY_POLICY, FEATURES_IN_FULL, render
from status_samples import NOW, categorical, drifting, numeric, untouched

VOID = {"meta", "link", "img"}
HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onload='x",
    "</title></svg><b>",
    "{{ 7 * 7 }}",
    "\ud800\x00\u202e",
    "x" * 5_000,
)


class Outline(HTMLParser):
    """A page's elements with their attributes, its headings' texts, and its visible text; fails on bad nesting."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")
        if self.headings and {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data

    def tags(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def hostile(text: str) -> ModelState:
    """A state with a text wherever a text can be."""
    feature = replace(numeric("n", shift=1.0, evidence=5.0), name=text, direction=text, bins=(text,) * 23)
    return replace(
        drifting(),
        model_name=text,
        model_version=text,
        window=text,
        features=(feature, replace(categorical("c"), name=text, bins=(text,) * 7)),
        reference=ReferenceState("profile", text, NOW, 1, 0),
    )


NOTHING_KNOWN = replace(
    drifting(),
    evidence=None,
    drifted_since=None,
    features=(
        FeatureState("a", "numeric", "input", (), (), (), 0, None, True, "", None, None, None, None),
        replace(
            categorical("b", evidence=-math.inf), bins=("x",), reference=(1.0,), current=(math.nan,), rows=0, psi=None
        ),
    ),
    history=(),
    accuracy=AccuracyState("ok", 0, None, None, None, ()),
    reference=ReferenceState("learned", "", None, 0, 0),
    tap=TapState(),
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_stays_text(text: str) -> None:
    plain, attacked = Outline(render(hostile("n"))), Outline(render(hostile(text)))
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in plain.elements]
    assert [attributes.keys() for _, attributes in attacked.elements] == [
        attributes.keys() for _, attributes in plain.elements
    ]


def test_a_hostile_name_is_shown_as_it_is_written() -> None:
    assert "<script>alert(1)</script>" in Outline(render(hostile(HOSTILE[0]))).headings
    assert b"<script" not in render(hostile(HOSTILE[0]))


def test_the_page_says_what_the_reference_can_show_and_which_features_it_tells_apart_by_hour() -> None:
    state = drifting()
    seasonal = replace(state.features[0], design_effect=2.34, by_hour=True)
    reference = replace(state.reference, dependence="measured", order_windows=576, smallest_shift=0.0712)
    text = " ".join(Outline(render(replace(state, features=(seasonal,), reference=reference))).text.split())
    assert "Design effect 2.3 by hour" in text.replace("effect2", "effect 2")
    assert "Smallest shift it can show 0.07 σ" in text.replace("show0", "show 0")
    assert "Measured in 576 windows of the reference" in text


def test_the_page_is_in_the_order_in_which_one_asks() -> None:
    headings = Outline(render(drifting())).headings
    features = [feature.name for feature in drifting().features]
    features[3] += " prediction"
    assert headings == [
        "txhousing version 3",
        "Evidence for drift",
        "Features by evidence, 33\N{NO-BREAK SPACE}% drifted",
        *features,
        "Accuracy",
        "Tap",
        "Reference",
    ]


def test_the_verdict_comes_before_all_numbers() -> None:
    text = Outline(render(drifting())).text
    assert text.index("Drift since 13:56 UTC in inventory (down)", text.index("version 3")) < text.index(
        "Watching since"
    )


@pytest.mark.parametrize(
    "shown",
    [
        "52,480", "5,248", "0.8", "4.10 ms", "12.3 ms", "87.4 ms", "12:18 UTC", "2026-05-03 14:03:30 UTC",
        "in 105 windows", "alarm at 3.9", "8,640 windows", "6.4 of 3.9", "Drifted: lower values", "limit 0.061",
        "Leans to higher values", "Quiet", "PSI, JS and KS are of the last window alone",
        "82.3 %", "80.7 % to 83.8 %", "2,310 labels", "5,201", "40 0.8 %", "9f31c2ab", "24 Mar 14:03 UTC", "10,000",
        "San Antonio\nreference 14.0 %\nnow 15.0 %",
    ],
)  # fmt: skip
def test_the_page_shows(shown: str) -> None:
    assert shown in Outline(render(drifting())).text


def test_the_first_features_are_shown_in_full_and_the_rest_on_request() -> None:
    page = render(drifting(50))
    before, _, folded = page.partition(b"<details>")
    assert before.count(b"<h3>") == FEATURES_IN_FULL
    assert folded.count(b"<h3>") == 50 - FEATURES_IN_FULL
    assert b"38 more features" in folded
    assert b"<details>" not in render(drifting(FEATURES_IN_FULL))


def test_fifty_features_fit_in_300_kilobytes() -> None:
    assert len(render(drifting(50))) < 300_000


def test_a_feature_with_thousands_of_categories_does_not_swell_the_page() -> None:
    many = 5_000
    feature = replace(
        categorical("city"),
        bins=tuple(f"category {number}" for number in range(many)),
        reference=(1 / many,) * many,
        current=(1 / many,) * many,
    )
    assert len(render(replace(drifting(), features=(feature,)))) < 40_000


@pytest.mark.parametrize("state", [drifting(50), untouched(), NOTHING_KNOWN])
def test_the_page_needs_nothing_but_itself(state: ModelState) -> None:
    page = render(state)
    outline = Outline(page)
    assert not re.search(rb"https?://|[\"'(]//|url\(|@import|<script|\son\w+=", page)
    assert not outline.tags("script")
    for tag, name in (("img", "src"), ("link", "href")):
        assert all((attributes[name] or "").startswith("data:") for attributes in outline.tags(tag))
    # Relative, so that they work behind kubectl's proxy too.
    assert {link["href"] for link in outline.tags("a")} == {"metrics", "api/status", "?still#still", "."}
    assert CONTENT_SECURITY_POLICY == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("state", [untouched(), NOTHING_KNOWN, drifting()])
def test_no_value_is_shown_as_python_writes_it(state: ModelState) -> None:
    assert not re.search(r"\bNone\b|\bnan\b|-?\binf\b|Undefined", Outline(render(state)).text)


def test_a_state_that_knows_nothing_says_so() -> None:
    text = Outline(render(untouched())).text
    for said in (
        "No traffic yet",
        "No window has closed yet",
        "Not known before there is a reference",
        "No labels yet",
        "being learned",
    ):
        assert said in text
    assert "– of 3.9" in Outline(render(NOTHING_KNOWN)).text
    assert "Moved most" not in Outline(render(NOTHING_KNOWN)).text


def test_a_model_that_does_not_listen_is_said_right_after_the_verdict() -> None:
    tap = TapState(errors=4, refused=4, refused_last_minute=4, upstream="127.0.0.1:8501")
    text = Outline(render(replace(untouched(), tap=tap))).text
    said = text.index("The model does not listen on 127.0.0.1:8501: 4 connections refused in the last minute.")
    assert text.index("No request has reached the model yet", text.index("version 3")) < said
    assert said < text.index("Watching since")
    assert "0 errors" in text, "they are no requests"
    assert "4 refused" in text
    assert "does not listen" not in Outline(render(untouched())).text


def test_what_learning_still_needs_is_on_the_page() -> None:
    learning = ReferenceState("learning", "", None, 15_000, 10_000, 30, 80)
    text = Outline(render(replace(untouched(), rows=15_000, reference=learning))).text
    for said in ("10,000 of 10,000 rows, 30 of 80 windows", "15,000 10,000 needed", "30 80 needed"):
        assert said in text


def test_the_accuracy_s_curve_ends_at_the_number_beside_it() -> None:
    accuracy = AccuracyState("ok", 700, 0.9, 0.88, 0.92, ((NOW - 60, 0.5, 0.4, 0.6), (NOW, 0.6, 0.5, 0.7)))
    assert charts.accuracy_points(accuracy, NOW) == ((NOW - 60, 0.5, 0.4, 0.6), (NOW, 0.9, 0.88, 0.92))
    assert "last 90.0 %" in Outline(render(replace(drifting(), accuracy=accuracy))).text
    few = replace(accuracy, state="insufficient", accuracy=None, lower=None, upper=None)
    assert charts.accuracy_points(few, NOW) == few.history


def test_what_the_json_of_a_state_says_is_what_the_page_shows() -> None:
    state = replace(drifting(), history=drifting().history[1:])
    assert render(msgspec.json.decode(msgspec.json.encode(state), type=ModelState)) == render(state)


def test_every_drawing_has_a_title_and_every_section_a_name() -> None:
    page = render(drifting())
    outline = Outline(page)
    drawings = [attributes for attributes in outline.tags("svg") if "role" in attributes]
    assert len(drawings) == 2 + 2 * 6
    assert len(re.findall(rb'<svg [^>]*role="img"[^>]*><title>[^<]+</title>', page)) == len(drawings)
    names = {attributes.get("id") for _, attributes in outline.elements}
    for section in outline.tags("section"):
        assert section.get("aria-label") or section.get("aria-labelledby") in names
    for landmark in ("header", "main", "footer", "nav"):
        assert len(outline.tags(landmark)) == 1


def test_the_tabs_icon_and_title_tell_the_verdict() -> None:
    def icon(state: ModelState) -> str | None:
        return Outline(render(state)).tags("link")[0]["href"]

    calm = replace(drifting(), drifted=False, evidence=1.0)
    assert len({icon(drifting()), icon(calm), icon(untouched())}) == 3
    assert b"<title>No drift: evidence 1.0 of 3.9 needed \xc2\xb7 txhousing \xc2\xb7 Pegel</title>" in render(calm)
