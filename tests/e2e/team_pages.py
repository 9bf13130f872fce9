"""People of teams in a browser: which experiments MLflow's pages show them, and what they say of those of others.

Standard input says who there is, and of which team; what each saw goes out. It runs in the closed host's network.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from playwright.sync_api import sync_playwright

from bundle import browse
from bundle.witness import witness

WANTED: dict[str, Any] = json.load(sys.stdin)
SETTLE = 4_000
"""Pages ask again and again: they are never idle."""
BASE = f"https://{browse.DOMAIN}:8444/#"


def visit(browser: Any, who: dict[str, str]) -> dict[str, Any]:
    """What somebody sees: the choice of workspaces, the experiments of the own one, a run in it."""
    credentials = {"username": who["name"], "password": who["password"]}
    seen = browse.Watched(browser.new_context(http_credentials=credentials))
    page = seen.page
    page.goto(f"{BASE}/", timeout=browse.PATIENCE)
    page.get_by_text(who["team"], exact=True).first.wait_for(timeout=browse.PATIENCE)
    chooser = page.inner_text("body")
    page.goto(f"{BASE}/experiments?workspace={who['team']}", timeout=browse.PATIENCE)
    own = page.get_by_role("link", name=who["experiment"], exact=True)
    own.wait_for(timeout=browse.PATIENCE)
    listed = page.inner_text("body")
    page.goto(
        f"{BASE}/experiments/{who['number']}/runs?workspace={who['team']}", timeout=browse.PATIENCE
    )
    run = page.locator(f"a[href*='/experiments/{who['number']}/runs/']").first
    run.wait_for(timeout=browse.PATIENCE)
    inside = page.inner_text("body")
    run.click(timeout=browse.PATIENCE)
    page.wait_for_url(re.compile(r"/runs/[0-9a-f]+"), timeout=browse.PATIENCE)
    opened = page.url.partition("/runs/")[2][:32]
    page.get_by_text(opened).first.wait_for(timeout=browse.PATIENCE)
    page.wait_for_timeout(SETTLE)
    page.screenshot(path=f"{WANTED['out']}/{who['name']}.png")
    return {
        "chooser": chooser,
        "listed": listed,
        "inside": inside,
        "wrong": seen.wrong,
        "theirs": others(browser, who, credentials),
    }


def others(browser: Any, who: dict[str, str], credentials: dict[str, str]) -> str:
    """What the page of another team's experiment says, opened by its address."""
    page = browser.new_context(http_credentials=credentials).new_page()
    page.goto(
        f"{BASE}/experiments/{who['other_number']}/runs?workspace={who['other_team']}",
        timeout=browse.PATIENCE,
    )
    page.wait_for_timeout(SETTLE)
    page.screenshot(path=f"{WANTED['out']}/{who['name']}-theirs.png")
    return str(page.inner_text("body"))


with witness() as noted, sync_playwright() as play:
    chromium = browse.launch(play, WANTED["chromium"], noted)
    try:
        json.dump({who["name"]: visit(chromium, who) for who in WANTED["people"]}, sys.stdout)
    finally:
        chromium.close()
