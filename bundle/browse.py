"""Both user interfaces in a real browser, as a person opens them: name, certificate, login, sample run.

The browser runs with this machine's file system in the closed host's network, and trusts the site's root alone.
Playwright and Chromium belong to the connected side; the product does not carry them.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from bundle.closed import ClosedHost
from bundle.errors import CheckFailedError, CommandError, PreconditionError
from bundle.run import run

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
DOMAIN = "closed.internal"
PATIENCE = 120_000
SIGHTS = ("portal", "mlflow", "phoenix")


def look(host: ClosedHost, root: str, out: Path, *, experiment: str) -> str:
    """Open the portal, then the sample run of `experiment` in both trackers, logged in; says what was seen.

    A picture of each stays in `out`.

    Raises PreconditionError without a browser, CheckFailedError when a page is not what it should be.
    """
    chromium = find_chromium()
    out.mkdir(parents=True, exist_ok=True)
    store = host.root / root.lstrip("/") / "secrets/store"
    with tempfile.TemporaryDirectory(prefix="browse-") as home:
        trust(Path(home), host.root / root.lstrip("/") / "pki/root.crt")
        wanted = {
            "chromium": chromium,
            "out": str(out),
            "experiment": experiment,
            "mlflow_password": (store / "MLFLOW_AUTH_ADMIN_PASSWORD").read_text().strip(),
            "phoenix_password": (store / "PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD")
            .read_text()
            .strip(),
        }
        try:
            seen = host.beside(
                [sys.executable, "-m", "bundle.browse"],
                timeout=400,
                env={
                    "HOME": home,
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": str(_TOP),
                },
                text=json.dumps(wanted),
            )
        except CommandError as error:
            raise CheckFailedError(
                f"a page in the browser is not as it should be\n{error}",
                hint=f"The pictures are in {out}.",
            ) from error
    return seen.strip()


_TOP = Path(__file__).resolve().parents[1]


def find_chromium() -> str:
    """The browser of this machine.

    Raises PreconditionError when there is none.
    """
    found = next((path for path in CHROMIUM if Path(path).exists()), None)
    if found is None:
        raise PreconditionError(
            "no Chromium", hint="Install chromium, libatomic1 and libnss3-tools."
        )
    return found


def trust(home: Path, root_certificate: Path) -> None:
    """Make `root_certificate` the one that the browser of `home` trusts beside the public ones.

    Raises PreconditionError without certutil.
    """
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    name = ["-d", f"sql:{database}"]
    run(["certutil", "-N", "--empty-password", *name], timeout=30)
    run(
        ["certutil", "-A", "-n", "site", "-t", "C,,", "-i", str(root_certificate), *name],
        timeout=30,
        hint="Install libnss3-tools.",
    )


def open_pages(wanted: dict[str, str]) -> list[str]:
    """Open the pages; this runs in the closed host's network.

    Raises playwright's error when one is not as it should be.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise PreconditionError("no playwright", hint="Use the environment of dev.lock.") from error
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=wanted["chromium"],
            args=[
                "--no-sandbox",
                "--no-proxy-server",
                f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1, MAP *.{DOMAIN} 127.0.0.1",
            ],
        )
        try:
            return [
                _portal(browser, wanted),
                _mlflow(browser, wanted),
                _phoenix(browser, wanted),
            ]
        finally:
            browser.close()


def _portal(browser: Any, wanted: dict[str, str]) -> str:
    page = browser.new_page()
    answer = page.goto(f"https://{DOMAIN}:8443/", timeout=30_000)
    assert answer is not None
    assert answer.status == 200, answer.status
    page.screenshot(path=f"{wanted['out']}/portal.png")
    return f"portal: {page.title()}"


def _mlflow(browser: Any, wanted: dict[str, str]) -> str:
    credentials = {"username": "admin", "password": wanted["mlflow_password"]}
    page = browser.new_context(http_credentials=credentials).new_page()
    refused: list[str] = []
    page.on("response", lambda answer: _note_refusal(answer, refused))
    page.goto(f"https://{DOMAIN}:8444/#/experiments", timeout=PATIENCE)
    page.get_by_role("link", name=wanted["experiment"], exact=True).click(timeout=PATIENCE)
    page.wait_for_url(re.compile(r"/experiments/\d+"), timeout=PATIENCE)
    number = page.url.partition("/experiments/")[2].partition("/")[0]
    page.goto(f"https://{DOMAIN}:8444/#/experiments/{number}/runs", timeout=PATIENCE)
    run = page.locator(f"a[href*='/experiments/{number}/runs/']").first
    name = run.inner_text(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/mlflow.png")
    assert not refused, refused
    return f"mlflow: run {name}"


def _note_refusal(answer: Any, refused: list[str]) -> None:
    """The gateway closes the assistant on purpose; anything else that a page asks for must be there."""
    if answer.status >= 400 and answer.status != 401 and "/mlflow/assistant/" not in answer.url:
        refused.append(f"{answer.status} {answer.url}")


def _phoenix(browser: Any, wanted: dict[str, str]) -> str:
    page = browser.new_page()
    first = wanted["phoenix_password"]
    second = f"{first}-2"  # Phoenix wants another one at the first login; later visits know it thus
    project = page.get_by_role("link", name=re.compile(wanted["experiment"]))
    reset, refused = page.get_by_label("Old Password"), page.get_by_text("Invalid login")
    for password in (second, first, second):
        page.goto(f"https://{DOMAIN}:8445/login", timeout=PATIENCE)
        page.get_by_label("Email").fill("admin@localhost", timeout=PATIENCE)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log In").click()
        refused.or_(reset).or_(project).first.wait_for(timeout=PATIENCE)
        if project.first.is_visible():
            break
        if reset.is_visible():
            for field, value in (("Old", first), ("New", second), ("Confirm", second)):
                page.get_by_label(f"{field} Password").fill(value)
            page.get_by_role("button", name="Reset Password").click()
            page.get_by_text("Password has been reset").wait_for(timeout=PATIENCE)
    project.first.click(timeout=PATIENCE)
    span = page.locator("tbody tr a").first.inner_text(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/phoenix.png")
    return f"phoenix: span {span}"


if __name__ == "__main__":
    for line in open_pages(json.load(sys.stdin)):
        sys.stdout.write(f"{line}\n")
