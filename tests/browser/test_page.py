"""What a person does with the page, in a real browser."""

import csv
import json
from pathlib import Path

import pytest

from chestxray.serve.loading import Served
from chestxray.serve.url_fetch import Links
from loopback import serving
from serve.fakes import FAILING, BrightEngine, FindingsEngine, image_bytes, listening, served


def choose(page, *paths):
    page.set_input_files("#files", [str(path) for path in paths])


def answered(page, count):
    page.wait_for_function("n => document.querySelectorAll('#list article:not([aria-busy])').length === n", arg=count)
    return page.locator("#list article").all()


def test_an_image_is_answered(open_page, films):
    with listening() as port:
        page = open_page(port)
        assert (
            page.locator("header").inner_text().endswith("Research use only. Not a medical device; not for diagnosis.")
        )
        assert not page.locator("#results").is_visible()
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        text = article.inner_text()
        assert "1. bright.png" in text and "bright, with a probability of 0.9" in text and "threshold 0.400" in text
        assert page.locator("#status").inner_text() == "1 image: 1 answered."
        fill, track = article.locator(".fill").nth(1), article.locator(".probability").nth(1)
        share = fill.bounding_box()["width"] / track.bounding_box()["width"]
        assert share == pytest.approx(0.9, abs=0.03)
        mark = article.locator(".mark").bounding_box()
        box = track.bounding_box()
        assert (mark["x"] + mark["width"] / 2 - box["x"]) / box["width"] == pytest.approx(0.4, abs=0.03)


def test_the_slider_fades_the_map_over_the_picture(open_page, films):
    with listening() as port:
        page = open_page(port)
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        picture, heat = article.locator("img").nth(0), article.locator("img.heat")
        assert picture.bounding_box() == heat.bounding_box()
        assert heat.evaluate("image => image.complete && image.naturalWidth") == 32
        assert heat.evaluate("image => getComputedStyle(image).opacity") == "0.5"
        slider = article.get_by_label("Strength of the heat map")
        before = article.locator(".layers").screenshot()
        slider.fill("100")
        assert heat.evaluate("image => getComputedStyle(image).opacity") == "1"
        assert article.locator("output").inner_text() == "100%"
        assert article.locator(".layers").screenshot() != before
        slider.press("Home")
        assert heat.evaluate("image => getComputedStyle(image).opacity") == "0"


def test_the_scale_and_the_checks_stand_beside_the_map(open_page, films):
    with listening(BrightEngine(heat_maps=FAILING)) as port:
        page = open_page(port)
        choose(page, films / "bright.png", films / "black.png")
        bright, black = answered(page, 2)
        assert "The highest value of this map is 0.941; the scale ends at 2." in bright.inner_text()
        assert "This map is empty" in black.inner_text()
        assert bright.get_by_role("img", name="Scale of all maps of this model: 0 to 2.00 (share)").is_visible()
        assert bright.locator("img.heat").evaluate("image => image.naturalWidth") == 768, "with its mark"
        reasons = bright.locator("details.badge li")
        assert not reasons.first.is_visible()
        bright.locator("details.badge summary").click()
        assert reasons.first.inner_text() == "Weights made random from the top: fails. The map stays <b>alike</b>."
        page.locator("section.read details.badge summary").click()
        assert page.locator("section.read details.badge li").count() == 2


def test_several_images_and_a_wrong_file(open_page, films):
    with listening(per_minute=0) as port:
        page = open_page(port)
        choose(page, *(films / f"{name}.png" for name in ("bright", "notes", "dark")))
        first, wrong, last = answered(page, 3)
        assert "bright, with" in first.inner_text() and "dark, with" in last.inner_text()
        assert "This is not an image of an accepted format" in wrong.inner_text()
        assert page.locator("#status").inner_text() == "3 images: 2 answered, 1 without an answer."
        page.get_by_role("button", name="Clear").click()
        assert not page.locator("#results").is_visible()
        assert page.evaluate("document.activeElement.id") == "files"


def test_a_file_that_is_too_large_is_not_sent(open_page, films):
    with listening(max_upload=500) as port:
        page = open_page(port)
        sent = []
        page.on("request", lambda request: sent.append(request.url))
        (films / "large.png").write_bytes(bytes(1000))
        choose(page, films / "large.png")
        (article,) = answered(page, 1)
        assert "larger than the 0.0005 MB allowed" in article.inner_text()
        assert not [url for url in sent if "predict" in url]


def test_files_dropped_anywhere(open_page):
    with listening() as port:
        page = open_page(port)
        page.evaluate(
            """content => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(content)], "dropped.png"));
                document.querySelector("footer").dispatchEvent(
                    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            }""",
            list(image_bytes(220)),
        )
        (article,) = answered(page, 1)
        assert "dropped.png" in article.inner_text()


def test_abstention_and_refusal(open_page, films):
    with listening(BrightEngine(limit=0.6, refusal_threshold=3.0)) as port:
        page = open_page(port)
        choose(page, films / "middle.png", films / "black.png")
        abstained, refused = answered(page, 2)
        assert "The model abstains: it cannot tell dark from bright" in abstained.inner_text()
        assert "does not look like the chest radiographs" in refused.inner_text()
        assert refused.locator("img.heat").count() == 0 and not refused.locator("table").is_visible()
        refused.locator("summary").click()
        assert refused.locator("table").is_visible()


