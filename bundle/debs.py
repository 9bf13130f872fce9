"""Debian packages: the lock, the store of fetched files, a file repository of them, and a root made from it.

Fetching goes through the host's own apt with folders of its own, so that mirrors, proxies and keys are the host's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import BundleError, CommandError, IntegrityError, PreconditionError
from bundle.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TRIMMED = (
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
    "usr/share/lintian",
    "var/log",
    "var/cache/apt",
)
RELOCK = (
    "Run invoke lock: it takes the versions of today and shows what changed. "
    "Or name a snapshot mirror in mirrors.debian."
)


@dataclass(frozen=True, kw_only=True, order=True)
class Deb:
    """One locked package file."""

    name: str
    version: str
    arch: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The name under which apt stores it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"

    @property
    def line(self) -> str:
        """Its line in the lock."""
        return f"{self.name} {self.version} {self.arch} {self.size} {self.sha256}"


def parse_lock(text: str, where: str = "") -> tuple[Deb, ...]:
    """The packages of a lock, one a line: name version arch size sha256.

    Raises BundleError when a line is not of that form.
    """
    debs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+) (\S+) (\S+) (\d+) ([0-9a-f]{64})", line)
        if match is None:
            raise BundleError(
                "not a line of a package lock", where=f"{where}:{number}", hint="Run invoke lock."
            )
        name, version, arch, size, sha256 = match.groups()
        debs.append(Deb(name=name, version=version, arch=arch, size=int(size), sha256=sha256))
    return tuple(debs)


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def host_mirror(sources: Iterable[str], default: str) -> str:
    """The Debian mirror that the host's own apt uses, out of the texts of its source lists; else `default`."""
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
    return [
        path.read_text("utf-8", "replace")
        for path in files
        if path.suffix in (".list", ".sources") and path.is_file()
    ]


def _default_mirror() -> str:
    """What debootstrap would take by itself: hosts that are not Debian have no Debian mirror in their lists."""
    script = Path("/usr/share/debootstrap/scripts/sid")
    match = re.search(
        r"^default_mirror (\S+)", script.read_text() if script.is_file() else "", re.MULTILINE
    )
    if match is None:
        raise PreconditionError(
            "no Debian mirror is known", where="mirrors.debian", hint="Set mirrors.debian."
        )
    return match[1].rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The Debian archive as seen by a private apt under `folder`; nothing of the host's own apt is touched."""

    folder: Path
    suite: str
    arch: str
    mirror: str = ""

    def apt(
        self, command: Sequence[str], *, timeout: float, cwd: Path | None = None, check: bool = True
    ) -> str:
        """Run an apt tool with the private configuration.

        Raises CommandError when it fails.
        """
        env = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        return run(list(command), timeout=timeout, env=env, cwd=cwd, check=check)

    def update(self) -> None:
        """Write the private configuration and read the archive's indexes, checked by Debian's keys.

        Raises PreconditionError without the keyring, CommandError when the mirror cannot be read.
        """
        if not KEYRING.is_file():
            raise PreconditionError(f"{KEYRING} not found", hint="Install debian-archive-keyring.")
        mirror = self.mirror or host_mirror(_read_sources(), "") or _default_mirror()
        for name in (
            "etc/apt.conf.d",
            "etc/preferences.d",
            "state/lists/partial",
            "cache/archives/partial",
        ):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "state/status").write_text("")
        lines = [
            (mirror, self.suite),
            (mirror, f"{self.suite}-updates"),
            (security_mirror(mirror), f"{self.suite}-security"),
        ]
        option = f"signed-by={KEYRING}" + (" check-valid-until=no" if self.mirror else "")
        (self.folder / "etc/sources.list").write_text(
            "".join(f"deb [{option}] {uri} {suite} main\n" for uri, suite in lines)
        )
        (self.folder / "apt.conf").write_text(self._configuration())
        self.apt(["apt-get", "update", "--quiet", "--error-on=any"], timeout=300)

    def _configuration(self) -> str:
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
        return (
            "".join(f'{key} "{value}";\n' for key, value in values.items())
            + f'APT::Architectures {{ "{self.arch}"; }};\n'
        )

    def resolve(self, names: Sequence[str]) -> tuple[Deb, ...]:
        """The full closure of `names` on an empty system, as the archive has it today.

        Raises CommandError when it cannot be satisfied.
        """
        out = self.apt(["apt-get", "install", "--print-uris", "--yes", "-qq", *names], timeout=120)
        pairs = []
        for line in out.splitlines():
            match = re.match(r"'[^']*' (\S+?)_(\S+)_\S+\.deb \d+", line)
            if match:
                pairs.append(f"{match[1]}={match[2].replace('%3a', ':')}")
        return self.describe(sorted(pairs))

    def describe(self, pairs: Sequence[str]) -> tuple[Deb, ...]:
        """The archive's facts about `name=version` pairs; those that it does not have are left out."""
        out = self.apt(["apt-cache", "show", *pairs], timeout=120, check=False)
        debs = []
        for stanza in out.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            if f"{fields.get('Package')}={fields.get('Version')}" in set(pairs):
                debs.append(
                    Deb(
                        name=fields["Package"],
                        version=fields["Version"],
                        arch=fields["Architecture"],
                        size=int(fields["Size"]),
                        sha256=fields["SHA256"],
                    )
                )
        return tuple(sorted(set(debs)))

    def download(self, debs: Sequence[Deb], folder: Path) -> None:
        """Fetch `debs` into `folder`.

        Raises PreconditionError naming those that the mirror no longer has.
        """
        self.update()
        there = {
            (deb.name, deb.version)
            for deb in self.describe([f"{deb.name}={deb.version}" for deb in debs])
        }
        gone = [f"{deb.name} {deb.version}" for deb in debs if (deb.name, deb.version) not in there]
        if gone:
            raise PreconditionError(
                f"the mirror no longer has {', '.join(gone)}", where="images", hint=RELOCK
            )
        self.apt(
            ["apt-get", "download", "-qq", *(f"{deb.name}={deb.version}" for deb in debs)],
            timeout=900,
            cwd=folder,
        )


