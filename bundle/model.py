"""The nouns of this product as frozen values; nothing here reads, writes or connects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

Layout = Literal["ports", "names"]
Rotation = Literal["free", "logout", "data", "kit", "backup"]
Status = Literal["passed", "failed", "not_applicable"]
RELOADED = ("tls.crt", "tls.key", "root.crt", "clients.crt", "ca.crl", "denied.json")
"""The files of a service's folder that a server which reloads takes without a new container."""


class Secret:
    """A value that cannot be printed, joined, serialised or rendered; only `reveal()` gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for a file of mode 0400, a socket or a child's standard input; never for argv or a log."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            "a secret cannot be turned into text; use reveal() where it is meant to leave"
        )

    __str__ = __format__ = __add__ = __radd__ = __iter__ = __getitem__ = __len__ = _refuse
    __reduce__ = __reduce_ex__ = __bytes__ = __html__ = _refuse


@dataclass(frozen=True)
class Named:
    """An extra as the site names it: `source` is a reference or a path."""

    name: str
    source: str

    @property
    def label(self) -> str:
        """Its name; a path without one is called by its last part."""
        return self.name or self.source.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to be written under the installation's root."""

    path: PurePosixPath
    text: str
    mode: int = 0o644
    uid: int = 0


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database and the role that works in it; with an `owner`, only that one may change its tables.

    The password of a role is the stored secret `DB_<ROLE>`.
    """

    name: str
    role: str
    owner: str = ""

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role that gets into it."""
        return (self.role, self.owner) if self.owner else (self.role,)


def role_secret(role: str) -> str:
    """The name of a database role's password in the store."""
    return f"DB_{role.upper()}"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A versioned bucket and the one user that works in it, with the rights it has there.

    `on_bucket` and `on_objects` are S3 actions; deleting a version is always denied.
    """

    name: str
    user: str
    on_bucket: tuple[str, ...]
    on_objects: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name of the access key in the store."""
        return f"S3_{self.user.upper()}_KEY"

    @property
    def secret(self) -> str:
        """The name of the secret key in the store."""
        return f"S3_{self.user.upper()}_SECRET"


@dataclass(frozen=True, kw_only=True)
class SecretSpec:
    """A secret of the store, generated unless the site has it at `reference`; `mounted`: it is in /run/secrets.

    `rotation`: a new value is noticed by nobody (`free`), ends sessions, needs `data` encrypted anew, or is the kit's.
    """

    name: str
    kind: Literal["token", "password", "name"] = "token"
    mounted: bool = True
    rotation: Rotation = "free"
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A place in the container that outlives it."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A template of the service and where its text stands in the container, read-only."""

    template: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """A folder for a socket that two services share, and nobody else on the host can enter; `host` makes the socket."""

    name: str
    path: str
    host: bool = False


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder under the root, or elsewhere, of the service's own, that it may write in and this host reads."""

    place: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """One member of the stack: what it declares is made, checked, backed up and restored because it is declared.

    `names` are its names on the internal networks, the first its own; `derive` composes secret files out of the store;
    `migration` is the module of bundle.ops that brings the tables of its databases to what its image knows;
    `reloads`: it takes new certificates at a SIGHUP. `port` 0: it listens on no network, and has no certificate.
    `image`: whose image it runs when not its own. `links`: names outside that it knows as the forwarder's.
    `init`: the engine's own init is its first process, since commands inside it may leave children behind.
    """

    name: str
    uid: int
    port: int
    memory_mb: int
    names: tuple[str, ...]
    networks: tuple[str, ...]
    health: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    folders: tuple[Folder, ...] = ()
    published: tuple[tuple[int, int], ...] = ()
    databases: tuple[Database, ...] = ()
    migration: str = ""
    buckets: tuple[Bucket, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    derive: Callable[[Mapping[str, Secret]], dict[str, Secret]] = lambda _: {}
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    shm_mb: int = 64
    reloads: bool = False
    image: str = ""
    command: tuple[str, ...] = ()
    meetings: tuple[Meeting, ...] = ()
    links: tuple[str, ...] = ()
    init: bool = False

    @property
    def runs(self) -> str:
        """The name of the image that it runs."""
        return self.image or self.name


@dataclass(frozen=True, kw_only=True)
class Health:
    """How an extra service is probed; times in seconds."""

    test: tuple[str, ...]
    interval: int = 30
    timeout: int = 10
    retries: int = 3
    start_period: int = 60

    @property
    def patience(self) -> int:
        """The seconds after which it has been found well or not, whatever it does."""
        return self.start_period + (self.retries + 1) * (self.interval + self.timeout)


@dataclass(frozen=True, kw_only=True)
class ExtraService:
    """A service of the site's own, as far as the rules let it be one; it is called `slug` wherever it has company.

    `files` are (place under <root>/extras, target in the container), read-only; `needs` are other extra services;
    `writable` is the site's reason for a writable root; with `client` it gets an account in both trackers.
    """

    name: str
    image: str
    user: int
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    memory_mb: int = 512
    pids: int = 256
    cpus: float = 0
    shm_mb: int = 64
    restart: str = "unless-stopped"
    stop_s: int = 30
    health: Health | None = None
    files: tuple[tuple[str, str], ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    writable: str = ""
    client: bool = False

    @property
    def slug(self) -> str:
        """Its name among containers, accounts and folders, where no service of ours can be called so."""
        return f"extra-{self.name}"


@dataclass(frozen=True, kw_only=True)
class Image:
    """A built image: where the engine has it and what it is made of.

    `reference` is the name under which the services run it; `id` the digest of its OCI configuration;
    `size` the uncompressed bytes; `layers` the diffIDs, base first.
    """

    name: str
    reference: str
    id: str
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check found."""

    id: str
    group: str
    title: dict[str, str]
    status: Status
    seconds: float
    at: str
    needs: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The result in the form of verify.json."""
        return {
            "id": self.id,
            "group": self.group,
            "title": self.title,
            "status": self.status,
            "needs": list(self.needs),
            "seconds": round(self.seconds, 3),
            "at": self.at,
            "evidence": list(self.evidence),
            "hint": self.hint,
        }


@dataclass(frozen=True, kw_only=True)
class OneOff:
    """A container that does one thing and goes: no rights, no secret in its arguments; `binds` are read-only but for
    the targets that are `writable`."""

    image: str
    arguments: tuple[str, ...]
    user: int
    network: str
    entrypoint: str = ""
    memory_mb: int = 1024
    labels: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    binds: dict[str, str] = field(default_factory=dict)
    writable: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A service's container as the engine sees it: `health` is empty where nothing is probed."""

    name: str
    image: str
    state: str
    health: str
    restarts: int
    started: str
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself: versions, bytes of memory, and whose names and ports are taken.
    `ports`: (project, address, port); `strangers`: containers of a project of our name; `volumes`: their labels."""

    version: str
    compose: str
    arch: str
    memory: int
    folder: str
    memory_limit: bool
    pids_limit: bool
    forwarding: bool
    live_restore: bool
    security: str
    api: tuple[int, ...]
    ports: frozenset[tuple[str, str, int]]
    strangers: tuple[str, ...]
    volumes: Mapping[str, str]