def test_findings_in_a_table_by_margin(open_page, films):
    with listening(FindingsEngine(limit=0.35), BrightEngine()) as port:
        page = open_page(port)
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        section = article.locator(".model").first
        assert "Mass 0.9" in section.inner_text() and "The threshold of Rare was not chosen" in section.inner_text()
        rows = [row.inner_text() for row in section.locator("tbody tr").all()]
        assert [row.split()[0] for row in rows] == ["Mass", "Edema", "Nodule", "Rare"]
        assert "reaches its threshold 0.600" in rows[0] and "threshold 0.500 (not chosen)" in rows[3]
        assert section.get_by_role("radio").count() == 3 and section.get_by_role("radio", name="Mass").is_checked()
        heat = section.locator("img.heat")
        before = heat.get_attribute("src")
        section.get_by_role("radio", name="Edema").check()
        assert heat.get_attribute("src") != before and heat.get_attribute("alt") == "Heat map of Edema over it"
        assert "Mass: 0.600 (Youden's index)" in page.locator("section.read").last.inner_text()


def test_findings_and_classes_in_one_download(open_page, films, tmp_path):
    with listening(FindingsEngine(limit=0.35), BrightEngine()) as port:
        page = open_page(port)
        choose(page, films / "middle.png")
        answered(page, 1)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        download.value.save_as(tmp_path / "answers.csv")
        with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
            first, second = csv.DictReader(file)
        assert first["decision"] == "" and first["predicted_Nodule"] == "0" and first["abstained"] == "Edema"
        assert float(first["probability_Mass"]) > float(first["probability_Edema"]) > float(first["probability_Nodule"])
        assert second["decision"] == "bright" and second["predicted_Mass"] == second["probability_Mass"] == ""


def test_models_side_by_side(open_page, films):
    with listening(
        BrightEngine(name="first"), BrightEngine(name="second", fit="crop", classes=("a", "b", "c"))
    ) as port:
        page = open_page(port, viewport={"width": 1500, "height": 900})
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        left, right = (section.bounding_box() for section in article.locator(".model").all())
        assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
        article.get_by_label("Strength").fill("0")
        assert article.locator("img.heat").evaluate_all("all => all.map(image => image.style.opacity)") == ["0", "0"]


def test_a_link(open_page):
    with serving(lambda service: service.send(image_bytes(220))) as host:
        port = host.server_address[1]
        links = Links(10**6, resolve=lambda *_: "127.0.0.1")
        with listening(links=links, allow_links=True) as own:
            page = open_page(own)
            page.get_by_label("Or the web address of an image").fill(f"http://films.example.com:{port}/a.png")
            page.keyboard.press("Enter")
            (article,) = answered(page, 1)
            assert "bright, with" in article.inner_text()


def test_downloads(open_page, films, tmp_path):
    with listening(BrightEngine(), BrightEngine(name="=second")) as port:
        page = open_page(port)
        choose(page, films / "bright.png", films / "notes.png")
        answered(page, 2)
        saved = {}
        for kind in ("JSON", "CSV"):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Download {kind}").click()
            saved[kind] = tmp_path / download.value.suggested_filename
            download.value.save_as(saved[kind])
        told = json.loads(saved["JSON"].read_text(encoding="utf-8"))
        assert [image["name"] for image in told["images"]] == ["bright.png", "notes.png"]
        assert told["images"][0]["answers"][0]["decision"] == "bright" and "Research use only" in told["research_only"]
        assert "base64" not in saved["JSON"].read_text(encoding="utf-8")
        with saved["CSV"].open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["model"] for row in rows] == ["bright-or-dark", "'=second", ""]
        assert float(rows[0]["probability_bright"]) == pytest.approx(0.9, abs=0.03)
        assert rows[2]["problem"].startswith("This is not an image")


def test_a_busy_server_is_asked_again(open_page, films):
    with listening(per_minute=60, threads=1) as port:
        page = open_page(port)
        # The first is refused as by a server that is busy; the page asks again and is answered.
        refusals = []

        def once(route):
            refusals.append(route.request.url)
            if len(refusals) == 1:
                route.fulfill(status=503, headers={"Retry-After": "0"}, body="{}")
            else:
                route.continue_()

        page.route("**/api/predict*", once)
        choose(page, films / "bright.png")
        (article,) = answered(page, 1)
        assert "bright, with" in article.inner_text() and len(refusals) == 2


def test_the_model_card_is_shown_in_its_own_style(open_page, tmp_path):
    card = tmp_path / "MODEL_CARD.html"
    card.write_text(
        "<!doctype html><html lang=en><title>Card</title><style>\nh1 { color: rgb(1, 2, 3) }\n</style><h1>Card</h1>",
        encoding="utf-8",
    )
    with listening(models=(Served("model", BrightEngine(), card),)) as port:
        page = open_page(port)
        page.get_by_role("link", name="Model card").click()
        assert page.locator("h1").evaluate("h => getComputedStyle(h).color") == "rgb(1, 2, 3)"


@pytest.mark.parametrize("name", [None, "patient-doe.png"])
def test_names_of_files_stay_in_the_browser(open_page, films, name):
    told = []
    with listening(models=served()) as port:
        page = open_page(port)
        page.on("request", lambda request: told.append(f"{request.url} {request.headers}"))
        path = films / (name or "bright.png")
        path.write_bytes(image_bytes(200))
        choose(page, path)
        answered(page, 1)
        assert told and not [line for line in told if Path(path).stem in line]
