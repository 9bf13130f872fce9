"""People's access: credentials, roles and teams, keys; disabling somebody is refused by both trackers at once."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle import accounts
from bundle.accounts import Login
from bundle.denied import read_denied, write_denied
from bundle.environment import client_environment
from bundle.errors import ConfigError
from bundle.gateway_client import clients_ca
from bundle.host import Host, write_file
from bundle.model import Secret
from bundle.own import Trackers, is_own, new_password, open_trackers, phoenix_key
from bundle.plan import Plan
from bundle.rights import ADMIN_ROLE, Seat, mlflow_give, mlflow_seats
from bundle.words import say

SPECIAL = "!@#$%^&*()_+"
SHORTEST, LONGEST = 12, 128
LOCAL = "LOCAL"


@dataclass(frozen=True, kw_only=True)
class Known:
    """Somebody as both trackers have it; `user` is empty where Phoenix has nobody, `seat` None where MLflow has not."""

    name: str
    seat: Seat | None
    user: dict[str, str]

    @property
    def names(self) -> set[str]:
        """What the deny list calls the person."""
        return {self.name, self.user["email"]} if self.user else {self.name}

    @property
    def administers(self) -> set[str]:
        """The trackers that the person administers."""
        found = {"mlflow"} if self.seat is not None and self.seat.role == ADMIN_ROLE else set()
        if self.user.get("role") == accounts.PHOENIX_ROLES[ADMIN_ROLE]:
            found.add("phoenix")
        return found


def people(trackers: Trackers) -> dict[str, Known]:
    """Everybody in either tracker by name, the product's own accounts left out.

    Raises CommandError when a tracker refuses.
    """
    seats = mlflow_seats(trackers.mlflow, trackers.admin)
    users = accounts.phoenix_users(trackers.phoenix, trackers.secret)
    return {
        name: Known(name=name, seat=seats.get(name), user=users.get(name, {}))
        for name in sorted({*seats, *users})
        if not is_own(name)
    }


def known(trackers: Trackers, name: str, *, both: bool = True) -> Known:
    """The person `name`, who is in both trackers, or at least in one.

    Raises ConfigError when there is none, or the name is the product's own.
    """
    if is_own(name):
        raise ConfigError(
            say(
                f"{name!r} is an account that the product keeps",
                f"{name!r}은(는) 제품이 쓰는 계정입니다",
            ),
            where="--user",
            hint=say("Name somebody else.", "다른 사용자를 지정하십시오."),
        )
    there = people(trackers)
    found = there.get(name)
    if found is None or (both and not (found.user and found.seat)):
        near = difflib.get_close_matches(name, sorted(there), n=1, cutoff=0.6)
        meant = say(f"Did you mean {near[0]}? ", f"{near[0]}입니까? ") if near else ""
        raise ConfigError(
            say(
                f"{name!r} is not in both trackers",
                f"{name!r}은(는) 두 추적기에 모두 있지 않습니다",
            ),
            where="--user",
            hint=meant
            + say(
                "Add a person by invoke users.add NAME --role editor.",
                "invoke users.add 이름 --role editor로 추가하십시오.",
            ),
        )
    return found


def users_env(plan: Plan, host: Host, name: str, out: Path) -> Path:
    """Make a fresh credential for a person and write the client environment to `out` (0600), the CA file beside it.

    A person's password becomes a new one in both trackers, and the key of the former file is revoked.

    Raises ConfigError for an unknown or disabled person, CommandError when a tracker refuses.
    """
    target = out.expanduser().absolute()
    check_target(target)
    trackers = open_trackers(plan, host)
    person = known(trackers, name)
    check_enabled(host, person)
    login = Login(name=name, password=new_password())
    key, older = set_password(plan, host, trackers, person, login)
    certificate = target.with_name(f"{target.name}.ca.crt")
    write_file(certificate, clients_ca(host).read_bytes(), mode=0o644)
    variables = client_environment(
        plan.site, user=name, password=login.password, key=key, certificate=str(certificate)
    )
    if person.seat and person.seat.team:
        variables["MLFLOW_WORKSPACE"] = person.seat.team
    lines = [f"{variable}={value}\n" for variable, value in variables.items()]
    write_file(target, "".join(lines).encode(), mode=0o600)
    accounts.phoenix_revoke(trackers.phoenix, trackers.secret, older)
    return target


def set_password(
    plan: Plan, host: Host, trackers: Trackers, person: Known, login: Login
) -> tuple[Secret, list[str]]:
    """Give a person the password of `login` in both trackers; a fresh key, and the ids of older ones of its name."""
    accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)
    accounts.phoenix_set_password(trackers.phoenix, trackers.secret, person.user, login.password)
    return phoenix_key(plan, host, person.user["email"], login.password, lasting=True)


def check_target(target: Path) -> None:
    """See that the environment can be written to `target`.

    Raises ConfigError.
    """
    if not target.parent.is_dir() or target.is_dir():
        raise ConfigError(
            "is not a place for a file",
            where=str(target),
            hint="Give --out a file in a folder that exists.",
        )
    if "\n" in str(target):
        raise ConfigError(
            "has a line break in it", where=repr(str(target)), hint="Choose another --out."
        )


def check_enabled(host: Host, person: Known) -> None:
    """See that a person has not been disabled.

    Raises ConfigError.
    """
    if person.names & read_denied(host):
        raise ConfigError(
            say(f"{person.name!r} is disabled", f"{person.name!r}은(는) 사용이 중지되었습니다"),
            where="--user",
            hint=say(
                f"Run invoke users.enable {person.name} first.",
                f"먼저 invoke users.enable {person.name}을(를) 실행하십시오.",
            ),
        )


def password_problem(password: str) -> str:
    """Why one of the trackers would refuse a password; empty when both take it."""
    if not password.isascii() or any(char.isspace() or not char.isprintable() for char in password):
        return say(
            "Phoenix takes printable ASCII without spaces only",
            "Phoenix는 공백 없는 ASCII 문자만 받습니다",
        )
    if not SHORTEST <= len(password) <= LONGEST:
        return say(
            f"it needs {SHORTEST} to {LONGEST} characters", f"{SHORTEST}~{LONGEST}자여야 합니다"
        )
    kinds = (str.isdigit, str.islower, str.isupper, SPECIAL.__contains__)
    if not all(any(map(kind, password)) for kind in kinds):
        return say(
            f"it needs a digit, a lower and an upper case letter, and one of {SPECIAL}",
            f"숫자, 소문자, 대문자와 {SPECIAL} 중 하나가 있어야 합니다",
        )
    return ""


def read_password(file: str) -> Secret:
    """The password in a file (`-`: standard input), without the line's end.

    Raises ConfigError.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            say(f"cannot be read: {error}", f"읽을 수 없습니다: {error}"),
            where=file,
            hint=say("Give --file a text file.", "--file에 텍스트 파일을 지정하십시오."),
        ) from error
    return Secret(text.removesuffix("\n"))


