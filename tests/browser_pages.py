"""Reports to open in a browser, and questions to ask the page, shared by tests. Not a test."""

from segmented_hearts import beating, describe, drawn_at, segmented

EVIL = '<img src=x onerror="alert(1)">'
STACK = {"slice_spacing_mm": 300.0, "cyclic": True, "ed": 0, "es": 2, "frame_interval_s": 0.04}
LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}


def compared_studies():
    """Return three studies with an expert; the second has a second part in frames 1 and 3 of its slice 1."""
    studies = []
    for name, halves in (("p10", (5, 4, 4, 4)), (EVIL, (5, 4, 3, 4)), ("p9", (5, 4, 2, 4))):
        heart = beating((5, 4, 3, 4))
        if name == EVIL:
            heart[1::2, 1, 0:5, 0:4] = 1
        studies.append(describe(segmented(heart, drawn_at(beating(halves), 0, 2), name=name, **STACK), name=name))
    return studies


def odd_studies():
    """Return one frame, and two views without ED and ES of the same study."""
    heart = beating((5, 4, 3, 4))
    views = [segmented(heart[:, 0], name=f"e {view}", view=view) for view in ("2CH", "4CH")]
    return [describe(*views, name="e"), describe(segmented(heart[:1, 0]), name="one")]


def pixels(page):
    """Return what the first canvas shows, as text."""
    return page.evaluate("document.querySelector('.shown canvas').toDataURL()")


def is_drawn(page):
    """Return whether anything is on all canvases."""
    return page.evaluate("""[...document.querySelectorAll(".shown canvas")].every(canvas => {
        const blank = document.createElement("canvas");
        [blank.width, blank.height] = [canvas.width, canvas.height];
        return canvas.toDataURL() !== blank.toDataURL();
    })""")


def wait_until(page, question):
    """Ask until the answer is yes; the browser's own way to wait evaluates text, which the page's policy forbids."""
    for _ in range(200):
        if question():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{question} did not come true")


def place(page):
    return page.locator(".shown .place").first.inner_text()


def column(page, number):
    """Return the texts of a column of the table, from top to bottom."""
    return page.locator(f"#studies tbody tr:visible > :nth-child({number})").all_inner_texts()
