"""The page in a real browser: movie, table, flags, and what is blocked. Skipped where there is no browser."""

from browser_pages import EVIL, LAPTOP, column, is_drawn, pixels, place, wait_until


def test_the_movie_starts_at_ed_and_every_frame_differs(visit):
    page = visit("compared")
    assert "frame 0 of 0\u20133, 0 ms" in place(page) and "ED" in place(page)
    seen = {pixels(page)}
    for frame in (1, 2, 3):
        page.get_by_role("button", name="Next frame").click()
        assert f"frame {frame} of 0\u20133, {40 * frame} ms" in place(page)
        seen.add(pixels(page))
    assert len(seen) == 4
    page.get_by_role("button", name="Next frame").click()
    assert "frame 0" in place(page)


def test_outlines_can_be_hidden_one_by_one(visit):
    page = visit("compared")
    seen = {pixels(page)}
    for name in ("LV", "MYO", "expert"):
        page.locator(".shown").get_by_role("checkbox", name=name).uncheck()
        seen.add(pixels(page))
    assert len(seen) == 4


def test_scrubbing_stops_the_movie(visit):
    page = visit("compared", motion="no-preference")
    assert page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("slider", name="Frame").fill("3")
    assert page.get_by_role("button", name="Play").is_visible()
    assert "frame 3" in place(page)


def test_a_click_on_a_slice_enlarges_it_and_another_shows_all(visit):
    page = visit("compared")
    canvas, chosen = page.locator(".shown canvas"), page.locator(".shown select")
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
    assert chosen.input_value() == "1"
    assert canvas.bounding_box()["height"] > box["height"]
    canvas.click()
    assert chosen.input_value() == "-1"


def test_the_table_sorts_both_ways_with_the_unknown_last(visit):
    page = visit("compared")
    for name, number, expected in (("EF expert", 3, ["36", "64", "84"]), ("Study", 1, [EVIL, "p9", "p10"])):
        head = page.locator("#studies thead th").nth(number - 1)
        for order, texts in (("ascending", expected), ("descending", expected[::-1])):
            page.get_by_role("button", name=name, exact=True).click()
            assert head.get_attribute("aria-sort") == order
            assert column(page, number) == texts
    page.evaluate("document.querySelector('[data-study=\"1\"]').cells[5].dataset.value = ''")
    for _ in range(2):
        page.get_by_role("button", name="Dice", exact=True).click()
        assert column(page, 1)[-1] == EVIL
    assert page.locator("#studies th[aria-sort=descending]").count() == 1


def test_find_narrows_the_table(visit):
    page = visit("compared")
    page.get_by_label("Find").fill("P1")
    assert column(page, 1) == ["p10"]
    assert page.get_by_role("status").inner_text() == "1 of 3 studies"
    page.get_by_label("Find").fill("")
    assert len(column(page, 1)) == 3


def test_another_study_is_shown_by_mouse_by_keyboard_and_from_a_plot(visit):
    page = visit("compared")
    shown = page.locator("article.shown h2")
    page.get_by_role("button", name="p9", exact=True).click()
    assert shown.all_inner_texts() == ["p9"]
    page.get_by_role("button", name="p10", exact=True).focus()
    page.keyboard.press("Enter")
    assert shown.all_inner_texts() == ["p10"]
    assert page.evaluate("document.activeElement.id") == "study"
    page.locator("#agreement svg circle.pair").nth(2).click()
    assert shown.all_inner_texts() == ["p9"]
    assert page.locator("tr[aria-current=true] th").all_inner_texts() == ["p9"]
    assert page.evaluate("document.getElementById('study').getBoundingClientRect().top") < LAPTOP["height"] / 2


def test_flags_lead_to_slice_and_frame_and_on_to_the_next(visit):
    page = visit("compared")
    page.get_by_role("button", name=EVIL).click()
    flag = page.locator(".shown .flags li", has_text="several parts").get_by_role("button")
    for frame in (1, 3, 1):
        flag.click()
        assert f"frame {frame} of" in place(page) and "several parts" in place(page)
        assert page.locator(".shown select").input_value() == "1"
    assert page.locator(".shown .marks i").count() == 4  # the area of so small a heart jumps at 0 and 2, too


def test_markup_in_names_stays_text(visit):
    page = visit("compared")
    page.get_by_role("button", name=EVIL).click()
    assert page.locator("article.shown h2").inner_text() == EVIL
    assert page.locator("img:not([src^='data:image/webp'])").count() == 0
    assert page.locator("#agreement circle title", has_text=EVIL).count() == 6


def test_what_is_injected_is_blocked(visit):
    page = visit("compared", strict=False)
    page.evaluate("""() => {
        window.blocked = [];
        document.addEventListener("securitypolicyviolation", event => blocked.push(event.effectiveDirective));
        const image = document.createElement("img"), script = document.createElement("script");
        image.src = "http://127.0.0.1:9/picture.png";
        script.textContent = "window.ran = true";
        document.body.append(image, script);
        fetch("http://127.0.0.1:9/").catch(() => 0);
    }""")
    wait_until(page, lambda: page.evaluate("blocked.length") == 3)
    assert sorted(page.evaluate("blocked")) == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.ran") is None


def test_one_frame_and_two_views_are_shown(visit):
    page = visit("odd")
    assert page.locator(".shown canvas").count() == 2
    page.keyboard.press("Space")
    assert page.locator(".shown").get_by_role("button", name="Pause").count() == 2
    page.get_by_role("button", name="one", exact=True).click()
    wait_until(page, lambda: is_drawn(page))
    assert page.get_by_role("button", name="Play").is_disabled()
    assert page.get_by_role("slider", name="Frame").is_disabled()
    assert "frame 0 of 0\u20130" in place(page)


def test_two_hundred_studies_are_paged_and_found(visit):
    page = visit("many")
    assert len(column(page, 1)) == 50
    assert page.locator("#page-name").inner_text() == "page 1 of 4"
    assert page.get_by_role("button", name="Earlier").is_disabled()
    for _ in range(3):
        page.get_by_role("button", name="Later").click()
    assert column(page, 1)[-1] == "p199"
    assert page.get_by_role("button", name="Later").is_disabled()
    page.get_by_label("Find").fill("p123")
    assert column(page, 1) == ["p123"]
    page.get_by_role("button", name="p123").click()
    assert page.locator("article:visible h2").all_inner_texts() == ["p123"]
    assert page.locator("canvas").count() == 1