def users_passwd(plan: Plan, host: Host, name: str, password: Secret) -> None:
    """Give a person this password in both trackers; sessions and the key of users.env end.

    Raises ConfigError for an unknown person or a password that a tracker would refuse.
    """
    if problem := password_problem(password.reveal()):
        raise ConfigError(
            problem,
            where="--file",
            hint=say("Choose another password.", "다른 비밀번호를 쓰십시오."),
        )
    trackers = open_trackers(plan, host)
    person = known(trackers, name)
    check_enabled(host, person)
    login = Login(name=name, password=password)
    _, older = set_password(plan, host, trackers, person, login)
    keys = accounts.phoenix_keys(trackers.phoenix, trackers.secret, name)
    fresh = [i for i, n in keys.items() if n == accounts.KEY_NAME]
    accounts.phoenix_revoke(trackers.phoenix, trackers.secret, sorted({*older, *fresh}))


def users_role(plan: Plan, host: Host, name: str, seat: Seat) -> None:
    """Make a person exactly what `seat` says, in both trackers; a run that was broken off is finished by the next.

    Raises ConfigError for an unknown person and for the last administrator; CommandError when a tracker refuses.
    """
    trackers = open_trackers(plan, host)
    person = known(trackers, name)
    if seat.role != ADMIN_ROLE:
        check_not_last(trackers, host, person)
        if person.user["email"] == accounts.PHOENIX_ADMIN:
            raise ConfigError(
                say(
                    "Phoenix lets nobody change the role of its first administrator",
                    "Phoenix는 첫 관리자의 역할을 바꾸지 못하게 합니다",
                ),
                where=name,
                hint=say(
                    f"Disable it instead: invoke users.disable {name}.",
                    f"대신 중지하십시오: invoke users.disable {name}.",
                ),
            )
    if person.user["role"] != accounts.PHOENIX_ROLES[seat.role]:
        accounts.phoenix_set_role(trackers.phoenix, trackers.secret, person.user, seat.role)
    mlflow_give(trackers.mlflow, trackers.admin, name, seat)


