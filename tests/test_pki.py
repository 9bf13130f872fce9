"""Certificates: what is issued, what stays, what is issued again."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from bundle import authority, certificates, pki
from bundle.config import parse_site
from bundle.errors import ConfigError, PreconditionError
from bundle.host import Host, make_folder, write_file
from bundle.plan import Plan, make_plan


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # only root may give files away
    for name in ("postgres", "minio", "mlflow", "phoenix", "gateway"):
        (tmp_path / "secrets" / name).mkdir(parents=True)
    return Host(root=tmp_path)


def plan_of(text: str = 'domain = "closed.internal"') -> Plan:
    return make_plan(parse_site(text), site_id="0a1b2c3d", version="0.1.0")


def leaf(host: Host, service: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(host.path("secrets", service, "tls.crt").read_bytes())


def test_first_run_issues_for_every_service_and_the_second_for_none(host: Host) -> None:
    plan = plan_of()
    assert pki.issue(host, plan) == [service.name for service in plan.servers]
    before = leaf(host, "mlflow")
    assert pki.issue(host, plan) == []
    assert leaf(host, "mlflow") == before


def test_leaf_has_the_names_uses_and_life_of_its_profile(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    certificate = leaf(host, "gateway")
    names = {"closed.internal", "127.0.0.1", "gateway.svc.closed.internal"}
    assert certificates.names_of(certificate) == names
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(days=396) < life <= datetime.timedelta(days=398)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_intermediate_may_sign_under_the_domain_only_and_by_names_only(host: Host) -> None:
    _, middle = authority.authorities(host, plan_of())
    constraint = middle.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraint.critical
    assert [str(n.value) for n in constraint.value.permitted_subtrees or []] == ["closed.internal"]
    assert constraint.value.excluded_subtrees is None


@pytest.mark.parametrize("lost", ["tls.key", "tls.crt"])
def test_half_a_pair_is_issued_again(host: Host, lost: str) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    host.path("secrets", "minio", lost).unlink()
    assert pki.issue(host, plan) == ["minio"]


def test_key_of_another_pair_is_noticed(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    other = host.path("secrets", "phoenix", "tls.key").read_bytes()
    target = host.path("secrets", "mlflow", "tls.key").resolve()
    target.chmod(0o600)
    target.write_bytes(other)
    assert pki.issue(host, plan) == ["mlflow"]


def test_new_bind_address_renews_the_gateway_only(host: Host) -> None:
    pki.issue(host, plan_of())
    changed = plan_of('domain = "closed.internal"\nbind = "10.0.0.5"')
    assert pki.issue(host, changed) == ["gateway"]
    assert "10.0.0.5" in certificates.names_of(leaf(host, "gateway"))


def test_new_domain_keeps_the_root_that_clients_trust(host: Host) -> None:
    pki.issue(host, plan_of())
    root = host.path("pki", "root.crt").read_bytes()
    changed = plan_of('domain = "other.internal"')
    assert len(pki.issue(host, changed)) == len(changed.servers)
    assert host.path("pki", "root.crt").read_bytes() == root


def test_leaf_past_two_thirds_of_its_life_is_issued_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, later = plan_of(), certificates.now() + datetime.timedelta(days=61)
    pki.issue(host, plan)
    monkeypatch.setattr(certificates, "now", lambda: later)
    assert pki.issue(host, plan) == ["postgres", "minio", "mlflow", "phoenix"]


def test_damaged_ca_is_an_error_with_a_way_out(host: Host) -> None:
    pki.issue(host, plan_of())
    host.path("pki", "g1", "intermediate.key").chmod(0o600)
    host.path("pki", "g1", "intermediate.key").write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        pki.issue(host, plan_of())


def test_new_intermediate_killed_between_its_two_files_is_made_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki.issue(host, plan_of())
    write = write_file

    def killed(path: Path, *args: object, **kwargs: object) -> None:
        write(path, *args, **kwargs)  # type: ignore[arg-type]
        if path.name == "intermediate.key":
            raise KeyboardInterrupt

    monkeypatch.setattr(authority, "write_file", killed)
    changed = plan_of('domain = "other.internal"')
    with pytest.raises(KeyboardInterrupt):
        pki.issue(host, changed)
    monkeypatch.setattr(authority, "write_file", write)
    assert len(pki.issue(host, changed)) == len(changed.servers)


def test_keys_are_for_their_owner_only(host: Host) -> None:
    pki.issue(host, plan_of())
    keys = [path for path in host.root.rglob("*.key") if not path.is_symlink()]
    assert len(keys) == 7
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in keys)


def test_long_domain_gets_a_certificate_without_a_subject(host: Host) -> None:
    domain = ".".join(["a" * 60, "b" * 60, "internal"])
    plan = plan_of(f'domain = "{domain}"')
    pki.issue(host, plan)
    certificate = leaf(host, "gateway")
    assert not list(certificate.subject)
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def killed_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """From now on the count-th step that changes the disk (a file, a link, a rename) is a kill; what was counted."""
    seen = [0]

    def counted(step: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **kwargs: object) -> object:
            seen[0] += 1
            if seen[0] == count:
                raise KeyboardInterrupt
            return step(*args, **kwargs)

        return act

    for module in (pki, authority):
        monkeypatch.setattr(module, "write_file", counted(write_file))
        monkeypatch.setattr(module, "swap_link", counted(REAL_SWAP))
    monkeypatch.setattr(Path, "rename", counted(REAL_RENAME))
    return seen


REAL_SWAP, REAL_RENAME = authority.swap_link, Path.rename


def whole(host: Host, plan: Plan) -> None:
    """See that every service has a pair that belongs together, by somebody whom it would trust."""
    roots = x509.load_pem_x509_certificates(host.path("pki", "root.crt").read_bytes())
    for service in plan.servers:
        folder = host.path("secrets", service.name)
        chain = x509.load_pem_x509_certificates((folder / "tls.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), None)
        assert key.public_key() == chain[0].public_key()
        chain[0].verify_directly_issued_by(chain[1])
        assert any(issued(chain[1], root) for root in roots), service.name


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, InvalidSignature):
        return False
    return True


def rotate(host: Host, plan: Plan) -> None:
    """The steps of the task, without servers."""
    pki.begin_rotation(host, plan)
    pki.switch(host)
    pki.issue(host, plan, only=("mlflow", "phoenix"))
    pki.issue(host, plan)
    pki.write_lists(host)


def finish(host: Host, plan: Plan) -> None:
    pki.drop_older(host)
    pki.issue(host, plan)
    pki.write_lists(host)
    pki.remove_dropped(host)


def everything(host: Host, plan: Plan) -> None:
    pki.issue(host, plan, anew=True)
    pki.write_lists(host)


@pytest.mark.parametrize(
    ("act", "ends"), [(rotate, (2, "g2")), (finish, (1, "g2")), (everything, (1, "g1"))]
)
def test_killed_at_every_step_leaves_whole_pairs_and_the_next_run_ends_it(
    act: Callable[[Host, Plan], None],
    ends: tuple[int, str],
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, step = plan_of(), 0
    pki.issue(host, plan)
    pki.write_lists(host)
    if act is finish:
        rotate(host, plan)
    while True:
        step += 1
        copy = host.root.with_name(f"{act.__name__}-{step}")
        shutil.copytree(host.root, copy, symlinks=True)
        there = Host(root=copy)
        seen = killed_at(monkeypatch, step)
        with contextlib.suppress(KeyboardInterrupt):
            act(there, plan)
        finished = seen[0] < step
        killed_at(monkeypatch, 0)
        whole(there, plan)
        act(there, plan)
        whole(there, plan)
        assert (len(authority.generations(there)), authority.current(there).name) == ends
        left = {path.name for path in there.path("pki").iterdir() if path.name.startswith(".")}
        assert not left
        shutil.rmtree(copy)
        if finished:
            break
    assert step > 10


def test_doors_stay_on_the_old_root_until_the_rotation_ends(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    old = host.path("pki", "clients.crt").read_bytes()
    rotate(host, plan)
    root = x509.load_pem_x509_certificate(old)

    def issuer(service: str) -> x509.Certificate:
        path = host.path("secrets", service, "tls.crt")
        return x509.load_pem_x509_certificates(path.read_bytes())[1]

    assert issued(issuer("gateway"), root), "a client that has the old root only goes on"
    assert not issued(issuer("postgres"), root)
    both = host.path("pki", "clients.crt").read_bytes()
    assert old in both
    assert host.path("secrets", "mlflow", "root.crt").read_bytes() == both
    finish(host, plan)
    assert not issued(issuer("gateway"), root)
    assert old not in host.path("pki", "clients.crt").read_bytes()
    assert (
        "Root G2"
        in x509.load_pem_x509_certificate(
            host.path("pki", "root.crt").read_bytes()
        ).subject.rfc4514_string()
    )


def test_root_key_is_encrypted_and_can_go(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    key = host.path("pki", "g1", "root.key")
    assert b"ENCRYPTED" in key.read_bytes()
    names = [path.name for path in authority.root_key_files(host)]
    assert names == ["root.key", authority.PASSPHRASE]
    kept = {path: path.read_bytes() for path in authority.root_key_files(host)}
    authority.put_root_key_away(host)
    assert authority.root_key_is_away(host)
    host.path("secrets", "minio", "tls.key").unlink()
    assert pki.issue(host, plan) == ["minio"], "daily life goes on without it"
    pki.write_lists(host)
    with pytest.raises(PreconditionError, match="recovery kit"):
        pki.issue(host, plan_of('domain = "other.internal"'))
    assert authority.root_key_is_away(host), "no new passphrase was made"
    for path, data in kept.items():
        write_file(path, data, mode=0o400)
    assert len(pki.issue(host, plan_of('domain = "other.internal"'))) == len(plan.servers)


def flat(host: Host, plan: Plan) -> bytes:
    """A CA as an earlier version left it; its root certificate."""
    root = certificates.make_root(plan.id)
    middle = certificates.make_intermediate(root, plan.site.domain, plan.id)
    make_folder(host.path("pki"), 0o700)
    for name, one in (("root", root), ("intermediate", middle)):
        write_file(host.path("pki", f"{name}.key"), certificates.key_pem(one.key), mode=0o400)
        data = certificates.pem(one.certificate)
        write_file(host.path("pki", f"{name}.crt"), data, mode=0o444)
    return certificates.pem(root.certificate)


def test_plain_root_key_of_an_earlier_version_is_encrypted(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of()
    for step in range(1, 40):
        shutil.rmtree(host.path("pki"), ignore_errors=True)
        old = flat(host, plan)
        seen = killed_at(monkeypatch, step)
        with contextlib.suppress(KeyboardInterrupt):
            pki.issue(host, plan)
        done = seen[0] < step
        killed_at(monkeypatch, 0)
        pki.issue(host, plan)
        assert host.path("pki", "root.crt").read_bytes() == old, "what clients trust stays"
        keys = {path.relative_to(host.root).as_posix() for path in host.path("pki").rglob("*.key")}
        assert keys == {"pki/g1/root.key", "pki/g1/intermediate.key"}
        assert b"ENCRYPTED" in host.path("pki", "g1", "root.key").read_bytes()
        whole(host, plan)
        if done:
            return
    pytest.fail("it does not end")


def test_what_is_replaced_before_its_time_is_on_the_list(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    before = leaf(host, "mlflow").serial_number
    pki.issue(host, plan, anew=True)
    pki.write_lists(host)
    lists = host.path("secrets", "gateway", "ca.crl").read_bytes()
    first = x509.load_pem_x509_crl(lists)
    assert before in {entry.serial_number for entry in first}
    assert len([*first]) == len(plan.servers)
    assert leaf(host, "mlflow").serial_number not in {entry.serial_number for entry in first}
    assert lists.count(b"BEGIN X509 CRL") == 2
    pki.write_lists(host)
    assert host.path("pki", "ca.crl").read_bytes() == lists, "what is fresh stays"


def test_site_certificate_is_at_the_gateway_only(host: Host) -> None:
    plan = plan_of()
    pki.issue(host, plan)
    folder = host.path("pki", ".site-1")
    make_folder(folder, 0o700)
    for name in ("tls.key", "chain.crt", "root.crt"):
        (folder / name).write_bytes(name.encode())
    authority.swap_link(host.path("pki", "site"), ".site-1")
    assert pki.issue(host, plan) == ["gateway"]
    assert pki.issue(host, plan) == []
    secrets = host.path("secrets", "gateway")
    assert (secrets / "tls.crt").read_bytes() == b"chain.crt"
    assert (secrets / "clients.crt").read_bytes() == b"root.crt"
    assert (secrets / "root.crt").read_bytes() == host.path("pki", "root.crt").read_bytes()
    host.path("pki", "site").unlink()
    assert pki.issue(host, plan) == ["gateway"]
    assert (secrets / "clients.crt").read_bytes() == (secrets / "root.crt").read_bytes()
