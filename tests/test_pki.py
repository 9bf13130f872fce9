"""Certificates: what is issued, what stays, what is issued again."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509

from bundle import authority, certificates, pki
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host, write_file
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
    assert pki.issue(host, plan) == [service.name for service in plan.services]
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
    assert len(pki.issue(host, changed)) == len(changed.services)
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
    assert len(pki.issue(host, changed)) == len(changed.services)


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
