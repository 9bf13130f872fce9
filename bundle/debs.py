"""Debian packages: out of the archive into a store, and a root file system made of them.

Fetching goes through the host's own apt with folders of its own, so that mirrors, proxies and keys are the host's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import CommandError, IntegrityError, PreconditionError
from bundle.recipes import Deb, file_digest
from bundle.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SCRIPTS = Path("/usr/share/debootstrap/scripts")
UNREAD = ("locale", "man", "info", "lintian")
PER_HOST = (
    *("etc/apt/sources.list", "etc/hostname", "etc/resolv.conf", "etc/machine-id"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"),
    *("var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old"),
)
EMPTIED = (
    "var/log",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "dev",
    "tmp",
)
RELOCK = (
    "Run invoke lock --gone: it takes today's versions and shows what changed. "
    "Or name a snapshot mirror in mirrors.debian."
)


def host_mirror(sources: Iterable[str], default: str) -> str:
    """The Debian mirror in the texts of apt's source lists; else `default`."""
    for text in sources:
        for line in text.splitlines():
            match = re.match(r"\s*(?:deb\s+(?:\[.*?\]\s+)?|URIs:\s*)(\S+)", line)
            if match and re.search(r"/debian/?$", match[1]):
                return match[1].rstrip("/")
    return default


def security_mirror(mirror: str) -> str:
    """The security archive that belongs to `mirror`, plain or a snapshot."""
    return re.sub(r"/debian(?=/|$)", "/debian-security", mirror)


def _read_sources() -> list[str]:
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    wanted = [p for p in files if p.suffix in (".list", ".sources") and p.is_file()]
    return [path.read_text("utf-8", "replace") for path in wanted]


