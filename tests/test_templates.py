"""The rendered tree of three sites, whole, as golden files: the diff is the review (`--update` rewrites them)."""

from __future__ import annotations

import shutil
from pathlib import Path

import jinja2
import pytest

from bundle.config import parse_site
from bundle.fragment import parse
from bundle.plan import Plan, make_plan
from bundle.services.names import HOST_OF_PAGE
from bundle.templates import FOLDER, environment, markup, quoted, render
from tests.test_fragment import RIGHT as FRAGMENT

GOLDEN = Path(__file__).parent / "golden"
SITES = {
    "default": 'domain = "closed.internal"',
    "names": (
        'domain = "ml.example.kr"\nlayout = "names"\nbind = "10.1.2.3"\n'
        'allow = ["idp.example.kr:443", "llm.example.kr:443=10.1.2.9", "smtp.example.kr:587"]\n'
        "[ports]\nportal = 443\n[s3]\nexpose = true\n"
        "[memory]\npostgres_mb = 2048\n[retention]\nphoenix_days = 0\n"
    ),
    "registry": 'domain = "closed.internal"\n[registry]\naddress = "images.example.kr:5000/ml"\n',
    "s3": (
        'domain = "closed.internal"\nallow = ["s3.example.kr:7070=10.0.0.9"]\n'
        '[s3]\nendpoint = "https://s3.example.kr:7070"\n'
        'key = "secret://file/etc/s3/key"\nsecret = "secret://file/etc/s3/secret"\nbucket_mlflow = "team-mlflow"\n'
        'ca = """\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"""\n'
    ),
    "extras": 'domain = "closed.internal"\nlayout = "names"',
    "korean": (
        'domain = "closed.internal"\n'
        'organisation = "한국 \\"보험\\" 연구원\'s ${HOME} $$ {{ x }} {% if %} \\\\ \\n\\t <b>&amp; '
        '# : - %s `id` \\u0000\\u001b\\u007f\\u0085\\u2028\\u202e \\U0001F600 %(x)s </html>"\n'
    ),
}


def plan_of(name: str) -> Plan:
    raw = FRAGMENT.encode() if name == "extras" else b""
    extras = parse(raw, "f.yaml", images=("evaluator", "queue"), files=("models",)) if raw else ()
    return make_plan(parse_site(SITES[name]), site_id="0a1b2c3d", version="0.1.0", extras=extras)


@pytest.mark.parametrize("name", SITES)
def test_rendered_tree_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    folder = GOLDEN / name
    files = {str(file.path): file.text for file in render(plan_of(name))}
    if request.config.option.update:
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8", newline="")
    found = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files == found, "review the difference, then run again with --update"


def test_missing_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("{{ nobody }}")
    with pytest.raises(jinja2.UndefinedError):
        environment(tmp_path).get_template("a.j2").render()


def test_organisation_changes_the_portal_and_nothing_else() -> None:
    plain = {str(f.path): f.text for f in render(plan_of("default"))}
    korean = {str(f.path): f.text for f in render(plan_of("korean"))}
    changed = {path for path in plain if plain[path] != korean[path]}
    assert changed == {
        "rendered/gateway/index.html",
        "rendered/compose.yaml",
    }  # the latter by its digest


def test_markup_leaves_no_tag_and_no_forbidden_character() -> None:
    text = markup('<b>"&\x00\x1b\x85')
    assert text == "&lt;b&gt;&quot;&amp;\ufffd\ufffd\ufffd"


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("$HOME", '"$$HOME"'),
        ("\x00\n\u2028", '"\\x00\\x0a\\u2028"'),
        ("한국 😀", '"한국 😀"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_quoted_scalar_escapes_what_yaml_and_compose_would_read(value: str, scalar: str) -> None:
    assert quoted(value) == scalar


def test_every_template_is_used() -> None:
    services = [s for name in ("names", "s3") for s in plan_of(name).services]
    used = {f"{mount.template}.j2" for s in services for mount in s.mounts}
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.j2")}
    assert there == used | {"compose.yaml.j2"}


def test_no_rendered_file_names_an_outside_host() -> None:
    for file in render(plan_of("default")):
        for word in file.text.split("https://")[1:]:
            assert word.startswith(("127.0.0.1:", "closed.internal", "$backend", HOST_OF_PAGE)) or (
                "svc.closed.internal" in word.split("/")[0]
            ), word[:60]


def test_older_engine_gets_no_start_interval() -> None:
    """API 1.43 (engine 24) refuses the key; it probes often all the time instead."""
    site = parse_site(SITES["default"])
    compose = render(make_plan(site, site_id="x", version="1", quick_probes=False))[-1].text
    assert "start_interval" not in compose
    assert compose.count("interval: 5s") == 6
