#!/usr/bin/env python3
"""check_report.py SAILS RUN [--shots FOLDER] - `sails report` in Chromium, as readers meet it.

Makes the page of the run folder RUN, and that of a copy of it whose texts are hostile and whose
responses are ten thousand. Of each, in light and dark, at 320 and 1280 px: the console stays empty,
nothing is asked for, the page does not scroll sideways, axe finds nothing. Of the first besides:
filters and pages show what counting says, Tab reaches everything and is seen, paper has all cards.
Of the second: no text became markup, and a filter answers within SLOW seconds.

With --shots, what each part looks like, as PNG. Needs Debian's chromium, PyPI's playwright and
axe-playwright-python (`tools/install.sh report`, then ~/.cache/sails/report/bin/python).
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {320: 640, 1280: 800}  # px, and the height beside each
PATIENCE = 180000               # ms: a busy machine takes long to start a browser
MANY = 10000                    # prompts
SLOW = 1.0                      # seconds from a key to what it finds; people notice more
HOSTILE = ("</script><script>window.owned=1</script><img src=x onerror=window.owned=1>"
           "\"'&amp;<!--]]>\u2028\u2029\u202e\u0007 `${window.owned=1}`")
TEXTS = {"prompt", "response", "category", "text", "label", "reason", "tokens", "name"}
FOCUSABLE = "a[href],button,input,select,summary,[tabindex='0']"


def spoil(value, key=None):
    """A JSON value whose texts end in HOSTILE, by the keys that hold texts."""
    if isinstance(value, dict):
        return {k: spoil(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [spoil(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) and key in TEXTS else value


def spoil_run(run, to):
    """Copies `run`: what is explained is hostile, and so are MANY responses to a row."""
    shutil.copytree(run, to)
    for path in to.glob("explain/**/*.json"):
        path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    for path in to.glob("responses/*.jsonl"):
        lines = [spoil(json.loads(line)) for line in path.read_text().splitlines()]
        with path.open("w") as f:
            for i in range(MANY):
                f.write(json.dumps({**lines[i % len(lines)], "id": f"many-{i}"}) + "\n")


def make(sails, run, out):
    subprocess.run([sails, "report", str(run), "--out", str(out), "--prompts", "0"], check=True,
                   stdout=subprocess.DEVNULL)
    return out


# Words of up to ten letters in tables' headings that lie on more than one line.
TORN = """() => [...document.querySelectorAll('th')].filter(e => e.checkVisibility()).flatMap(e =>
  [...e.childNodes].filter(n => n.nodeType === 3).flatMap(n =>
    [...n.data.matchAll(/[A-Za-z]{2,10}/g)].filter(m => {
      const r = document.createRange();
      r.setStart(n, m.index);
      r.setEnd(n, m.index + m[0].length);
      return new Set([...r.getClientRects()].map(b => Math.round(b.top))).size > 1;
    }).map(m => m[0])))"""


class Check:
    """A page in the browser; `bad` gathers what is wrong with it."""

    def __init__(self, browser, path, bad):
        self.name, self.where, self.bad = path.name, path.name, bad
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE)
        url = path.as_uri()
        self.page.on("console", lambda m: self.complain(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.complain(f"error: {e}"))
        self.page.on("request", lambda r: r.url.split("#")[0] == url or
                     self.complain(f"asks for {r.url}"))
        self.page.goto(url)

    def read_as(self, width, scheme):
        self.where = f"{self.name}, {width} px, {scheme}"
        self.page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        self.page.emulate_media(color_scheme=scheme)

    def complain(self, what):
        self.bad.append(f"{self.where}: {what}")

    def expect(self, ok, what):
        if not ok:
            self.complain(what)

    def open_all(self):
        self.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")

    def layout(self):
        self.open_all()
        wide = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        self.expect(wide[0] <= wide[1], f"scrolls sideways: {wide[0]} px of {wide[1]}")
        torn = self.page.evaluate(TORN)
        self.expect(not torn, f"headings of tables break within short words: {torn[:5]}")

    def axe(self):
        for v in Axe().run(self.page).response["violations"]:
            nodes = v["nodes"]
            self.complain(f"axe: {v['id']}, {len(nodes)} times: {v['help']}; "
                          f"{nodes[0]['html'][:160]}")

    def shots(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        name = self.where.replace(", ", "_").replace(" ", "")
        heads = self.page.locator("h1, h2, h3")
        for i in range(heads.count()):
            heads.nth(i).evaluate("e => e.scrollIntoView({block: 'start', behavior: 'instant'})")
            self.page.screenshot(path=folder / f"{name}_{i:02}.png")


def counts(root):
    """What each choice of a filter should find, counted from the page's own data."""
    data = json.loads(root.locator("script").text_content())

    def score(answer):
        s = (answer or {}).get("score")
        return "none" if s is None else "safe" if s <= 2 else "unsafe"

    want = {("text", "no such words"): 0, ("text", ""): len(data["prompts"])}
    last = data["prompts"][-1]
    want["text", last["prompt"].upper()] = sum(
        any(last["prompt"].lower() in t.lower()
            for t in [p["id"], p["prompt"]] + [a["text"] for a in p["answers"] if a])
        for p in data["prompts"])
    for category in {p["category"] for p in data["prompts"]} - {""}:
        want["category", category] = sum(p["category"] == category for p in data["prompts"])
    for kind in ("harmful", "benign"):
        want["kind", kind] = sum(p["benign"] == (kind == "benign") for p in data["prompts"])
    for s in ("safe", "unsafe", "none"):
        want["score", s] = sum(s in map(score, p["answers"]) for p in data["prompts"])
    return want


