"""The tasks of the tracking bundle: arguments in, values through, one error line and an exit code out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from bundle.console import operator
from bundle.workflows import (
    audit,
    backups,
    bench,
    certificates,
    closed,
    connected,
    network,
    people,
    recovery,
    restoring,
    secrets,
)

HERE = Path(__file__).resolve().parent
COMMON = {
    "quiet": (False, "say only what is wrong"),
    "debug": (False, "show each command, and the traceback of an error"),
    "lang": ("", "ko or en (default: by the locale)"),
}


def operation(
    *,
    name: str | None = None,
    help: dict[str, str] | None = None,  # noqa: A002  (invoke's word)
    recorded: bool = True,
    **settings: Any,
) -> Callable[[Callable[..., object]], Any]:
    """A task that takes the options of every task too, and prints what its body returns.

    It is called as its body is (`users_add`: users.add), and is written down in the audit log unless not `recorded`.
    """

    def make(body: Callable[..., object]) -> Any:
        title = body.__name__.replace("_", ".", 1)

        @functools.wraps(body)
        def run(_: Context, *, quiet: bool, debug: bool, lang: str, **options: Any) -> None:
            note = audit.recorded(HERE, title, options) if recorded else nullcontext()
            with operator(quiet=quiet, debug=debug, lang=lang), note:
                answer = body(**options)
                if answer is not None:
                    print(answer)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        common = [inspect.Parameter(key, kind, default=given) for key, (given, _) in COMMON.items()]
        own = inspect.signature(body).parameters.values()
        parameters = [inspect.Parameter("context", kind), *own, *common]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        texts = (help or {}) | {key: text for key, (_, text) in COMMON.items()}
        return task(name=name, help=texts, **settings)(run)

    return make


@operation(
    help={
        "config": "bundle.toml",
        "out": "folder for the bundle",
        "sign-key": "PEM of the signing key (a passphrase: in TRACKING_SIGN_PASSPHRASE_FILE, or asked for)",
        "old-key": "PEM of the key that sites trust now: tells them that the signing key follows it",
        "split": "cut the file in parts of this size, like 4000M (FAT32 takes less than 4 GiB)",
        "parts": "request of the closed side: make only these parts again",
        "advisories": "offline vulnerability database: a zip or folder of OSV records",
        "base": "inventory of the closed side: make a delta, of layers and wheels that are not there",
        "sizes": "also write ….sizes.txt: what takes the room, by image and by package",
    }
)
def bundle(
    config: str = "",
    out: str = "dist",
    sign_key: str = "",
    old_key: str = "",
    split: str = "",
    parts: str = "",
    base: str = "",
    advisories: str = "",
    sizes: bool = False,
) -> str:
    """Make the sealed bundle on a connected host."""
    order = connected.Order(
        settings=config,
        out=Path(out),
        sign_key=sign_key,
        base=base,
        advisories=advisories,
        sizes=sizes,
        old_key=old_key,
        split=split,
        parts=parts,
    )
    return connected.make_bundle(HERE, order)


@operation(
    help={
        "config": "bundle.toml",
        "upgrade": "also move wheels or modules to newer versions: NAME, or all without a name",
        "gone": "only where the mirror no longer has a locked Debian package",
    },
    optional=["upgrade"],
)
def lock(
    upgrade: str | bool = "",
    gone: bool = False,
    config: str = "",
) -> str:
    """Refresh the locked inputs under images/ and show what changed."""
    name = "all" if upgrade is True else str(upgrade or "")
    return connected.relock(HERE, settings=config, upgrade=name, gone=gone)


@operation(
    help={
        "bundle": "the sealed file (default: the newest in dist/)",
        "fingerprint": "of the signing key (default: by the trust sheet beside the file)",
        "keep": "leave the closed host standing",
        "browser": "also open both trackers in Chromium",
    }
)
def rehearse(
    bundle: str = "",
    fingerprint: str = "",
    keep: bool = False,
    browser: bool = False,
) -> str:
    """Install and verify the bundle on a disposable closed host, before anyone carries it across."""
    return connected.rehearsal(
        HERE, bundle=bundle, fingerprint=fingerprint, keep=keep, browser=browser
    )


@operation(
    help={
        "bundle": "the sealed file (default: the one bootstrapped)",
        "site": "site.toml to use",
        "yes": "do not ask",
    }
)
def install(
    bundle: str = "",
    site: str = "",
    yes: bool = False,
) -> None:
    """Bring the stack up on this closed host; twice is a no-op, killed anywhere it is finished by the next run."""
    closed.install_release(HERE, bundle=bundle, site_file=site, yes=yes)


@operation(
    help={
        "only": "check only this id (repeatable)",
        "format": "text, json, junit or html",
        "report": "folder",
    },
    iterable=["only"],
)
def verify(
    only: list[str],
    format: str = "text",  # noqa: A002  (the name of the option)
    report: str = "",
) -> str:
    """Prove every line of the checklist on the running stack."""
    return closed.verify(HERE, only=tuple(only), form=format, report=report)


@operation(help={"out": "file to write"})
def inventory(out: str) -> Path:
    """Write down what is here, for a delta: digests of layers and wheels, no name, no address, no secret."""
    return closed.inventory(HERE, out=Path(out))


@operation()
def start() -> None:
    """Start the stack and wait until it is healthy."""
    closed.start(HERE)


@operation()
def stop() -> None:
    """Stop the stack; data stays."""
    closed.stop(HERE)


@operation()
def status() -> str:
    """Show services, versions, URLs, what expires next and the room that is left."""
    return closed.status(HERE)


@operation(help={"service": "one service (default: all)", "since": "a time, or a duration like 1h"})
def logs(
    service: str = "",
    since: str = "1h",
) -> str | None:
    """Show the services' logs."""
    return closed.logs(HERE, service=service, since=since).removesuffix("\n") or None


