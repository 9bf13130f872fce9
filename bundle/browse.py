"""Both user interfaces in a real browser, as a person opens them: name, certificate, login, sample run.

The browser runs with this machine's file system in the closed host's network, and trusts the site's root alone. What it
asks for beside the stack is noted by a name server and a proxy of ours (bundle/witness.py): that must be nothing.
Playwright and Chromium belong to the connected side; the product does not carry them.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from bundle.closed import ClosedHost
from bundle.errors import CheckFailedError, CommandError, PreconditionError
from bundle.run import run
from bundle.services.gateway import POLICIES
from bundle.witness import CONTROL, Witness, witness

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
DOMAIN = "closed.internal"
PATIENCE = 120_000
SIGHTS = ("portal", "mlflow", "phoenix", "outside")
CLOSED = re.compile(r"/mlflow/(assistant|gateway)\b")
"""What MLflow's pages ask for and the gateway closes on purpose."""
_WITH_RESOLVER = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


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
        environment = {
            "HOME": home,
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_TOP),
        }
        try:
            seen = host.beside(
                [*witnessed(Path(home)), sys.executable, "-m", "bundle.browse"],
                timeout=400,
                env=environment,
                text=json.dumps(wanted),
            )
        except CommandError as error:
            raise CheckFailedError(
                f"a page in the browser is not as it should be\n{error}",
                hint=f"The pictures are in {out}.",
            ) from error
    return seen.strip()


_TOP = Path(__file__).resolve().parents[1]


def witnessed(home: Path) -> list[str]:
    """What gives a command a name server on the loopback, whatever this machine has."""
    resolver = home / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n", "ascii")
    return ["unshare", "--mount", "/bin/sh", "-c", _WITH_RESOLVER, str(resolver)]


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
    with witness() as seen, sync_playwright() as play:
        browser = launch(play, wanted["chromium"], seen)
        try:
            return [
                _portal(browser, wanted),
                _mlflow(browser, wanted),
                _phoenix(browser, wanted),
                outside(browser, seen),
            ]
        finally:
            browser.close()


def launch(play: Any, chromium: str, seen: Witness) -> Any:
    """A browser that finds the stack on the loopback, and asks for everything else where that is noted."""
    return play.chromium.launch(
        executable_path=chromium,
        args=[
            *("--no-sandbox", "--disable-component-update", "--disable-background-networking"),
            f"--proxy-server=http://127.0.0.1:{seen.port}",
            f"--proxy-bypass-list={DOMAIN};*.{DOMAIN}",
            f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1, MAP *.{DOMAIN} 127.0.0.1",
        ],
    )


def outside(browser: Any, seen: Witness) -> str:
    """Nothing was asked of anybody but the stack; that both witnesses see is shown by asking them."""
    page = browser.new_page()
    page.goto(f"http://{CONTROL}/", timeout=30_000)
    with contextlib.suppress(OSError):
        socket.getaddrinfo(CONTROL, 80)
    strangers = seen.strangers()
    assert not strangers, strangers
    return "outside: nothing was asked for"


class Watched:
    """A page whose console must stay clean, and whose requests must all be answered well."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.wrong: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"https://{DOMAIN}:", "data:", "blob:")):
            self.wrong.append(f"asks for {request.url}")

    def _answered(self, answer: Any) -> None:
        if answer.status >= 400 and answer.status != 401 and not CLOSED.search(answer.url):
            self.wrong.append(f"{answer.status} {answer.url}")
        if answer.request.resource_type == "document":
            lacking = [
                name for name, text in POLICIES.items() if text not in answer.headers.get(name, "")
            ]
            self.wrong += [f"{answer.url} lacks {name}" for name in lacking]

    def _told(self, message: Any) -> None:
        """A failed request is judged by its answer, all other errors count."""
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.wrong.append(f"console: {message.text}")

    def clean(self) -> None:
        """See that nothing was wrong so far."""
        assert not self.wrong, self.wrong


def _portal(browser: Any, wanted: dict[str, str]) -> str:
    seen = Watched(browser.new_context())
    page = seen.page
    answer = page.goto(f"https://{DOMAIN}:8443/", timeout=30_000)
    assert answer is not None
    assert answer.status == 200, answer.status
    page.screenshot(path=f"{wanted['out']}/portal.png")
    seen.clean()
    return f"portal: {page.title()}"


def _mlflow(browser: Any, wanted: dict[str, str]) -> str:
    credentials = {"username": "admin", "password": wanted["mlflow_password"]}
    seen = Watched(browser.new_context(http_credentials=credentials))
    page = seen.page
    where = "?workspace=default"  # without it the page asks for one first
    page.goto(f"https://{DOMAIN}:8444/#/experiments{where}", timeout=PATIENCE)
    page.get_by_role("link", name=wanted["experiment"], exact=True).click(timeout=PATIENCE)
    page.wait_for_url(re.compile(r"/experiments/\d+"), timeout=PATIENCE)
    number = page.url.partition("/experiments/")[2].partition("?")[0].partition("/")[0]
    page.goto(f"https://{DOMAIN}:8444/#/experiments/{number}/runs{where}", timeout=PATIENCE)
    run = page.locator(f"a[href*='/experiments/{number}/runs/']").first
    name = run.inner_text(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/mlflow.png")
    run.click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f]+"), timeout=PATIENCE)
    page.get_by_role("tab", name="Model metrics").click(timeout=PATIENCE)
    page.locator(".js-plotly-plot svg").first.wait_for(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/mlflow-chart.png")
    page.get_by_role("tab", name="Artifacts").click(timeout=PATIENCE)
    page.get_by_text("metrics", exact=True).first.wait_for(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/mlflow-artifacts.png")
    seen.clean()
    return f"mlflow: run {name}"


def _phoenix(browser: Any, wanted: dict[str, str]) -> str:
    seen = Watched(browser.new_context())
    page = seen.page
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
    link = page.locator("tbody tr a").first
    span = link.inner_text(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/phoenix.png")
    link.click()
    page.get_by_text("span_id").or_(page.get_by_role("tab", name="Attributes")).first.wait_for(
        timeout=PATIENCE
    )
    page.screenshot(path=f"{wanted['out']}/phoenix-trace.png")
    number = page.url.partition("/projects/")[2].partition("/")[0]
    page.goto(f"https://{DOMAIN}:8445/projects/{number}/metrics", timeout=PATIENCE)
    page.locator("svg.recharts-surface").first.wait_for(timeout=PATIENCE)
    page.screenshot(path=f"{wanted['out']}/phoenix-chart.png")
    seen.clean()
    return f"phoenix: span {span}"


if __name__ == "__main__":
    for line in open_pages(json.load(sys.stdin)):
        sys.stdout.write(f"{line}\n")
