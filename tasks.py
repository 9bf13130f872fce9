"""The tasks of the tracking bundle: arguments in, values through, one error line and an exit code out."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from bundle.console import operator
from bundle.workflows import bench, certificates, closed, connected

HERE = Path(__file__).resolve().parent
COMMON = {
    "quiet": "say only what is wrong",
    "debug": "show each command, and the traceback of an error",
    "lang": "ko or en (default: by the locale)",
}


@task(
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
        **COMMON,
    }
)
def bundle(
    _: Context,
    config: str = "",
    out: str = "dist",
    sign_key: str = "",
    old_key: str = "",
    split: str = "",
    parts: str = "",
    base: str = "",
    advisories: str = "",
    sizes: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Make the sealed bundle on a connected host."""
    with operator(quiet=quiet, debug=debug, lang=lang):
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
        print(connected.make_bundle(HERE, order))


@task(
    help={
        "config": "bundle.toml",
        "upgrade": "also move wheels or modules to newer versions: NAME, or all without a name",
        "gone": "only where the mirror no longer has a locked Debian package",
        **COMMON,
    },
    optional=["upgrade"],
)
def lock(
    _: Context,
    upgrade: str | bool = "",
    gone: bool = False,
    config: str = "",
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Refresh the locked inputs under images/ and show what changed."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        name = "all" if upgrade is True else str(upgrade or "")
        print(connected.relock(HERE, settings=config, upgrade=name, gone=gone))


@task(
    help={
        "bundle": "the sealed file (default: the newest in dist/)",
        "fingerprint": "of the signing key (default: by the trust sheet beside the file)",
        "keep": "leave the closed host standing",
        "browser": "also open both trackers in Chromium",
        **COMMON,
    }
)
def rehearse(
    _: Context,
    bundle: str = "",
    fingerprint: str = "",
    keep: bool = False,
    browser: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Install and verify the bundle on a disposable closed host, before anyone carries it across."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(
            connected.rehearsal(
                HERE, bundle=bundle, fingerprint=fingerprint, keep=keep, browser=browser
            )
        )


@task(
    help={
        "bundle": "the sealed file (default: the one bootstrapped)",
        "site": "site.toml to use",
        "yes": "do not ask",
        **COMMON,
    }
)
def install(
    _: Context,
    bundle: str = "",
    site: str = "",
    yes: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Bring the stack up on this closed host; twice is a no-op, killed anywhere it is finished by the next run."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        closed.install_release(HERE, bundle=bundle, site_file=site, yes=yes)


@task(
    help={
        "only": "check only this id (repeatable)",
        "format": "text, json, junit or html",
        "report": "folder",
        **COMMON,
    },
    iterable=["only"],
)
def verify(
    _: Context,
    only: list[str],
    format: str = "text",  # noqa: A002  (the name of the option)
    report: str = "",
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Prove every line of the checklist on the running stack."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.verify(HERE, only=tuple(only), form=format, report=report))


@task(help={"out": "file to write", **COMMON})
def inventory(
    _: Context, out: str, quiet: bool = False, debug: bool = False, lang: str = ""
) -> None:
    """Write down what is here, for a delta: digests of layers and wheels, no name, no address, no secret."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.inventory(HERE, out=Path(out)))


@task(help=COMMON)
def start(_: Context, quiet: bool = False, debug: bool = False, lang: str = "") -> None:
    """Start the stack and wait until it is healthy."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        closed.start(HERE)


@task(help=COMMON)
def stop(_: Context, quiet: bool = False, debug: bool = False, lang: str = "") -> None:
    """Stop the stack; data stays."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        closed.stop(HERE)


@task(help=COMMON)
def status(_: Context, quiet: bool = False, debug: bool = False, lang: str = "") -> None:
    """Show services, versions, URLs, what expires next and the room that is left."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.status(HERE))


@task(
    help={
        "service": "one service (default: all)",
        "since": "a time, or a duration like 1h",
        **COMMON,
    }
)
def logs(
    _: Context,
    service: str = "",
    since: str = "1h",
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Show the services' logs."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.logs(HERE, service=service, since=since), end="")


@task(
    help={
        "install": "start the stack at boot, renew certificates daily",
        "remove": "no longer",
        "show": "say what is scheduled",
        **COMMON,
    }
)
def schedule(
    _: Context,
    install: bool = False,
    remove: bool = False,
    show: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Start the stack at boot and renew certificates daily, by systemd or cron."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.schedule(HERE, add=install, remove=remove))


@task(help={"purge": "data, secrets and CA too", "yes": "do not ask", **COMMON})
def uninstall(
    _: Context,
    purge: bool = False,
    yes: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Remove what install made; data stays unless --purge."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.uninstall(HERE, purge=purge, yes=yes))


@task(name="list", help=COMMON)
def users_list(_: Context, quiet: bool = False, debug: bool = False, lang: str = "") -> None:
    """Show who is in which tracker, with the role there."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.users_list(HERE))


@task(name="add", help={"role": "viewer, editor or admin", **COMMON})
def users_add(
    _: Context,
    name: str,
    role: str = "editor",
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Add a person to both trackers."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        closed.users_add(HERE, name=name, role=role)


@task(name="env", help={"user": "the person", "out": "file to write (mode 0600)", **COMMON})
def users_env(
    _: Context, user: str, out: str, quiet: bool = False, debug: bool = False, lang: str = ""
) -> None:
    """Make a fresh credential for a person and write the client environment."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(closed.users_env(HERE, name=user, out=Path(out)))


@task(
    name="bundle",
    help={
        "quick": "one pair instead of five",
        "only": "measure only this group: size, seal, pack, import, delta, peers, memory (repeatable)",
        "strict": "exit code 6 when a goal is missed",
        "bundle": "the sealed file to measure (default: made of this checkout now)",
        "old": "a bundle that differs by one Python package, for the delta (default: made with Phoenix 20.25)",
        **COMMON,
    },
    iterable=["only"],
)
def bench_bundle(
    _: Context,
    only: list[str],
    quick: bool = False,
    strict: bool = False,
    bundle: str = "",
    old: str = "",
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Measure size, import, check, packing and memory side by side with other ways; dist/reports/bench-bundle.json."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(
            bench.bench_bundle(HERE, quick=quick, strict=strict, only=only, bundle=bundle, old=old)
        )


@task(name="status", help={"format": "text or json", **COMMON})
def pki_status(
    _: Context,
    format: str = "text",  # noqa: A002  (the name of the option)
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Show what of the certificates expires when, the next first."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(certificates.status(HERE, form=format))


@task(name="renew", help={"all": "also what is not due; what it replaces is revoked", **COMMON})
def pki_renew(
    _: Context,
    all: bool = False,  # noqa: A002  (the name of the option)
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Issue anew what has lived two thirds of its life (30 days before the end), and have it served."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        certificates.renew(HERE, everything=all)


@task(name="rotate", help={"finish": "trust the new root only", "yes": "do not ask", **COMMON})
def pki_rotate(
    _: Context,
    finish: bool = False,
    yes: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Make a new root, trusted beside the old one, and issue everything under it; stdout: the CA file for clients."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(certificates.rotate(HERE, finish=finish, yes=yes))


@task(name="csr", help={"out": "file to write the request to", **COMMON})
def pki_csr(_: Context, out: str, quiet: bool = False, debug: bool = False, lang: str = "") -> None:
    """Make a request for the gateway's names, for the site's own CA; the key stays here until pki.import."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        print(certificates.request(HERE, out=out))


@task(
    name="import",
    help={
        "chain": "PEM file: the server's certificate, then every intermediate (and the site's root)",
        "key": "its key (default: that of the last pki.csr)",
        "ca": "the site's root, when it is not in the chain's file",
        "passphrase-file": "of an encrypted key",
        "remove": "use a certificate of the installation's own CA again",
        **COMMON,
    },
)
def pki_import(
    _: Context,
    chain: str = "",
    key: str = "",
    ca: str = "",
    passphrase_file: str = "",
    remove: bool = False,
    quiet: bool = False,
    debug: bool = False,
    lang: str = "",
) -> None:
    """Use the site's own certificate at the gateway; inside stays the own CA. stdout: the CA file for clients."""
    with operator(quiet=quiet, debug=debug, lang=lang):
        if remove:
            print(certificates.give_up(HERE))
        else:
            files = {"chain": chain, "key": key, "root": ca, "passphrase": passphrase_file}
            print(certificates.take_in(HERE, **files))


authority = Collection("pki", pki_status, pki_renew, pki_rotate, pki_csr, pki_import)
users = Collection("users", users_list, users_add, users_env)
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
    uninstall,
    users,
    authority,
    benchmarks,
)
