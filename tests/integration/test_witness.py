"""What a page asks of others is noted, in a real browser: or the test of the pages would see nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bundle import browse
from bundle.run import run

pytestmark = pytest.mark.timeout(180)
TOP = Path(__file__).parents[2]
LOOK = """
import json, sys
from playwright.sync_api import sync_playwright
from bundle import browse
from bundle.witness import witness
with witness() as seen, sync_playwright() as play:
    browser = browse.launch(play, sys.argv[1], seen)
    page = browser.new_page()
    page.set_content(sys.argv[2])
    page.wait_for_timeout(1500)
    try:
        print(browse.outside(browser, seen))
    except AssertionError as error:
        print("noted", error)
    browser.close()
"""


def look(page: str, home: Path) -> str:
    """What the witnesses say of a page, in a network of their own."""
    script = 'ip link set lo up && exec "$@"'
    inner = [*browse.witnessed(home), sys.executable, "-c", LOOK, browse.find_chromium(), page]
    line = ["unshare", "--net", "/bin/sh", "-c", script, "sh", *inner]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(TOP)}
    return run(line, timeout=120, env=env)


@pytest.mark.parametrize(
    ("page", "noted"),
    [
        ("<p>nothing</p>", "outside: nothing was asked for"),
        ('<img src="http://stranger.example/a.png">', "GET http://stranger.example/a.png"),
        ('<script src="https://stranger.example/a.js"></script>', "CONNECT stranger.example:443"),
        ("<script>fetch('https://stranger.example/')</script>", "CONNECT stranger.example:443"),
    ],
)
def test_what_a_page_asks_of_others_is_noted(page: str, noted: str, tmp_path: Path) -> None:
    said = look(page, tmp_path)
    assert noted in said
    assert said.startswith("noted") == (noted != "outside: nothing was asked for")
