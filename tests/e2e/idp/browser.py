"""A person in a browser: Phoenix' login page, the button, the identity provider's pages, and back.

Standard input says who; where that led goes out. It runs in the closed host's network.
"""

import json
import sys
from typing import Any

from playwright.sync_api import Page, sync_playwright

WANTED: dict[str, Any] = json.load(sys.stdin)
PHOENIX = "https://closed.internal:8445"
RULES = f"MAP closed.internal 127.0.0.1, MAP * {WANTED['address']}"
ASK = """async () => {
  const body = {query: "query { viewer { username email role { name } } }"};
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch("/graphql", {method: "POST", headers, body: JSON.stringify(body)});
  return answer.ok ? (await answer.json()).data.viewer : null;
}"""
CHANGE = """async () => {
  const query = "mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { id } } }";
  const body = {query, variables: {input: {name: "sso-" + Math.random()}}};
  const headers = {"Content-Type": "application/json"};
  return (await fetch("/graphql", {method: "POST", headers, body: JSON.stringify(body)})).status;
}"""


def log_in(page: Page) -> dict[str, Any]:
    """Press the button, be somebody, come back."""
    page.goto(f"{PHOENIX}/login", timeout=60_000)
    page.get_by_text(WANTED["title"]).first.click(timeout=60_000)
    page.wait_for_load_state(timeout=60_000)
    if page.url.startswith(WANTED["issuer"]):
        page.fill("input[name=login]", WANTED["login"])
        page.fill("input[name=password]", "any")
        page.click("button[type=submit]")
        page.wait_for_load_state()
        if page.url.startswith(WANTED["issuer"]):
            page.click("button[type=submit]")  # consent
        page.wait_for_url(f"{PHOENIX}/**", timeout=60_000, wait_until="commit")
        page.wait_for_load_state()
    found = {"url": page.url, "text": page.inner_text("body")[:400]}
    page.screenshot(path=WANTED["picture"])
    if "error" in page.url or "/oauth2/" in page.url:
        return found
    return {**found, "viewer": page.evaluate(ASK), "change": page.evaluate(CHANGE)}


with sync_playwright() as play:
    chromium = play.chromium.launch(
        executable_path=WANTED["chromium"],
        args=["--no-sandbox", "--no-proxy-server", f"--host-resolver-rules={RULES}"],
    )
    json.dump(log_in(chromium.new_page()), sys.stdout)
    chromium.close()
