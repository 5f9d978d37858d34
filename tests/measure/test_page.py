"""The page agrees with the report, loads nothing else, and can be read and used in a browser."""

import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, browser_page

import swsjax
from swsjax.measure.html import MOST_PICTURE_BYTES, Picture
from swsjax.measure.page import page
from swsjax.measure.plot import file_pictures

VOID = {"meta", "link", "img", "br", "wbr"}
WIDTHS = {"phone": 390, "wide": 1440}


class Outline(HTMLParser):
    """Checks that tags are closed, and keeps attributes and the cells of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(0)
    kernel = rng.choice(np.float32([0, 0.5, -0.25]), (400, 300), p=[0.9, 0.06, 0.04])
    bias = rng.choice(np.float32([0, 0.5]), 300)
    return {"a layer with a rather long name": {"kernel": kernel, "<b>": bias}}


@pytest.fixture(scope="module")
def measured(tree):
    data = swsjax.dumps(tree, metadata={"model": "a <small> net"})
    return swsjax.report(
        data,
        errors={
            "pretrained": {"test": 0.031},
            "retrained": {"test": 0.032},
            "decoded": {"validation": 0.0125, "test": 0.0333},
        },
        baseline=[np.zeros(130_000)],
        operations={"dense": 250_000, "zeros skipped": 12_000},
    )


@pytest.fixture(scope="module")
def pictures(tree, measured):
    return file_pictures(tree, measured)


@pytest.fixture(scope="module")
def text(measured, pictures):
    settings = {"config": swsjax.Config(tau=0.01).to_dict()}
    return page(
        measured, "n & m.sws", pictures=pictures, settings=settings, versions={"swsjax": "9.9"}
    )


def test_the_page_agrees_with_the_report(text, measured):
    outline = Outline(text)
    cells = {row[0]: row[1:] for row in outline.rows}
    sizes = [
        cells[key]
        for word in ("File: ", "Han f", "Entropy b", "Baseline")
        for key in cells
        if key.startswith(word)
    ]
    rates = measured.rates
    assert sizes == [
        [f"{measured.file_bytes:,}", f"{rates['file']:.1f}×"],
        [f"{measured.han_bits / 8:,.0f}", f"{rates['han']:.1f}×"],
        [f"{measured.entropy_bits / 8:,.0f}", f"{rates['entropy_bound']:.1f}×"],
        ["520,000", "1.0×"],
    ]
    layer = measured.layers[1]
    assert cells[layer.name][:5] == [
        "400 × 300",
        "120,000",
        f"{layer.non_zeros:,}",
        f"{100 * layer.non_zeros / 120_000:.2f} %",
        "3",
    ]
    assert cells["total"][1] == "120,300"
    assert cells["parameters, original"] == ["130,000", "100.00 %"]
    assert cells["parameters, in the file"] == ["120,300", "92.54 %"]
    assert cells["multiply-adds, dense"] == ["250,000", "100.00 %"]
    assert cells["multiply-adds, zeros skipped"] == ["12,000", "4.80 %"]
    assert cells["error"] == ["test", "validation"]
    assert cells["pretrained"] == ["3.10 %", "-"]
    assert cells["retrained"] == ["3.20 %", "-"]
    assert cells["decoded"] == ["3.33 %", "1.25 %"]
    assert "retrained: the weights before they were quantised" in text
    assert cells["config.tau"] == ["0.01"]
    assert cells["config.hyper_priors.zero_precision.shape"] == ["5000.0"]
    assert cells["version of swsjax"] == ["9.9"]
    assert cells["model (in the file)"] == ["a <small> net"]
    headline = re.search('<div class="headline">(.*?)</p></div>', text).group(1)
    assert headline.endswith(f"<p>{rates['file']:.0f}× smaller")
    before, after = re.findall("<h2>(.*?)</h2><dl>(.*?)</dl>", headline)
    assert before == (
        "Before",
        "<dt>size</dt><dd>520,000 bytes</dd><dt>parameters</dt><dd>130,000</dd>"
        "<dt>test error</dt><dd>3.10 %</dd>",
    )
    assert after == (
        "After",
        f"<dt>size</dt><dd>{measured.file_bytes:,} bytes</dd>"
        f"<dt>not zero</dt><dd>{measured.non_zeros:,}</dd>"
        "<dt>test error</dt><dd>3.33 %</dd>",
    )
    assert "against all 130,000 parameters of the original net" in text
    assert "swsjax.load(&#x27;n &amp; m.sws&#x27;)" in text


def test_the_page_loads_nothing_else(text):
    outline = Outline(text)
    links = [tag[key] for _, tag in outline.tags for key in ("src", "href") if key in tag]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not outline.all("script")
    assert "url(" not in text
    assert "default-src 'none'" in outline.all("meta")[2]["content"]
    assert len(text.encode()) < 2_000_000


def test_the_page_is_accessible_to_screen_readers_and_keyboards(text, pictures):
    outline = Outline(text)
    assert outline.all("html")[0]["lang"] == "en"
    assert [tag["alt"] for tag in outline.all("img")] == [
        f"Figure: {picture.name}" for picture in pictures
    ]
    assert all(tag["scope"] in ("row", "col") for tag in outline.all("th"))
    identities = {tag["id"] for _, tag in outline.tags if "id" in tag}
    assert {tag["href"][1:] for tag in outline.all("a")} <= identities
    boxes = [tag for tag in outline.all("div") if tag.get("class") == "scroll"]
    assert len(boxes) == len(outline.all("table")) == 5
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_a_bare_report_has_no_empty_sections():
    empty = swsjax.report(swsjax.dumps({"empty": np.zeros((0, 3), np.float32)}))
    text = page(empty, "empty.sws")
    Outline(text)
    assert re.findall('<h2 id="(.*?)">', text) == ["sizes", "layers", "load"]


def test_a_page_stays_under_two_megabytes(measured):
    large = Picture("large", "One.", bytes(MOST_PICTURE_BYTES - 10))
    other = Picture("other", "Two.", bytes(100))
    text = page(measured, "net.sws", pictures=[large, other])
    assert len(text.encode()) < 2_000_000
    assert "Too large for this page: other.png." in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with browser_page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(browser, text, tmp_path):
    """From a width and a colour scheme to the page in the browser."""
    path = tmp_path / "report.html"
    path.write_text(text)

    def open_at(name, *, dark=False):
        browser.messages.clear()
        browser.open(path, WIDTHS[name], dark=dark, phone=name == "phone")
        return browser

    return open_at


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", WIDTHS)
def test_the_page_fits_its_window_and_shows_its_figures(opened, name, dark, pictures, tmp_path):
    browser = opened(name, dark=dark)
    assert browser.evaluate("innerWidth") == WIDTHS[name]
    assert browser.evaluate("document.documentElement.scrollWidth") == WIDTHS[name]
    widths = browser.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.clientWidth])"
    )
    assert len(widths) == len(pictures)
    assert all(loaded and width > 280 for loaded, width in widths)
    headline = browser.evaluate("document.querySelector('.headline').getBoundingClientRect().top")
    assert headline < 400  # visible without scrolling
    tops = browser.evaluate("[...document.querySelectorAll('.headline div')].map(e => e.offsetTop)")
    assert len(tops) == 2
    assert tops[0] == tops[1]  # before beside after
    requests = [message for message in browser.messages if "request" in message["params"]]
    assert all(
        request["params"]["request"]["url"].startswith(("data:", "file:")) for request in requests
    )
    assert len(browser.messages) == len(requests)  # nothing on the console
    browser.screenshot(tmp_path / "shot.png")
    png = (tmp_path / "shot.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert width == WIDTHS[name]
    assert height >= browser.evaluate("document.documentElement.scrollHeight") - 1


def test_colours_follow_the_scheme_with_enough_contrast(opened):
    for dark in (False, True):
        browser = opened("phone", dark=dark)
        colors = browser.evaluate(
            "['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k])"
        )
        ground, ink = (np.array(re.findall(r"\d+", color), float) for color in colors)
        assert (ground.mean() < 128) == dark
        assert _contrast(ground, ink) > 7


def _contrast(*colors):
    """The contrast ratio of WCAG 2."""
    linear = [
        np.where(c / 255 <= 0.03928, c / 255 / 12.92, ((c / 255 + 0.055) / 1.055) ** 2.4)
        for c in colors
    ]
    low, high = sorted(float(x @ [0.2126, 0.7152, 0.0722]) for x in linear)
    return (high + 0.05) / (low + 0.05)


def test_tab_reaches_every_link_and_table(opened):
    browser = opened("phone")
    seen = []
    for _ in range(40):
        browser.press("Tab", 9)
        seen.append(
            browser.evaluate(
                "(e => [e.tagName, e.getAttribute('aria-label') || e.getAttribute('href') || '',"
                " getComputedStyle(e).outlineStyle])(document.activeElement)"
            )
        )
        if seen[-1][0] == "BODY":
            break
    assert seen[0][:2] == ["A", "#content"]  # skips the links
    labels = [label for tag, label, _ in seen if tag == "DIV"]
    assert labels == ["Sizes", "Parameters and multiply-adds", "Errors", "Layers"]
    assert sum(tag == "SUMMARY" for tag, *_ in seen) == 1
    assert browser.evaluate("document.querySelector('details').open") is False
    browser.evaluate("document.querySelector('summary').focus()")
    browser.evaluate("document.activeElement.click()")
    browser.press("Tab", 9)
    folded = browser.evaluate("document.activeElement.getAttribute('aria-label')")
    assert folded == "Settings and versions"  # once it is unfolded
    assert sum(tag == "A" for tag, *_ in seen) == 8
    assert all(outline == "solid" for tag, _, outline in seen if tag != "BODY")
    browser.evaluate("document.querySelector('[aria-label=Layers]').focus()")
    for _ in range(3):
        browser.press("ArrowRight", 39)
    scrolled = browser.evaluate(
        "new Promise(done => setTimeout(() => done(document.activeElement.scrollLeft), 500))"
    )
    assert scrolled > 0  # the arrows move the table in its box
