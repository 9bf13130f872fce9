"""Tell the site when a job fails, by the command that it named; what cannot be told is a warning only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from bundle.config import SiteConfig
from bundle.errors import BundleError, BusyError
from bundle.run import log, run
from bundle.words import say

WITHIN_S = 60


@contextlib.contextmanager
def alerting(site: SiteConfig, task: str) -> Iterator[None]:
    """Do a job; its failure is told, and raised on. That another one is at work is none."""
    try:
        yield
    except BusyError:
        raise
    except (BundleError, OSError) as error:
        tell(site, task, str(error))
        raise


def tell(site: SiteConfig, task: str, message: str) -> None:
    """Run the site's command with one line of JSON as its input."""
    if not site.alert_command:
        return
    line = json.dumps({"site": site.domain, "task": task, "message": message}, ensure_ascii=False)
    try:
        run(list(site.alert_command), timeout=WITHIN_S, text=line + "\n")
    except BundleError as error:
        text = say("alert.command failed", "alert.command 실패")
        log.warning("%s: %s", text, str(error).splitlines()[0])