def _default_mirror() -> str:
    """What debootstrap takes by itself: a host that is not Debian has no Debian mirror in its lists."""
    script = SCRIPTS / "sid"
    text = script.read_text("utf-8") if script.is_file() else ""
    match = re.search(r"^default_mirror (\S+)", text, re.MULTILINE)
    if match is None:
        message = "no Debian mirror is known"
        raise PreconditionError(message, where="mirrors.debian", hint="Set it in bundle.toml.")
    return match[1].rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The Debian archive through a private apt under `folder`; nothing of the host's own apt is touched."""

    folder: Path
    suite: str
    arch: str
    mirror: str = ""

    def apt(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        timeout: float,
        cwd: Path | None = None,
        check: bool = True,
    ) -> str:
        """Run one of apt's programs with the private configuration on top of the host's.

        Raises CommandError when it fails.
        """
        command = [program, f"--config-file={self.folder / 'apt.conf'}", *arguments]
        return run(command, timeout=timeout, cwd=cwd, check=check)

    def update(self) -> None:
        """Write the private configuration and read the archive's indexes, checked by Debian's keys.

        Raises PreconditionError without the keyring, CommandError when the mirror cannot be read.
        """
        if not KEYRING.is_file():
            raise PreconditionError(f"{KEYRING} not found", hint="Install debian-archive-keyring.")
        for name in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "state/status").write_text("")
        mirror = self.mirror or host_mirror(_read_sources(), "") or _default_mirror()
        (self.folder / "etc/sources.list").write_text(self.sources(mirror))
        (self.folder / "apt.conf").write_text(self.configuration())
        hint = f"The Debian mirror is {mirror}; mirrors.debian in bundle.toml names another."
        try:
            self.apt("apt-get", ["update", "--quiet", "--error-on=any"], timeout=300)
        except CommandError as error:
            raise CommandError(str(error), where="mirrors.debian", hint=hint) from error

    def sources(self, mirror: str) -> str:
        """The private source list; a mirror that the operator named may be a snapshot, which has expired."""
        option = f"signed-by={KEYRING}" + (" check-valid-until=no" if self.mirror else "")
        suites = ((mirror, self.suite), (mirror, f"{self.suite}-updates"))
        security = (security_mirror(mirror), f"{self.suite}-security")
        return "".join(f"deb [{option}] {uri} {suite} main\n" for uri, suite in (*suites, security))

    def configuration(self) -> str:
        """Private folders and an empty system, on top of the host's proxies and certificates."""
        values = {
            "Dir": str(self.folder),
            "Dir::Etc": "etc",
            "Dir::Etc::sourcelist": "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": "state",
            "Dir::State::status": str(self.folder / "state/status"),
            "Dir::Cache": "cache",
            "APT::Architecture": self.arch,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = [f'{key} "{value}";' for key, value in values.items()]
        cleared = (
            "APT::Architectures",
            "APT::Update",
            "APT::Default-Release",
            "Acquire::IndexTargets::deb::DEP-11",
        )
        lines += [f"#clear {key};" for key in cleared]
        return "\n".join([*lines, f'APT::Architectures {{ "{self.arch}"; }};', ""])

    def resolve(self, names: Sequence[str]) -> tuple[Deb, ...]:
        """The full closure of `names` on an empty system, as the archive has it today.

        Raises CommandError when it cannot be satisfied.
        """
        out = self.apt("apt-get", ["install", "--print-uris", "--yes", "-qq", *names], timeout=120)
        pattern = r"^'[^']*' ([^\s_]+)_([^\s_]+)_\S+\.deb \d+"
        pairs = [
            (name, version.replace("%3a", ":"))
            for name, version in re.findall(pattern, out, re.MULTILINE)
        ]
        return tuple(sorted(set(self.describe(pairs))))

    def describe(self, pairs: Sequence[tuple[str, str]]) -> list[Deb]:
        """The archive's facts about packages in one version; those that it does not have are left out."""
        names = sorted({name for name, _ in pairs})
        out = self.apt("apt-cache", ["show", *names], timeout=120, check=False)
        wanted, found = set(pairs), []
        for stanza in out.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            name, version = fields.get("Package", ""), fields.get("Version", "")
            if (name, version) in wanted:
                size, sha256 = int(fields["Size"]), fields["SHA256"]
                arch = fields["Architecture"]
                found.append(Deb(name=name, version=version, arch=arch, size=size, sha256=sha256))
        return found

    def download(self, wanted: Sequence[Deb], folder: Path) -> None:
        """Fetch `wanted` into `folder`.

        Raises PreconditionError naming those that the mirror no longer has.
        """
        self.update()
        lost = [f"{deb.name} {deb.version}" for deb in gone(wanted, self)]
        if lost:
            message = f"the mirror no longer has {', '.join(lost)}"
            raise PreconditionError(message, where="images", hint=RELOCK)
        pairs = [f"{deb.name}={deb.version}" for deb in wanted]
        self.apt("apt-get", ["download", "-qq", *pairs], timeout=900, cwd=folder)


def fetch(wanted: Sequence[Deb], store: Path, archive: Archive) -> dict[Deb, Path]:
    """Every file of `wanted`, out of `store` or fetched into it; each is checked against the lock.

    Raises IntegrityError when a fetched file is not the locked one, PreconditionError when the mirror lost it.
    """
    store.mkdir(parents=True, exist_ok=True)
    absent = missing(wanted, store)
    if absent:
        incoming = store / f".incoming.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        try:
            archive.download(absent, incoming)
            for deb in absent:
                if not _is_good(incoming / deb.file, deb):
                    message = f"{deb.file} is not the locked file"
                    raise IntegrityError(message, where="images", hint=RELOCK)
                os.replace(incoming / deb.file, store / deb.file)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return {deb: store / deb.file for deb in wanted}


def missing(wanted: Iterable[Deb], store: Path) -> list[Deb]:
    """Those of `wanted` that `store` does not hold as they are locked."""
    return [deb for deb in wanted if not _is_good(store / deb.file, deb)]


def gone(wanted: Sequence[Deb], archive: Archive) -> list[Deb]:
    """Those of `wanted` that the archive, as it was read last, no longer has."""
    there = set(archive.describe([(deb.name, deb.version) for deb in wanted])) if wanted else set()
    return [deb for deb in wanted if deb not in there]


def _is_good(path: Path, deb: Deb) -> bool:
    return path.is_file() and path.stat().st_size == deb.size and file_digest(path) == deb.sha256


def write_repository(files: Mapping[Deb, Path], folder: Path, suite: str, arch: str) -> None:
    """A file repository of exactly `files` that debootstrap can read."""
    pool, index = folder / "pool", folder / "dists" / suite / "main" / f"binary-{arch}"
    pool.mkdir(parents=True)
    index.mkdir(parents=True)
    stanzas = []
    for deb, path in sorted(files.items()):
        shutil.copyfile(path, pool / deb.file)
        control = run(["dpkg-deb", "--field", str(path)], timeout=60).strip()
        place = f"Filename: pool/{deb.file}\nSize: {deb.size}\nSHA256: {deb.sha256}\n"
        stanzas.append(f"{control}\n{place}\n")
    packages = index / "Packages"
    packages.write_text("".join(stanzas), encoding="utf-8")
    entry = f" {file_digest(packages)} {packages.stat().st_size} main/binary-{arch}/Packages\n"
    head = f"Suite: {suite}\nCodename: {suite}\nArchitectures: {arch}\nComponents: main\n"
    (folder / "dists" / suite / "Release").write_text(f"{head}SHA256:\n{entry}")


def _find_debootstrap() -> str:
    if os.geteuid() != 0:
        hint = 'Run as root, or set base.source = "registry".'
        raise PreconditionError("debootstrap needs root", where="base.source", hint=hint)
    found = shutil.which("debootstrap") or shutil.which("debootstrap", path="/usr/sbin:/sbin")
    if found is None:
        raise PreconditionError(
            "debootstrap not found", where="base.source", hint="Install debootstrap."
        )
    return found


def make_root(
    files: Mapping[Deb, Path], work: Path, suite: str, arch: str, epoch: int, settings: Path
) -> Path:
    """The minimal system of `files` alone, made under `work` without a network.

    Raises PreconditionError without debootstrap or the rights that it needs, CommandError when it fails.
    """
    program = _find_debootstrap()
    repository, root = work / "repository", work / "root"
    write_repository(files, repository, suite, arch)
    names = ",".join(sorted(deb.name for deb in files))
    options = ["--variant=minbase", "--no-check-gpg", f"--arch={arch}", f"--include={names}"]
    script = SCRIPTS / suite if (SCRIPTS / suite).exists() else SCRIPTS / "sid"
    places = [suite, str(root), f"file://{repository}", str(script)]
    try:
        # the epoch is for passwd, which writes the day of a change into /etc/shadow
        epoch_setting = f"SOURCE_DATE_EPOCH={epoch}"
        run(["env", epoch_setting, program, *options, *places], timeout=600, stream=True)
    except CommandError as error:
        log = root / "debootstrap" / "debootstrap.log"
        last = log.read_text("utf-8", "replace")[-2000:] if log.is_file() else ""
        raise CommandError(f"{error}\n{last}", where="images/base") from error
    trim_root(root, settings)
    return root


def pack_root(root: Path, archive: Path, epoch: int) -> None:
    """The tree `root` as a tar that is the same wherever and whenever it is made.

    Raises CommandError when tar fails.
    """
    form = [
        "--format=posix",
        "--pax-option=delete=atime,delete=ctime",
        "--sort=name",
        "--numeric-owner",
    ]
    times = [f"--mtime=@{epoch}", "--clamp-mtime"]
    place = ["--create", "--file", str(archive), "--directory", str(root)]
    run(["tar", *place, *form, *times, "."], timeout=300)


def trim_root(root: Path, settings: Path) -> None:
    """Take away what no container reads, what differs between hosts, and privileged bits."""
    for name in UNREAD:
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
    for name in PER_HOST:
        (root / name).unlink(missing_ok=True)
    for name in EMPTIED:
        for path in (root / name).iterdir() if (root / name).is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    target = root / "etc/dpkg/dpkg.cfg.d/bundle"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(settings, target)
    target.chmod(0o644)
    for path in root.rglob("*"):
        if not path.is_symlink() and path.is_file() and path.stat().st_mode & 0o6000:
            path.chmod(path.stat().st_mode & 0o1777)