@operation(
    help={
        "install": "start the stack at boot, renew certificates daily",
        "remove": "no longer",
        "show": "say what is scheduled",
    }
)
def schedule(
    install: bool = False,
    remove: bool = False,
    show: bool = False,
) -> str:
    """Start the stack at boot and renew certificates daily, by systemd or cron."""
    return closed.schedule(HERE, add=install, remove=remove)


@operation(help={"install": "put it in force, at each start too", "remove": "take it away"})
def firewall(install: bool = False, remove: bool = False) -> str:
    """Show a rule for this host's firewall: nothing that a container begins leaves its networks."""
    return network.firewall(HERE, add=install, remove=remove)


@operation(
    help={
        "full": "databases and objects from the beginning, not only what is new",
        "export": "put all points into this folder too, of an offline medium: with digests, signed",
    }
)
def backup(full: bool = False, export: str = "") -> str:
    """Make one consistent point over databases, objects and what opens the site; last line: its id."""
    return backups.make(HERE, full=full, export=export)


@operation(help={"format": "text or json"}, recorded=False)
def points(
    format: str = "text",  # noqa: A002  (the name of the option)
) -> str:
    """Show the recovery points: id, time, size, how far proven, age."""
    return backups.listed(HERE, form=format)


@operation(help={"dry-run": "only say what would go", "yes": "also when it is much at once"})
def retention(dry_run: bool = False, yes: bool = False) -> str:
    """Let recovery points go that are older than is kept; counts and bytes. Each backup does it for a few."""
    return backups.retain(HERE, dry_run=dry_run, yes=yes)


@operation(
    help={
        "level": "0: stored whole; 1: every byte read; 2: databases restored beside; 3: with all objects",
        "point": "its id (default: the latest)",
        "part": "with --level 1: a tenth of the bytes",
    }
)
def prove(level: int = 0, point: str = "latest", part: bool = False) -> str:
    """Prove how far a recovery point can be relied on, and note it; exit code 6 when it cannot."""
    return backups.proof(HERE, point=point, level=level, part=part)


@operation(
    help={
        "point": "its id, or latest (default)",
        "to-time": "the newest point at or before this time, like 2026-11-21T14:05+09:00",
        "scratch": "the drill: beside the live system, without touching it",
        "kit": "on an empty host: the recovery kit",
        "key": "an operator's key that opens the kit (PEM)",
        "passphrase-file": "of that key",
        "yes": "do not ask",
    }
)
def restore(
    point: str = "latest",
    to_time: str = "",
    scratch: bool = False,
    kit: str = "",
    key: str = "",
    passphrase_file: str = "",
    yes: bool = False,
) -> str:
    """Bring a recovery point back: databases, objects and what belongs to them; what is here now stays aside."""
    if scratch:
        return backups.proof(HERE, point=point, to_time=to_time, level=3, part=False)
    wanted = restoring.Wanted(
        point=point, to_time=to_time, kit=kit, key=key, passphrase=passphrase_file, yes=yes
    )
    return restoring.restore_point(HERE, wanted)


