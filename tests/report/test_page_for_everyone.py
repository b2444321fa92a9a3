"""The page in a real browser, without a mouse, without motion or scripts, on paper, on a phone, read aloud."""

import re
from types import SimpleNamespace

import pytest
from browser_pages import EVIL, LAPTOP, PHONE, pixels, place, wait_until


def test_scrubbing_by_keyboard_moves_frame_words_and_cursor(visit):
    page = visit("compared")
    before, cursor = pixels(page), page.locator(".shown .cursor")
    left, step = (float(cursor.get_attribute(f"data-{name}")) for name in ("left", "step"))
    slider = page.get_by_role("slider", name="Frame")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "frame 2 of 0\u20133, 80 ms" in place(page) and "ES" in place(page)
    assert slider.get_attribute("aria-valuetext").startswith("frame 2 of 0\u20133, 80 ms, ES")
    assert float(cursor.get_attribute("x1")) == pytest.approx(left + 2 * step)
    assert "frame 2" in page.locator(".shown canvas").get_attribute("aria-label")
    assert pixels(page) != before


def test_keys_play_pause_and_step(visit):
    page = visit("compared")
    assert page.get_by_role("button", name="Play").is_visible()
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Pause").is_visible()
    wait_until(page, lambda: "frame 0" not in place(page))
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("button", name="Play").is_visible()
    frame = place(page)
    page.wait_for_timeout(150)
    assert place(page) == frame


def test_motion_starts_by_itself_only_where_it_is_wanted(visit):
    page = visit("compared", motion="no-preference")
    wait_until(page, lambda: "frame 0" not in place(page))
    still = visit("compared")
    still.wait_for_timeout(150)
    assert "frame 0" in place(still)


def test_without_scripts_all_studies_can_be_read(visit):
    page = visit("compared", java_script_enabled=False)
    for study in page.locator("article").all():
        assert study.locator("h2").is_visible() and study.locator("dl.figures").is_visible()
        assert study.locator("svg").is_visible() and study.locator(".flags").is_visible()
        stills = study.locator(".stills img").all()
        assert len(stills) == 2
        assert all(still.is_visible() and still.bounding_box()["width"] > 100 for still in stills)
    assert not page.locator(".tools").is_visible() and not page.locator(".viewer").first.is_visible()
    assert page.get_by_text("Scripts are switched off").is_visible()


def test_paper_holds_every_study_and_no_controls(visit):
    page = visit("compared")
    pdf = page.pdf(format="A4")
    # The table, a page or more per study, the agreement.
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) >= 5
    page.emulate_media(media="print")
    assert all(study.is_visible() for study in page.locator("article").all())
    stills = page.locator(".stills img").all()
    assert len(stills) == 6 and all(still.is_visible() for still in stills)
    for control in ("input", "select", "canvas", ".tools", ".viewer", "summary", ".cursor"):
        assert not any(found.is_visible() for found in page.locator(control).all()), control
    assert page.locator("#studies tbody tr:visible").count() == 3


@pytest.mark.parametrize("name", ["compared", "odd"])
def test_a_laptop_shows_figures_movie_and_marks_without_scrolling(visit, name):
    page = visit(name)
    for what in (".shown .figures .main dd", ".shown canvas", ".shown .marks", ".shown .viewer button"):
        box = page.locator(what).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= LAPTOP["height"], what


@pytest.mark.parametrize("name", ["compared", "odd", "many"])
def test_a_phone_needs_no_scrolling_to_the_side(visit, name):
    page = visit(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("scrollY") == 0
    page.locator("#studies tbody button").nth(1).click()
    assert -1 <= page.evaluate("document.getElementById('study').getBoundingClientRect().top") < PHONE["height"] / 2


@pytest.mark.parametrize("name", ["compared", "odd"])
def test_everything_has_a_name_for_screen_readers(visit, name):
    page = visit(name)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {
        "button",
        "checkbox",
        "slider",
        "combobox",
        "searchbox",
        "link",
        "image",
        "img",
        "table",
        "region",
        "article",
    }
    found = SimpleNamespace(named=[], nameless=[])
    for node in tree:
        if not node["ignored"] and node["role"]["value"] in roles:
            known = node.get("name", {}).get("value", "").strip()
            (found.named if known else found.nameless).append((node["role"]["value"], known))
    assert found.nameless == []
    assert {"button", "checkbox", "slider", "searchbox", "link", "table", "article"} <= {
        role for role, _ in found.named
    }
    assert page.locator("img:not([alt]), img[alt='']").count() == 0


def test_the_tab_key_reaches_every_control_in_the_order_of_the_page(visit):
    page = visit("compared")
    page.get_by_role("button", name=EVIL).click()
    controls = page.evaluate("""() => {
        const all = [...document.querySelectorAll("a, button, input, select, summary")];
        window.controls = all.filter(one => !one.disabled && one.checkVisibility());
        document.activeElement.blur();
        return window.controls.length;
    }""")
    reached = []
    page.locator("body").press("Shift")  # the page has the focus
    for _ in range(3 * controls):
        page.keyboard.press("Tab")
        at = page.evaluate("controls.indexOf(document.activeElement)")
        if at in reached:
            break
        reached += [at] if at >= 0 else []
    assert sorted(reached) == list(range(controls))
    turn = reached.index(0)
    assert reached[turn:] + reached[:turn] == list(range(controls))


CONTRASTS = """() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        for (let one = element; one; one = one.parentElement) {
            const colour = channels(getComputedStyle(one).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.disabled) continue;
        if (["SCRIPT", "NOSCRIPT", "OPTION", "title"].includes(element.tagName)) continue;
        const style = getComputedStyle(element);
        const two = [channels(element.closest("svg") ? style.fill : style.color), ground(element)].map(luminance);
        const ratio = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
        if (ratio < 4.5) low.push([walker.currentNode.data.trim(), ratio.toFixed(2)]);
    }
    return low;
}"""


def test_all_text_stands_out_from_its_ground(visit):
    page = visit("compared")
    page.get_by_role("button", name=EVIL).click()
    page.locator(".shown summary").click()
    assert page.evaluate(CONTRASTS) == []