def check_not_last(trackers: Trackers, host: Host, person: Known) -> None:
    """See that somebody else administers each tracker which `person` does.

    Raises ConfigError.
    """
    denied = read_denied(host)
    others = {
        tracker
        for one in people(trackers).values()
        if one.name != person.name and not one.names & denied
        for tracker in one.administers
    }
    if person.administers - others:
        raise ConfigError(
            say(
                f"{person.name!r} is the last administrator",
                f"{person.name!r}은(는) 마지막 관리자입니다",
            ),
            where="users",
            hint=say(
                "Make another one first: invoke users.add NAME --role admin.",
                "먼저 다른 관리자를 만드십시오: invoke users.add 이름 --role admin.",
            ),
        )


def users_disable(plan: Plan, host: Host, name: str) -> None:
    """Refuse a person at both doors from the next request on, then take password, sessions and keys in the trackers.

    A run that was broken off is finished by the next one.

    Raises ConfigError for an unknown person and for the last administrator; CommandError when a tracker refuses.
    """
    trackers = open_trackers(plan, host)
    person = known(trackers, name, both=False)
    check_not_last(trackers, host, person)
    write_denied(plan, host, read_denied(host) | person.names)
    login = Login(name=name, password=new_password())
    if person.user:
        keys = accounts.phoenix_keys(trackers.phoenix, trackers.secret, name)
        accounts.phoenix_revoke(trackers.phoenix, trackers.secret, sorted(keys))
        if person.user.get("auth_method", LOCAL) == LOCAL:
            accounts.phoenix_set_password(
                trackers.phoenix, trackers.secret, person.user, login.password
            )
    if person.seat:
        accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)


def users_enable(plan: Plan, host: Host, name: str) -> None:
    """Let a person in again; the former password and keys are gone, users.env makes fresh ones.

    Raises ConfigError for an unknown person, CommandError when a tracker refuses.
    """
    person = known(open_trackers(plan, host), name, both=False)
    write_denied(plan, host, read_denied(host) - person.names)


def users_keys(plan: Plan, host: Host, name: str, revoke: str) -> dict[str, str]:
    """The API keys of a person in Phoenix (names by ids), after `revoke` (an id, a name, or `all`) has been taken back.

    Raises ConfigError for an unknown person or key, CommandError when Phoenix refuses.
    """
    trackers = open_trackers(plan, host)
    known(trackers, name, both=False)
    keys = accounts.phoenix_keys(trackers.phoenix, trackers.secret, name)
    if not revoke:
        return keys
    gone = [key for key, label in keys.items() if revoke in (key, label, "all")]
    if not gone and revoke != "all":
        raise ConfigError(
            say(f"{name} has no key {revoke!r}", f"{name}에게 {revoke!r} 키가 없습니다"),
            where="--revoke",
            hint=say(
                f"invoke users.token {name} lists them.", f"invoke users.token {name}으로 보십시오."
            ),
        )
    accounts.phoenix_revoke(trackers.phoenix, trackers.secret, gone)
    return {key: label for key, label in keys.items() if key not in gone}