@operation(help={"purge": "data, secrets and CA too", "yes": "do not ask"})
def uninstall(
    purge: bool = False,
    yes: bool = False,
) -> str:
    """Remove what install made; data stays unless --purge."""
    return closed.uninstall(HERE, purge=purge, yes=yes)


@operation(name="list")
def users_list() -> str:
    """Show who is in which tracker, with the role there."""
    return people.show(HERE)


ROLES = {"role": "viewer, editor or admin", "team": "whose experiments the person sees in MLflow"}


@operation(name="add", help=ROLES)
def users_add(name: str, role: str = "editor", team: str = "") -> None:
    """Add a person to both trackers."""
    people.add(HERE, name=name, role=role, team=team)


@operation(name="role", help=ROLES)
def users_role(name: str, role: str = "editor", team: str = "") -> None:
    """Make a person exactly this, in both trackers."""
    people.role(HERE, name=name, role=role, team=team)


@operation(name="disable")
def users_disable(name: str) -> None:
    """Refuse a person at both trackers at once; password, sessions and keys go."""
    people.disable(HERE, name=name)


@operation(name="enable")
def users_enable(name: str) -> None:
    """Let a disabled person in again; users.env then makes a fresh credential."""
    people.enable(HERE, name=name)


@operation(name="passwd", help={"file": "the password, in a file (-: standard input)"})
def users_passwd(name: str, file: str = "-") -> None:
    """Give a person this password in both trackers; sessions and the key of users.env end."""
    people.passwd(HERE, name=name, file=file)


@operation(name="token", help={"revoke": "id or name of the key to take back, or all"})
def users_token(name: str, revoke: str = "") -> str:
    """Show a person's API keys of Phoenix, or take one back; users.env and Phoenix' page make them."""
    return people.keys(HERE, name=name, revoke=revoke)


@operation(name="env", help={"user": "the person", "out": "file to write (mode 0600)"})
def users_env(user: str, out: str) -> Path:
    """Make a fresh credential for a person and write the client environment."""
    return people.environment(HERE, name=user, out=Path(out))


@operation(
    name="bundle",
    help={
        "quick": "one pair instead of five",
        "only": "measure only this group: size, seal, pack, import, delta, peers, memory (repeatable)",
        "strict": "exit code 6 when a goal is missed",
        "bundle": "the sealed file to measure (default: made of this checkout now)",
        "old": "a bundle that differs by one Python package, for the delta (default: made with Phoenix 20.25)",
    },
    iterable=["only"],
)
def bench_bundle(
    only: list[str],
    quick: bool = False,
    strict: bool = False,
    bundle: str = "",
    old: str = "",
) -> str:
    """Measure size, import, check, packing and memory side by side with other ways; dist/reports/bench-bundle.json."""
    return bench.bench_bundle(HERE, quick=quick, strict=strict, only=only, bundle=bundle, old=old)


@operation(name="status", help={"format": "text or json"})
def pki_status(
    format: str = "text",  # noqa: A002  (the name of the option)
) -> str:
    """Show what of the certificates expires when, the next first."""
    return certificates.status(HERE, form=format)


@operation(name="renew", help={"all": "also what is not due; what it replaces is revoked"})
def pki_renew(
    all: bool = False,  # noqa: A002  (the name of the option)
) -> None:
    """Issue anew what has lived two thirds of its life (30 days before the end), and have it served."""
    certificates.renew(HERE, everything=all)


@operation(name="rotate", help={"finish": "trust the new root only", "yes": "do not ask"})
def pki_rotate(
    finish: bool = False,
    yes: bool = False,
) -> str:
    """Make a new root, trusted beside the old one, and issue everything under it; stdout: the CA file for clients."""
    return certificates.rotate(HERE, finish=finish, yes=yes)


@operation(name="csr", help={"out": "file to write the request to"})
def pki_csr(out: str) -> Path:
    """Make a request for the gateway's names, for the site's own CA; the key stays here until pki.import."""
    return certificates.request(HERE, out=out)


