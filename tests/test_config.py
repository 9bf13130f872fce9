"""Configuration: everything that is wrong is said at once, and everything derived from the table agrees with it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bundle import config
from bundle.config import BundleConfig, SiteConfig, parse_bundle, parse_site
from bundle.errors import ConfigError
from bundle.model import Named
from bundle.settings import (
    BUNDLE,
    SITE,
    Setting,
    default_domain,
    domain_problem,
    reference_page,
    sample,
)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_site(text)
    return [str(problem) for problem in caught.value.problems]


def test_empty_file_is_all_defaults() -> None:
    site = parse_site("")
    assert site.domain == default_domain()
    assert (site.bind, site.layout, site.ports_mlflow) == ("127.0.0.1", "ports", 8444)


def test_three_mistakes_are_three_problems_each_with_its_place() -> None:
    found = problems('domian = "a.b"\nbind = 7\n[ports]\nmlflow = 99999\n')
    assert len(found) == 3
    assert "site.toml: domian: unknown key" in found[0]
    assert "Did you mean domain?" in found[0]
    assert "site.toml: bind: 7 is not a text" in found[1]
    assert "site.toml: ports.mlflow: 99999 is not between 1 and 65535" in found[2]


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ("tracking", "single label"),
        ("Lab.Internal", "upper case"),
        ("my_lab.internal", "the label 'my_lab'"),
        ("연구소.internal", "not ASCII"),
        ("-a.internal", "the label '-a'"),
        ("a..internal", "the label ''"),
        ("a." + "b" * 64, "the label"),
        (".".join(["abcdefgh"] * 30), "longer than 200"),
        ("a b.internal", "the label 'a b'"),
        ("a.internal\n", "the label"),
    ],
)
def test_bad_domain_is_refused_with_its_reason(domain: str, reason: str) -> None:
    assert reason in domain_problem(domain)
    text = domain.replace("\n", "\\n")
    assert any(reason in problem for problem in problems(f'domain = "{text}"'))


@pytest.mark.parametrize("domain", ["lab.internal", "xn--289an1ad92ak6p.kr", "a-b.c1.d"])
def test_good_domain_is_taken(domain: str) -> None:
    assert parse_site(f'domain = "{domain}"').domain == domain


@pytest.mark.parametrize("bind", ["::1", "localhost", "10.0.0", "10.0.0.256", ""])
def test_bad_address_is_refused(bind: str) -> None:
    assert "is not an IPv4 address" in problems(f'bind = "{bind}"')[0]


def test_same_port_twice_is_refused_where_ports_tell_trackers_apart() -> None:
    assert "not three different" in problems("[ports]\nmlflow = 8443")[0]
    assert parse_site('layout = "names"\n[ports]\nmlflow = 8443').ports_mlflow == 8443


def test_boolean_is_no_number() -> None:
    assert "is not a whole number" in problems("[ports]\nportal = true")[0]


@pytest.mark.parametrize("text", ["domain = ", "[ports", "a = 1\na = 2", "\x00"])
def test_what_is_not_toml_is_one_problem(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("site.toml: not TOML")


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes('organisation = "한국"'.encode("euc-kr"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.read_text(path)


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b'\xef\xbb\xbfdomain = "a.b"')
    assert parse_site(config.read_text(path)).domain == "a.b"


def test_registry_base_needs_a_pinned_image() -> None:
    with pytest.raises(ConfigError, match=r"base\.image: is empty"):
        parse_bundle('base.source = "registry"')
    with pytest.raises(ConfigError, match="has no digest"):
        parse_bundle('base.source = "registry"\nbase.image = "debian:trixie"')
    image = f"r.example/debian@sha256:{'0' * 64}"
    assert parse_bundle(f'base.source = "registry"\nbase.image = "{image}"').base_image == image


@pytest.mark.parametrize(("settings", "kind"), [(SITE, SiteConfig), (BUNDLE, BundleConfig)])
def test_table_and_dataclass_name_the_same(settings: tuple[Setting, ...], kind: type) -> None:
    assert [setting.attribute for setting in settings] == [field.name for field in fields(kind)]


def test_sample_uncommented_is_the_defaults() -> None:
    lines = sample(SITE, "site.toml").splitlines()
    keys = {setting.key.rpartition(".")[2] for setting in SITE}
    live = [
        line[2:] if line.startswith("# ") and line[2:].split(" = ")[0] in keys else line
        for line in lines
    ]
    assert parse_site("\n".join(live)) == parse_site("")


def test_reference_page_is_the_one_of_the_table(request: pytest.FixtureRequest) -> None:
    path = Path(__file__).parents[1] / "docs" / "configuration.md"
    if request.config.option.update:
        path.write_text(reference_page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == reference_page(), "run again with --update"
    assert all(f"| `{setting.key}` |" in reference_page() for setting in (*SITE, *BUNDLE))


def test_source_date_epoch_must_be_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(ConfigError, match="not seconds"):
        config.source_date_epoch()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "42")
    assert config.source_date_epoch() == 42


@pytest.mark.parametrize(("locale", "lang"), [("ko_KR.UTF-8", "ko"), ("C", "en"), ("tr_TR", "en")])
def test_language_follows_the_locale(
    monkeypatch: pytest.MonkeyPatch, locale: str, lang: str
) -> None:
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LC_ALL", locale)
    assert config.language() == lang


def bundle_problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_bundle(text)
    return [str(problem) for problem in caught.value.problems]


def test_extras_are_a_list_or_a_table() -> None:
    listed = parse_bundle(
        '[extras]\nimages = ["judge=local/judge:1"]\nfiles = ["m=/srv/a=b", "data/cache/"]\nwheels = ["w"]'
    )
    assert listed.extras_images == (Named("judge", "local/judge:1"),)
    assert listed.extras_files == (Named("m", "/srv/a=b"), Named("", "data/cache/"))
    assert [entry.label for entry in listed.extras_files] == ["m", "cache"]
    assert listed.extras_wheels == ("w",)
    assert parse_bundle("").extras_images == ()
    table = parse_bundle('[extras.images]\njudge = "local/judge:1"\n[extras.files]\nm = "/srv/m"')
    assert table.extras_images == listed.extras_images
    assert table.extras_files == (Named("m", "/srv/m"),)


def test_every_problem_of_extras_is_told() -> None:
    found = bundle_problems(
        '[extras]\nimages = ["judge", "Bad=x", "a=x y", "b=1", "b=2"]\nfiles = ["model.bin", 1]\n'
        'wheels = "w"\nimage = []\nlimit_mb = 0\n'
    )
    told = "\n".join(found)
    for wanted in (
        "'judge' is not NAME=REFERENCE",
        "'Bad' cannot be a name",
        "'x y' is not the reference",
        "the name 'b' is there twice",
        "extras.files: ['model.bin', 1] is not a list of texts",
        "extras.wheels: 'w' is not a list of texts",
        "Did you mean extras.images?",
        "0 is not between",
    ):
        assert wanted in told, wanted
    assert len(found) == 8
    assert "'model.bin' cannot be a name" in bundle_problems('extras.files = ["model.bin"]')[0]


S3 = """allow = ["s3.example.kr:7070=10.0.0.9"]
[s3]
endpoint = "https://s3.example.kr:7070"
key = "secret://file/etc/s3/key"
secret = "secret://file/etc/s3/secret"
ca = "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----"
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("secret = ", "# "), "s3.secret must be given too"),
        (("=10.0.0.9", ""), "is not in allow with its address"),
        (("7070=", "7071="), "is not in allow with its address"),
        (("https://", "http://"), "is not https://host"),
        (("https://s3.example.kr", "https://10.0.0.9"), "is not https://host"),
        (("https://s3.example.kr", "https://s3"), "is not https://host"),
        ((':7070"', ':77777"'), "is not https://host"),
        (("BEGIN", "START"), "is not PEM text"),
        (("secret://file/etc/s3/key", "AKIAEXAMPLE"), "must refer to the secret"),
        (("[s3]", '[s3]\nbucket_exports = "backups"'), "not three different ones"),
        (("[s3]", '[s3]\nbucket_mlflow = "Big_Bucket"'), "is not a bucket's name"),
        (("[s3]", '[s3]\nregion = "a region"'), "is not a region"),
    ],
)
def test_the_sites_own_s3_is_given_whole_and_right(change: tuple[str, str], said: str) -> None:
    assert parse_site(S3).s3_endpoint == "https://s3.example.kr:7070"
    with pytest.raises(ConfigError) as refused:
        parse_site(S3.replace(*change, 1))
    assert said in str(refused.value)
    assert "AKIAEXAMPLE" not in str(refused.value)


def test_names_of_buckets_are_the_products_own_without_the_sites_s3() -> None:
    with pytest.raises(ConfigError, match="the product's own"):
        parse_site('[s3]\nbucket_mlflow = "other"\n')
