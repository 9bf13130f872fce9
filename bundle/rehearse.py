"""The rehearsal: install and verify a bundle on a disposable closed host, before anyone carries it across."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle import browse, closed, unseal
from bundle.closed import ClosedHost
from bundle.errors import CheckFailedError, ConfigError
from bundle.run import log, step
from bundle.words import say

PRODUCT_ROOT = "/var/lib/tracking-bundle"
MEDIUM = "/media"
OUTSIDE = ("deb.debian.org", "1.1.1.1", "2606:4700:4700::1111")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step of the rehearsal: what was done, how long it took, what it showed."""

    step: str
    seconds: float
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What to rehearse and where.

    `folder` holds the closed host, `cache` its bare file system, `reports` what comes back.
    `experiment` holds verify's sample runs, which the browser looks for.
    """

    bundle: Path
    fingerprint: str
    folder: Path
    cache: Path
    reports: Path
    mirror: str = ""
    keep: bool = False
    browser: bool = False
    experiment: str = ""


def rehearse(wanted: Rehearsal) -> list[Row]:
    """Install and verify the bundle on a fresh closed host, which is removed afterwards (with `keep`: left running).

    Raises CheckFailedError when the host is not closed or a line of the checklist is red, and what a step raised.
    """
    if not wanted.bundle.is_file():
        raise ConfigError(
            "no such bundle", where=str(wanted.bundle), hint="Make one with invoke bundle."
        )
    rows: list[Row] = []
    with timed(rows, say("closed host made", "폐쇄 호스트 준비")):
        host = make_host(wanted)
    try:
        for english, korean, act in STEPS:
            with timed(rows, say(english, korean)) as found:
                found.append(act(host, wanted))
    finally:
        bring_back(host, wanted.reports)
        if wanted.keep:
            log.info("%s", host.way_in())
        else:
            host.remove()
    return rows


@contextmanager
def timed(rows: list[Row], title: str) -> Iterator[list[str]]:
    """Do one step: it is shown, timed, and gets its row with what was found."""
    found: list[str] = []
    begin = time.monotonic()
    with step(title):
        yield found
    rows.append(Row(step=title, seconds=time.monotonic() - begin, found=" ".join(found)))


def make_host(wanted: Rehearsal) -> ClosedHost:
    """A fresh closed host, switched on, its engine answering.

    Raises PreconditionError where this machine cannot hold one.
    """
    host = closed.create(wanted.folder, cache=wanted.cache, mirror=wanted.mirror)
    try:
        host.start()
        host.engine_up()
    except BaseException:
        host.remove()
        raise
    return host


def assert_closed(host: ClosedHost, _: Rehearsal) -> str:
    """Prove that nothing of ours is in it and that nothing outside can be reached.

    Raises CheckFailedError with every opening.
    """
    openings = host.openings(OUTSIDE)
    if openings:
        raise CheckFailedError("the closed host is not closed: " + "; ".join(openings))
    return "only a loopback, no route, no name, no image, no certificate, no checkout"


def bootstrap(host: ClosedHost, wanted: Rehearsal) -> str:
    """Bring the bundle in, file or parts, and nothing else; check and unpack it as the trust sheet says."""
    parts = unseal.parts_of(wanted.bundle)
    places = [str(host.put(part, MEDIUM)) for part in parts]
    host.run(["tar", "-xf", places[0], "--occurrence=1", "bootstrap.sh"], timeout=60, cwd="/root")
    host.run(
        ["sh", "bootstrap.sh", places[0], "--fingerprint", wanted.fingerprint],
        timeout=300,
        cwd="/root",
        stream=True,
    )
    return f"{sum(part.stat().st_size for part in parts) / 1e6:,.0f} MB"


def invoke(host: ClosedHost, *words: str, timeout: float, check: bool = True) -> str:
    """Run a task of the bootstrapped release, as the operator types it.

    Raises CommandError when it fails.
    """
    line = f'cd {PRODUCT_ROOT}/current && . .venv/bin/activate && exec invoke "$@"'
    return host.run(["sh", "-c", line, "sh", *words], timeout=timeout, check=check, stream=check)


def install(host: ClosedHost, _: Rehearsal) -> str:
    """From the empty engine to the running stack."""
    invoke(host, "install", "--yes", timeout=600)
    return f"{len(host.engine.image_ids())} images"


def verify(host: ClosedHost, _: Rehearsal) -> str:
    """Every line of the checklist."""
    invoke(host, "verify", timeout=300)
    return "every line green"


def browsed(host: ClosedHost, wanted: Rehearsal) -> str:
    """Both user interfaces in a real browser, logged in, when asked for."""
    if not wanted.browser:
        return "not asked for"
    seen = browse.look(host, PRODUCT_ROOT, wanted.reports, experiment=wanted.experiment)
    return ", ".join(seen.splitlines())


def install_again(host: ClosedHost, _: Rehearsal) -> str:
    """A second install changes nothing."""
    invoke(host, "install", "--yes", timeout=300)
    return ""


Step = Callable[[ClosedHost, Rehearsal], str]
STEPS: tuple[tuple[str, str, Step], ...] = (
    ("closed and empty", "닫혀 있고 비어 있음", assert_closed),
    ("bundle brought in, bootstrapped", "번들 반입, bootstrap", bootstrap),
    ("invoke install", "invoke install", install),
    ("invoke verify", "invoke verify", verify),
    ("browser", "브라우저", browsed),
    ("invoke install, again", "invoke install, 다시", install_again),
)


def bring_back(host: ClosedHost, reports: Path) -> None:
    """Copy the closed host's reports to `reports`; there are none when it failed early."""
    inside = host.root / PRODUCT_ROOT.lstrip("/") / "reports"
    if inside.is_dir():
        shutil.copytree(inside, reports, dirs_exist_ok=True)