def fetch(debs: Sequence[Deb], store: Path, archive: Archive) -> dict[Deb, Path]:
    """Every file of `debs`, out of `store` or fetched into it; each is checked against the lock.

    Raises IntegrityError when a fetched file is not the locked one, PreconditionError when the mirror lost it.
    """
    store.mkdir(parents=True, exist_ok=True)
    missing = [deb for deb in debs if not _is_good(store / deb.file, deb)]
    if missing:
        incoming = store / f".incoming.{os.getpid()}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        try:
            archive.download(missing, incoming)
            for deb in missing:
                if not _is_good(incoming / deb.file, deb):
                    raise IntegrityError(
                        f"{deb.file} is not the locked file", where="images", hint=RELOCK
                    )
                os.replace(incoming / deb.file, store / deb.file)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return {deb: store / deb.file for deb in debs}


def _is_good(path: Path, deb: Deb) -> bool:
    return path.is_file() and path.stat().st_size == deb.size and file_digest(path) == deb.sha256


def write_repository(files: dict[Deb, Path], folder: Path, suite: str, arch: str) -> None:
    """A file repository of exactly `files` that debootstrap can read."""
    pool, index = folder / "pool", folder / "dists" / suite / "main" / f"binary-{arch}"
    pool.mkdir(parents=True)
    index.mkdir(parents=True)
    stanzas = []
    for deb, path in sorted(files.items()):
        shutil.copy2(path, pool / deb.file)
        control = run(["dpkg-deb", "--field", str(path)], timeout=60).strip()
        stanzas.append(
            f"{control}\nFilename: pool/{deb.file}\nSize: {deb.size}\nSHA256: {deb.sha256}\n"
        )
    packages = index / "Packages"
    packages.write_text("\n".join(stanzas) + "\n", encoding="utf-8")
    entry = f" {file_digest(packages)} {packages.stat().st_size} main/binary-{arch}/Packages\n"
    release = f"Suite: {suite}\nCodename: {suite}\nArchitectures: {arch}\nComponents: main\nSHA256:\n{entry}"
    (folder / "dists" / suite / "Release").write_text(release)


def make_root(
    files: dict[Deb, Path], work: Path, suite: str, arch: str, epoch: int, settings: Path
) -> Path:
    """`work/root.tar`: the minimal system of `files` alone, made without a network.

    Raises PreconditionError without debootstrap or the rights it needs, CommandError when it fails.
    """
    if os.geteuid() != 0:
        raise PreconditionError(
            "debootstrap needs root",
            where="base.source",
            hint='Run as root, or set base.source = "registry".',
        )
    repository, root, archive = work / "repository", work / "root", work / "context" / "root.tar"
    write_repository(files, repository, suite, arch)
    names = ",".join(sorted(deb.name for deb in files))
    command = [
        "debootstrap",
        "--variant=minbase",
        "--no-check-gpg",
        f"--arch={arch}",
        f"--include={names}",
    ]
    try:
        run([*command, suite, str(root), f"file://{repository}"], timeout=600, stream=True)
    except CommandError as error:
        log = root / "debootstrap" / "debootstrap.log"
        last = log.read_text("utf-8", "replace")[-2000:] if log.is_file() else ""
        raise CommandError(f"{error}\n{last}", where="images/base") from error
    trim_root(root, settings)
    run(
        [
            *(
                "tar",
                "--create",
                "--file",
                str(archive),
                "--directory",
                str(root),
                "--sort=name",
                "--numeric-owner",
            ),
            *(
                f"--mtime=@{epoch}",
                "--clamp-mtime",
                "--format=posix",
                "--pax-option=delete=atime,delete=ctime",
                ".",
            ),
        ],
        timeout=300,
    )
    shutil.rmtree(root)
    return archive


def trim_root(root: Path, settings: Path) -> None:
    """Take away what no container reads and what differs from one machine to the next."""
    for name in TRIMMED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
    for name in (
        "etc/apt/sources.list",
        "etc/hostname",
        "etc/resolv.conf",
        "var/cache/ldconfig/aux-cache",
        "etc/machine-id",
    ):
        (root / name).unlink(missing_ok=True)
    for name in ("passwd-", "group-", "shadow-", "gshadow-"):
        (root / "etc" / name).unlink(missing_ok=True)
    for folder in ("var/lib/apt/lists", "var/cache/debconf", "dev"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    for path in (root / "var/lib/dpkg").glob("*-old"):
        path.unlink()
    shutil.copyfile(settings, root / "etc/dpkg/dpkg.cfg.d/bundle")
    (root / "etc/dpkg/dpkg.cfg.d/bundle").chmod(0o644)
    run(
        ["find", str(root), "-perm", "/6000", "-type", "f", "-exec", "chmod", "a-s", "{}", "+"],
        timeout=60,
    )
