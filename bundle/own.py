"""What the accounts that this product makes for itself need: its secrets, both trackers as their administrator.

A helper of the verbs that make accounts: for the product's own person, for people, for the site's services.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundle import accounts
from bundle.accounts import Login
from bundle.errors import CommandError, ConfigError
from bundle.gateway_client import Door, door
from bundle.host import Host, make_folder, write_file
from bundle.model import Secret, SecretSpec
from bundle.plan import Plan
from bundle.rights import MEMBER, Seat, mlflow_give, mlflow_seats
from bundle.services.names import STACK
from bundle.vault import generate


@dataclass(frozen=True, kw_only=True)
class Own:
    """An account that is kept so: its name, where the store has its password and its API key, its role."""

    name: str
    password: str
    key: str
    mlflow_role: str
    phoenix_role: str


SERVICES = "extra-"
"""So begin the accounts of the site's own services."""
VERIFY = Own(
    name="verify",
    password="VERIFY_MLFLOW_PASSWORD",
    key="VERIFY_PHOENIX_API_KEY",
    mlflow_role=MEMBER,
    phoenix_role="editor",
)


@dataclass(frozen=True, kw_only=True)
class Trackers:
    """Both doors, and what it takes to administer behind them."""

    mlflow: Door
    phoenix: Door
    admin: Login
    secret: Secret


def is_own(name: str) -> bool:
    """Whether an account is one that the product keeps for itself or for a service of the site."""
    return name in (STACK, VERIFY.name) or name.startswith(SERVICES)


def stored(host: Host, name: str) -> Secret:
    """A secret of the store.

    Raises ConfigError when it is not there.
    """
    path = host.path("secrets", "store", name)
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), hint="Run invoke install again."
        ) from error
    return Secret(value)


def keep(host: Host, name: str, value: Secret) -> None:
    """Put a secret into the store."""
    make_folder(host.path("secrets", "store"), 0o700)
    write_file(host.path("secrets", "store", name), value.reveal().encode(), mode=0o400)


def open_trackers(plan: Plan, host: Host) -> Trackers:
    """Both trackers as their administrator.

    Raises ConfigError when the store lacks a secret.
    """
    return Trackers(
        mlflow=door(plan, host, "mlflow"),
        phoenix=door(plan, host, "phoenix"),
        admin=Login(name=STACK, password=stored(host, "MLFLOW_STACK_PASSWORD")),
        secret=stored(host, "PHOENIX_ADMIN_SECRET"),
    )


def email(plan: Plan, name: str) -> str:
    """The address by which a person logs in to Phoenix; no mail is ever sent to it."""
    return f"{name}@{plan.site.domain}"


def new_password() -> Secret:
    """A new password that both trackers take."""
    return generate(SecretSpec(name="", kind="password"))


def own_in_mlflow(trackers: Trackers, host: Host, who: Own = VERIFY) -> None:
    """Make `who` so in MLflow; its stored password is made anew where it is missing or refused.

    Raises CommandError when MLflow refuses.
    """
    seats = mlflow_seats(trackers.mlflow, trackers.admin)
    login = _own_login(trackers, host, who)
    if login is None:
        login = Login(name=who.name, password=new_password())
        keep(host, who.password, login.password)
        if who.name in seats:
            accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)
        else:
            accounts.mlflow_add(trackers.mlflow, trackers.admin, login)
    seat = Seat(role=who.mlflow_role)
    if seats.get(who.name) != seat:
        mlflow_give(trackers.mlflow, trackers.admin, who.name, seat)


def _own_login(trackers: Trackers, host: Host, who: Own) -> Login | None:
    """The stored password of `who`, when MLflow takes it."""
    if not host.path("secrets", "store", who.password).exists():
        return None
    login = Login(name=who.name, password=stored(host, who.password))
    return login if accounts.mlflow_accepts(trackers.mlflow, login) else None


def own_in_phoenix(plan: Plan, trackers: Trackers, host: Host, who: Own = VERIFY) -> None:
    """Make `who` so in Phoenix; its stored API key is made anew where it is missing or refused.

    Raises CommandError when Phoenix refuses.
    """
    there = host.path("secrets", "store", who.key).exists()
    if there and accounts.phoenix_accepts(trackers.phoenix, stored(host, who.key)):
        return
    password = new_password()
    user = accounts.phoenix_users(trackers.phoenix, trackers.secret).get(who.name)
    if user:
        accounts.phoenix_set_password(trackers.phoenix, trackers.secret, user, password)
    else:
        login = Login(name=who.name, password=password)
        accounts.phoenix_add(
            trackers.phoenix, trackers.secret, login, email(plan, who.name), who.phoenix_role
        )
    address = user["email"] if user else email(plan, who.name)
    key, older = phoenix_key(plan, host, address, password, name=who.name)
    keep(host, who.key, key)
    accounts.phoenix_revoke(trackers.phoenix, trackers.secret, older)


def phoenix_key(
    plan: Plan,
    host: Host,
    address: str,
    password: Secret,
    *,
    name: str = accounts.KEY_NAME,
    lasting: bool = False,
) -> tuple[Secret, list[str]]:
    """A fresh API key of the person with `address`, and the ids of the older ones of this name.

    `lasting`: the password need not be changed at the next login.

    Raises CommandError when Phoenix refuses the password.
    """
    session = door(plan, host, "phoenix")
    if not accounts.phoenix_log_in(session, address, password):
        raise CommandError(
            f"refuses the stored password of {address}",
            where="phoenix",
            hint="It was changed in Phoenix: make an API key there (Settings, API keys).",
        )
    key, older = accounts.phoenix_fresh_key(session, name)
    if lasting:
        accounts.phoenix_keep_password(session, password)
    return key, older
