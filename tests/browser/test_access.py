"""The page for everybody: keyboard alone, 320 pixels, dark, screen readers (axe-core)."""

import pytest

from serve.fakes import BrightEngine, listening

from .test_page import answered, choose

SCHEMES = ["light", "dark"]


@pytest.fixture
def axe():
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    return module.Axe()


def violations(axe, page):
    # axe is a script of the test and not of the page, whose policy would keep it out.
    found = axe.run(page).response["violations"]
    return [(item["id"], item["impact"], [node["html"][:120] for node in item["nodes"]]) for item in found]


def full(open_page, port, films, **options):
    page = open_page(port, **options)
    choose(page, *(films / f"{name}.png" for name in ("bright", "notes", "middle", "black")))
    answered(page, 4)
    return page


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing(open_page, films, axe, scheme, width):
    engines = (BrightEngine(limit=0.6, refusal_threshold=3.0), BrightEngine(name="second"))
    with listening(*engines, allow_links=True) as port:
        page = full(open_page, port, films, color_scheme=scheme, viewport={"width": width, "height": 800})
        assert violations(axe, page) == []


@pytest.mark.parametrize("width", [320, 640, 1280])
def test_nothing_is_wider_than_the_screen(open_page, films, width):
    with listening(BrightEngine(name="a-very-long-name-" * 5), BrightEngine(), allow_links=True) as port:
        (films / ("long" * 50 + ".png")).write_bytes((films / "bright.png").read_bytes())
        page = full(open_page, port, films, viewport={"width": width, "height": 800})
        choose(page, films / ("long" * 50 + ".png"))
        answered(page, 5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_by_keyboard_alone(open_page, films):
    with listening(allow_links=True) as port:
        page = open_page(port)
        # The browser must know in time that it is not to open a window of its own.
        page.on("filechooser", lambda chooser: None)
        reached = []

        def tab():
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
            return reached[-1]

        assert tab() == "Skip to the results"
        assert tab() == "files"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(str(films / "bright.png"))
        (article,) = answered(page, 1)
        while tab() != "strength-1":
            assert len(reached) < 12, reached
        assert reached[2:-1] == ["url", "Fetch", "save-json", "save-csv", "clear"]
        page.keyboard.press("ArrowRight")
        assert article.locator("output").inner_text() == "55%"
        page.keyboard.press("End")
        assert article.locator("img.heat").evaluate("image => image.style.opacity") == "1"


def test_what_a_screen_reader_is_told(open_page, films):
    with listening() as port:
        page = open_page(port)
        assert page.locator("#status").get_attribute("role") == "status"
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        told = article.aria_snapshot()
        assert 'heading "1. bright.png" [level=3]' in told
        assert 'row "bright 0.' in told.replace("'", "").replace("\\", "") and "threshold 0.400" in told
        assert 'slider "Strength of the heat map"' in told
        assert 'img "The image as bright-or-dark was given it"' in told


@pytest.mark.parametrize("scheme", SCHEMES)
def test_light_and_dark(open_page, scheme):
    with listening() as port:
        page = open_page(port, color_scheme=scheme)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
