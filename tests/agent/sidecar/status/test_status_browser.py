"""In a real browser: the page fits a phone, asks for nothing, complains of nothing, and can be read in both schemes."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.status.page import CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFRESH_SECONDS, render
from pegel_exporters.serving import Address, Request, Response, listen, serve
from playwright.sync_api import Browser, Page, sync_playwright
from status_samples import categorical, drifting, numeric, untouched

pytestmark = pytest.mark.integration

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONG = "a_name_that_someone_generated_from_nested_columns" * 2
STATES = {
    "/drifting": drifting(50),
    "/untouched": untouched(),
    "/plain": replace(
        drifting(),
        features=(replace(categorical("c"), reference=(1.0, *[0.0] * 6), current=(1.0, *[0.0] * 6)),),
        accuracy=untouched().accuracy,
    ),
    "/refused": replace(untouched(), tap=TapState(refused=4, refused_last_minute=4, upstream=LONG)),
    "/long": replace(
        drifting(),
        model_name=LONG,
        features=(numeric(LONG, shift=1, evidence=9.0), replace(categorical("c", evidence=8.0), bins=(LONG,) * 7)),
    ),
}
# What the eye needs of each text against what lies behind it (WCAG 2.1, 1.4.3), backgrounds blended.
CONTRASTS = """() => {
  const parse = text => { const c = text.match(/[\\d.]+/g).map(Number); return c.length > 3 ? c : [...c, 1] };
  const blend = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || element.tagName === 'title' || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    let behind = [], at = element;
    for (; at; at = at.parentElement) behind.push(parse(getComputedStyle(at).backgroundColor));
    const back = behind.reverse().reduce((below, top) => blend(top, below), [255, 255, 255, 1]);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(blend(ink, back)), light(back)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), element.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        message = "needs Chromium: install the package `chromium`"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The admin port's own server with our pages on it, in a thread."""
    loop = asyncio.new_event_loop()
    sock = listen(Address("127.0.0.1", 0))

    async def answer(request: Request) -> Response:
        body = render(STATES.get(request.path, drifting(50)))
        if request.path == "/hurried":
            body = body.replace(f'content="{REFRESH_SECONDS}"'.encode(), b'content="1"')
        return Response(200, body, CONTENT_TYPE, {"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(serve(answer, sock), loop).result()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Browser, scheme: str) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("path", STATES)
def test_on_a_phone_nothing_scrolls_sideways_and_nothing_else_is_asked_for(page: Page, base: str, path: str) -> None:
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(base + path)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [base + path]


@pytest.mark.parametrize("path", STATES)
def test_every_text_has_the_contrast_that_AA_asks(page: Page, base: str, path: str) -> None:  # noqa: N802
    page.goto(base + path)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 20
    assert [text for contrast, text in measured if contrast < 4.5] == []


def test_a_full_histogram_s_scale_is_one_line(page: Page, base: str) -> None:
    page.goto(base + "/plain")
    labels = page.locator(".scale span:first-child")
    assert labels.all_inner_texts() == ["100.0\N{NO-BREAK SPACE}%"]
    assert labels.evaluate("one => one.getClientRects().length") == 1
    assert labels.evaluate("one => one.getBoundingClientRect().left >= one.parentElement.getBoundingClientRect().left")


def test_the_lists_at_the_end_are_level(page: Page, base: str) -> None:
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(base + "/plain")
    tops = "list => [...new Set([...list.children].map(one => Math.round(one.getBoundingClientRect().top)))]"
    tap, reference = (one.evaluate(tops) for one in page.locator(".pair .list").all())
    assert len(tap) == 2
    assert tap == reference


def test_a_dark_scheme_is_dark(page: Page, base: str, scheme: str) -> None:
    page.goto(base + "/drifting")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(18, 23, 28)" if scheme == "dark" else "rgb(252, 252, 250)")


def test_reference_and_current_bars_differ_by_more_than_colour(page: Page, base: str) -> None:
    page.goto(base + "/drifting")
    stroke = "selector => getComputedStyle(document.querySelector(selector)).stroke"
    assert page.evaluate(stroke, ".histogram .now") == "none"
    assert page.evaluate(stroke, ".histogram .then") != "none"


def test_the_page_is_loaded_again_by_itself(page: Page, base: str) -> None:
    page.goto(base + "/hurried")
    with page.expect_request(base + "/hurried"):
        pass


def test_a_page_held_still_is_not_loaded_again(page: Page, base: str) -> None:
    page.goto(base + "/drifting")
    page.get_by_role("link", name="Hold it still").click()
    page.wait_for_url("**/drifting?still#still")
    page.locator("#still").wait_for(state="visible")

    requests: list[str] = []
    page.goto(base + "/hurried?still#still")
    page.evaluate("document.querySelector('details').open = true; scrollTo(0, 900)")
    page.on("request", lambda request: requests.append(request.url))
    with page.expect_event("framenavigated"):  # the refresh, gone to the fragment instead
        pass
    assert requests == []
    assert page.evaluate("[document.querySelector('details').open, scrollY]") == [True, 900]

    page.get_by_role("link", name="Follow again").click()
    page.wait_for_url(base + "/")