@operation(
    name="import",
    help={
        "chain": "PEM file: the server's certificate, then every intermediate (and the site's root)",
        "key": "its key (default: that of the last pki.csr)",
        "ca": "the site's root, when it is not in the chain's file",
        "passphrase-file": "of an encrypted key",
        "remove": "use a certificate of the installation's own CA again",
    },
)
def pki_import(
    chain: str = "",
    key: str = "",
    ca: str = "",
    passphrase_file: str = "",
    remove: bool = False,
) -> str:
    """Use the site's own certificate at the gateway; inside stays the own CA. stdout: the CA file for clients."""
    if remove:
        return certificates.give_up(HERE)
    files = {"chain": chain, "key": key, "root": ca, "passphrase": passphrase_file}
    return certificates.take_in(HERE, **files)


@operation(name="collect", recorded=False)
def audit_collect() -> str | None:
    """Chain what the gateway wrote and copy the head away; a job does it each minute."""
    return audit.collect(HERE) or None


@operation(
    name="show",
    help={
        "since": "a duration like 90m, 24h, 7d, or a time",
        "user": "only what this user did, or had done to them",
        "format": "text or json",
    },
)
def audit_show(
    since: str = "24h",
    user: str = "",
    format: str = "text",  # noqa: A002  (the name of the option)
) -> str:
    """Show who did what, when, from where, with which result."""
    return audit.show(HERE, since=since, user=user, form=format)


@operation(
    name="verify",
    help={"heads": "a file or folder of heads from another host (default: audit.folder)"},
)
def audit_verify(heads: str = "") -> str:
    """Recompute the audit log's chain: name the first line that was changed, taken away, moved or cut off."""
    return audit.verify(HERE, heads=heads)


@operation(name="status", help={"format": "text or json"})
def secrets_status(
    format: str = "text",  # noqa: A002  (the name of the option)
) -> str:
    """Show each stored secret's class, age and last rotation; never a value."""
    return secrets.status(HERE, form=format)


@operation(
    name="rotate",
    help={
        "only": "a class (free, logout, data) or the name of a secret (repeatable; default: free)",
        "yes": "do not ask",
    },
    iterable=["only"],
)
def secrets_rotate(only: list[str], yes: bool = False) -> str:
    """Give secrets new values in the right order, and see the former ones refused; stdout: the names."""
    return secrets.rotate(HERE, only=only, yes=yes)


@operation(
    name="create",
    help={
        "to": "an operator's certificate, PEM (repeatable; name two)",
        "out": "file to write (default: <root>/recovery/<domain>-<time>.kit); carry it off this host",
        "test-with": "an operator's key: open it at once",
        "passphrase-file": "of that key",
        "root-from": "an older kit that holds the root's key, which is not on this host any more (needs --test-with)",
    },
    iterable=["to"],
)
def recovery_create(
    to: list[str],
    out: str = "",
    test_with: str = "",
    passphrase_file: str = "",
    root_from: str = "",
) -> str:
    """Seal secrets, keys and site.toml for named operators into one file; stdout: its digest and path."""
    given = {"out": out, "test_with": test_with, "passphrase": passphrase_file}
    return recovery.create_kit(HERE, to=to, root_from=root_from, **given)


@operation(
    name="test",
    help={
        "kit": "the file",
        "key": "an operator's key (PEM)",
        "passphrase-file": "of that key",
        "put-root-key-away": "then take the root's key off this host",
    },
)
def recovery_test(
    kit: str, key: str, passphrase_file: str = "", put_root_key_away: bool = False
) -> str:
    """Open a recovery kit, compare it with this host, and note that it was opened."""
    given = {"file": kit, "key": key, "passphrase": passphrase_file}
    return recovery.test_kit(HERE, put_away=put_root_key_away, **given)


recovered = Collection("recovery", recovery_create, recovery_test)
stored = Collection("secrets", secrets_status, secrets_rotate)
authority = Collection("pki", pki_status, pki_renew, pki_rotate, pki_csr, pki_import)
log_of_audit = Collection("audit", audit_collect, audit_show, audit_verify)
users = Collection(
    "users",
    users_list,
    users_add,
    users_role,
    users_disable,
    users_enable,
    users_passwd,
    users_token,
    users_env,
)
benchmarks = Collection("bench", bench_bundle)
namespace = Collection(
    bundle,
    lock,
    rehearse,
    install,
    inventory,
    verify,
    start,
    stop,
    status,
    logs,
    schedule,
    firewall,
    backup,
    points,
    prove,
    restore,
    retention,
    uninstall,
    users,
    authority,
    log_of_audit,
    stored,
    recovered,
    benchmarks,
)