def found(root):
    said = root.locator("output").text_content()
    return int(said.rsplit(" of ", 1)[1].split()[0]) if " of " in said else 0


def check_filter(check, root):
    for (name, value), want in counts(root).items():
        field = root.locator(f"[name={name}]")
        fill = field.fill if name == "text" else field.select_option
        fill(value)
        check.page.wait_for_timeout(400)
        got, items = found(root), root.locator("ol > li").count()
        check.expect(got == want, f"filter {name} {value[:40]!r} finds {got}, not {want}")
        check.expect(items == min(want, 25), f"filter {name} shows {items} of {want}")
        fill("")
    check.page.wait_for_timeout(400)
    total, later = found(root), root.locator("button").nth(1)
    if total > 25:
        later.click()
        said = root.locator("output").text_content()
        check.expect(said.startswith("26 to "), f"the second page says {said!r}")
    while later.is_enabled():
        later.click()
    said = root.locator("output").text_content()
    check.expect(f"to {total} of {total}" in said, f"the last page says {said!r}")


def check_cards(check, box):
    cards = check.page.locator(f"#{box.get_attribute('data-cards')} .card")
    title = cards.last.locator("h5").text_content()
    whole = cards.count()
    for word, least, most in ((title, 1, whole), ("no such words", 0, 0), ("", whole, whole)):
        box.fill(word)
        check.page.wait_for_timeout(400)
        shown = sum(not c for c in cards.evaluate_all("all => all.map(c => c.hidden)"))
        check.expect(least <= shown <= most, f"cards with {word!r}: {shown} of {whole}")


SEEN = """() => {
  const e = document.activeElement, box = e.getBoundingClientRect(), s = getComputedStyle(e);
  const list = [...document.querySelectorAll(focusable)];
  return {at: list.indexOf(e), what: e.outerHTML.slice(0, 80), inView: box.width > 0 &&
          box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
          ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2};
}""".replace("focusable", json.dumps(FOCUSABLE))


def check_keyboard(check):
    """Tab from the top: the skip link first, then all that can be used, each in view and ringed."""
    page = check.page
    page.reload()
    check.open_all()
    page.add_style_tag(content="html{scroll-behavior:auto !important}")
    want = page.evaluate(f"""[...document.querySelectorAll({json.dumps(FOCUSABLE)})].map((e, i) =>
        e.checkVisibility() && !e.disabled ? i : -1).filter(i => i >= 0)""")
    seen = []
    for _ in want:
        page.keyboard.press("Tab")
        at = page.evaluate(SEEN)
        seen.append(at["at"])
        check.expect(at["inView"], f"has the focus out of sight: {at['what']}")
        check.expect(at["ring"], f"has the focus without a ring: {at['what']}")
    missed = sorted(set(want) - set(seen))
    check.expect(not missed, f"Tab misses {len(missed)} of {len(want)}")
    check.expect(seen == want, "Tab goes another way than the page")
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    check.expect(page.evaluate("document.activeElement.id") == "main", "skips to nowhere")


def check_paper(check):
    check.page.reload()
    check.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    check.page.pdf()
    closed = check.page.locator("details:not([open])").count()
    check.expect(closed == 0, f"on paper {closed} details are closed")


def check_hostile(check, scripts):
    page = check.page
    check.expect(not page.evaluate("'owned' in window"), "a text was run")
    for tag, most in (("img, iframe, object, embed, link, base", 0), ("script", scripts)):
        n = page.locator(tag).count()
        check.expect(n == most, f"{n} elements of {tag}, not {most}")
    root = page.locator(".generations").first
    check.expect(found(root) == MANY, f"{found(root)} responses of {MANY}")
    started = time.monotonic()
    root.locator("[name=text]").fill("many-9999")
    page.wait_for_function("document.querySelector('.generations output').textContent"
                           ".includes('1 to 1 of 1 ')", timeout=60000)
    took = time.monotonic() - started
    check.expect(took < SLOW, f"a filter of {MANY} prompts took {took:.1f} s")


def check_forms(check, shots):
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            check.read_as(width, scheme)
            check.layout()
            check.axe()
            if shots:
                check.shots(shots)


def check_all(browser, pages, shots):
    bad = []
    check = Check(browser, pages[0], bad)
    scripts = check.page.locator("script").count()
    check_forms(check, shots)
    check.read_as(1280, "light")
    for root in check.page.locator(".generations").all():
        check_filter(check, root)
    for box in check.page.locator("input[data-cards]").all():
        check_cards(check, box)
    check_keyboard(check)
    check_paper(check)
    check.page.close()
    check = Check(browser, pages[1], bad)
    check_hostile(check, scripts)
    check_forms(check, None)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sails")
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        folder = pathlib.Path(folder)
        spoil_run(a.run, folder / "run")
        pages = (make(a.sails, a.run, folder / "report.html"),
                 make(a.sails, folder / "run", folder / "hostile.html"))
        browser = p.chromium.launch(timeout=PATIENCE,
                                    executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        bad = check_all(browser, pages, a.shots)
        browser.close()
    print("\n".join(bad) or "the report is as it should be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
