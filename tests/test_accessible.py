"""Every page for who does not see it, or does not point: headings, names, contrast, and a focus that is seen
and stays."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, CDPSession, Page, expect

from explorer.session import Session
from explorer.ui import TABS
from vit import ViT, save
from vit.card import Card
from vit.checkpoint import save_snapshot

pytestmark = pytest.mark.browser

PATIENCE = 90_000  # milliseconds
# what a page shows when all of it is there
THERE = {
    "explore": "#viewer .vit-picture",
    "lesson": "#lesson .les-dots li",
    "why": "#why-ledger h3",
    "heads": "#heads-board .vx-panel",
    "training": "#training-viewer .vit-picture",
    "compare": "#tabs:has(#compare-A .vit-picture) #compare-B .vit-picture",
    "about": ".vx-about h2",
}
CONTROLS = {
    *("button", "checkbox", "combobox", "link", "listbox", "radio", "searchbox", "slider", "spinbutton"),
    *("switch", "tab", "textbox"),
}
DRAWINGS = {"image", "img", "Canvas", "graphics-document"}
# an image inside a control has the control's name
INSIDE = "function () { return !!this.closest('button, .block:has([role=combobox], [role=listbox])'); }"
HEADINGS = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
  .filter((e) => e.getClientRects().length).map((e) => [Number(e.tagName[1]), e.textContent.trim()])"""
# [ratio, text] of what is too pale to read: under 4.5, of large type under 3; pictures behind it are left out
PALE = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith('color(srgb') ? 255 : 1;
    return [r * scale, g * scale, b * scale, a];
  };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (color) => color.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const chain = (e) => e ? [e, ...chain(e.parentElement)] : [];
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  const others = '[disabled], [aria-disabled=true], script, style, option, .vx-skip, .vx-hidden';
  while (words.nextNode()) {
    const text = words.currentNode.data.trim(), element = words.currentNode.parentElement;
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(others)) continue;
    const styles = chain(element).map((e) => getComputedStyle(e)), [style] = styles;
    const grounds = styles.map((s) => parse(s.backgroundColor));
    const count = 1 + grounds.findIndex((color) => color[3] === 1) || grounds.length;
    if (styles.slice(0, count).some((s) => s.backgroundImage !== 'none')) continue;
    const solid = grounds.slice(0, count), paper = [255, 255, 255, 1];
    const ground = solid.reduceRight((under, color) => over(color, under), paper);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    ink[3] *= styles.reduce((product, s) => product * s.opacity, 1);
    const [dark, bright] = [light(over(ink, ground)), light(ground)].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push([Math.round(100 * ratio) / 100, text.slice(0, 40)]);
  }
  return found;
}"""
# where the focus is, and whether one sees it: an outline, or a shadow around it or around its block
FOCUS = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  const ringed = (e) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(e);
    return outlineStyle !== 'none' && parseFloat(outlineWidth) > 0 || boxShadow !== 'none';
  };
  let seen = false;
  for (let e = at, up = 0; e && up < 5; e = e.parentElement, up++) seen ||= ringed(e);
  return [at === document.body ? '' : at.outerHTML.slice(0, 120), seen || !box.width];
}"""


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    torch.manual_seed(0)
    card = Card(name="tiny", class_names=("ant", "bee", "cat", "dog", "eel", "fox", "gnu"), accuracy=0.5)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save(folder, randomised(ViT(tiny_config())), card)
    for step in (1, 10):
        save_snapshot(folder, randomised(ViT(tiny_config())), card, step, {"accuracy": step / 20})
    return Session(extra=(str(folder),))


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request, browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=request.param)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#viewer .vit-readout")).to_contain_text("gives")
    yield page
    context.close()


def opened(page: Page, tab: str) -> Page:
    page.locator(f"#tab-{tab}-button").click()
    page.locator(THERE[tab]).first.wait_for()
    page.wait_for_function("() => !document.querySelector('.is-loading')")  # then all stands still
    return page


def unnamed(page: Page) -> list[str]:
    """Controls and drawings of the accessibility tree that say nothing."""
    tree: CDPSession = page.context.new_cdp_session(page)
    found = []
    for node in tree.send("Accessibility.getFullAXTree")["nodes"]:
        role, name = node.get("role", {}).get("value"), node.get("name", {}).get("value", "")
        if node["ignored"] or name.strip() or role not in CONTROLS | DRAWINGS:
            continue
        element = tree.send("DOM.resolveNode", {"backendNodeId": node["backendDOMNodeId"]})["object"][
            "objectId"
        ]
        call = {"objectId": element, "functionDeclaration": INSIDE, "returnByValue": True}
        if role in CONTROLS or not tree.send("Runtime.callFunctionOn", call)["result"]["value"]:
            described = tree.send("DOM.describeNode", {"backendNodeId": node["backendDOMNodeId"]})["node"]
            found.append(f"{role}: {described['nodeName']} {described.get('attributes')}")
    tree.detach()
    return found


@pytest.mark.parametrize("tab", [name for name, _, _ in TABS])
def test_a_page_has_headings_in_order_names_for_all_and_nothing_pale(page: Page, tab: str) -> None:
    opened(page, tab)
    levels = [level for level, _ in page.evaluate(HEADINGS)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), page.evaluate(HEADINGS)
    assert unnamed(page) == []
    assert page.evaluate(PALE) == []


def test_the_focus_goes_through_a_page_and_is_seen(page: Page) -> None:
    opened(page, "explore")
    page.locator("#tab-explore-button").focus()
    names = []
    while not names or names[-1]:  # until it leaves the page
        page.keyboard.press("Tab")
        name, seen = page.evaluate(FOCUS)
        assert seen or not name, name
        names.append(name)
    assert len(names) > 20 and 'class="show-api' in names[-2], "down to the footer"


def test_arrow_keys_go_between_tabs_and_a_choice_keeps_the_focus(page: Page) -> None:
    opened(page, "explore")
    page.locator("#tab-explore-button").focus()
    for key, tab in (("ArrowRight", "lesson"), ("End", "about"), ("ArrowRight", "explore")):
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{tab}-button")).to_be_focused()
        expect(page.locator(f"#tab-{tab}-button")).to_have_attribute("aria-selected", "true")
    size, options = page.locator("#size input"), page.locator("ul[role=listbox] li")
    size.click()
    expect(options.first).to_be_visible()
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    size.click()
    expect(options.first).to_be_visible()
    page.keyboard.press("Enter")
    expect(options).to_have_count(0)
    expect(page.locator("#size")).to_be_focused()


def test_a_page_says_that_its_server_is_gone_and_when_it_is_back(page: Page) -> None:
    said = page.locator(".vx-waiting")
    page.route("**/turn/*", lambda route: route.abort())
    for _ in range(2):
        page.evaluate("vitPage.feel()")
    expect(said).to_contain_text("The server does not answer.")
    page.unroute("**/turn/*")
    page.evaluate("vitPage.feel()")
    expect(said).to_have_count(0)
