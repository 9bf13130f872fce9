"""The trust sheet: what goes to the closed side on another way than the medium, on paper or in a ticket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ConfigError
from bundle.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file that holds the bundle or a stretch of it."""

    name: str
    size: int
    sha256: str


TEXT = """\
tracking-bundle {version} ({arch})

EN  This sheet must reach the closed network on another way than the medium (paper, ticket, phone).
    Nothing that travels on the medium vouches for itself. Compare each value below, sign by sign.
KO  이 확인서는 매체와 다른 경로(종이, 티켓, 전화)로 폐쇄망에 전달해야 합니다.
    매체에 담긴 것은 스스로를 증명하지 못합니다. 아래 값을 한 글자씩 비교하세요.

file          {file}
sha256        {sha256}
bootstrap.sh  {bootstrap}
fingerprint   {fingerprint}
{old}created       {created}
expires       {expires}

1.  EN  digest of the whole file           KO  파일 전체의 다이제스트
        {whole}
        = {sha256}
{parts}
2.  EN  digest of the first script         KO  첫 스크립트의 다이제스트
        tar -xf {first} --occurrence=1 bootstrap.sh && openssl dgst -sha256 bootstrap.sh
        = {bootstrap}

3.  EN  key and signature (optional: bootstrap.sh does the same)
    KO  키와 서명 (선택 사항: bootstrap.sh가 같은 검사를 합니다)
        tar -xf {first} --occurrence=1 MANIFEST.json MANIFEST.sig key.pem
        openssl pkey -pubin -in key.pem -outform DER | openssl dgst -sha256
        = {fingerprint}
        openssl dgst -sha256 -verify key.pem -signature MANIFEST.sig MANIFEST.json
        = Verified OK

EN  When 1 and 2 are right, check and unpack (as root):
KO  1번과 2번이 맞으면 검사하고 풉니다 (root 권한):

sh bootstrap.sh {first} --fingerprint {fingerprint}
"""


PARTS = """
    EN  or of each part: what vouches for {file}.parts.json is this list
    KO  또는 각 파트의 다이제스트 ({file}.parts.json 은 이 목록이 보증합니다)
"""

OLD = """\
old key       {old}
    EN  The signing key changes. Until a bundle comes without this line, either fingerprint is accepted.
    KO  서명 키가 바뀝니다. 이 줄이 없는 번들이 올 때까지 두 지문 중 어느 것이든 받아들입니다.
"""


def trust_sheet(
    file: str,
    sha256: str,
    bootstrap: str,
    fingerprint: str,
    old: str,
    manifest: Manifest,
    parts: Sequence[Part],
) -> str:
    """The sheet for the bundle `file`: digests of it, its `parts`, its bootstrap.sh, its key and the `old` one."""
    lines = "".join(
        f"        openssl dgst -sha256 {part.name}\n        = {part.sha256}\n" for part in parts
    )
    return TEXT.format(
        version=manifest.version,
        arch=manifest.arch,
        file=file,
        first=parts[0].name if parts else file,
        whole=f"cat {file}.[0-9][0-9][0-9] | openssl dgst -sha256"
        if parts
        else f"openssl dgst -sha256 {file}",
        parts=PARTS.format(file=file) + lines if parts else "",
        sha256=sha256,
        bootstrap=bootstrap,
        fingerprint=fingerprint,
        old=OLD.format(old=old) if old else "",
        created=manifest.created,
        expires=manifest.expires,
    )


def fingerprint_of(bundle: Path) -> str:
    """The key's fingerprint on the trust sheet beside `bundle`.

    Raises ConfigError when there is no such sheet.
    """
    sheet = bundle.with_name(bundle.name.removesuffix(".001")).with_suffix(".trust.txt")
    match = re.search(
        r"--fingerprint ([0-9a-f]{64})", sheet.read_text("utf-8") if sheet.exists() else ""
    )
    if not match:
        hint = "Give it with --fingerprint HEX."
        raise ConfigError("no fingerprint is known", where=str(sheet), hint=hint)
    return match[1]
