"""The site's own image registry: the few requests of the distribution API that putting images there needs.

Over verified TLS only, past every proxy; by login, by token, or as nobody. What is there is never sent again.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace

import httpx

from bundle.borrowed import borrow
from bundle.config import SiteConfig
from bundle.errors import BundleError, CommandError, ConfigError, PreconditionError
from bundle.manifest import MANIFEST_TYPE, PRODUCT, Manifest, SealedImage
from bundle.model import Secret
from bundle.words import say

TIMEOUT = httpx.Timeout(600, connect=15, pool=15)
SCOPE = re.compile(r"/v2/(.+?)/(?:blobs|manifests)/")
CHALLENGE = re.compile(r'(realm|service|scope)="([^"]*)"')


class Login(httpx.Auth):
    """User and password, or the token that the registry's own realm gives for them."""

    def __init__(self, user: str, password: Secret) -> None:
        self.user, self.password = user, password
        self.tokens: dict[str, str] = {}

    @property
    def basic(self) -> str:
        """The header of the plain login; empty for nobody."""
        pair = f"{self.user}:{self.password.reveal()}".encode()
        return "Basic " + base64.b64encode(pair).decode() if self.user else ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Send `request` as is known to be right; ask for a token when the registry says so, once."""
        place = SCOPE.match(request.url.path)
        scope = f"repository:{place[1]}:pull,push" if place else ""
        known = self.tokens.get(scope) or self.basic
        if known:
            request.headers["Authorization"] = known
        answer = yield request
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != 401 or not challenge.startswith("Bearer "):
            return
        found = dict(CHALLENGE.findall(challenge))
        wanted = {"service": found.get("service", ""), "scope": scope or found.get("scope", "")}
        ask = httpx.Request(
            "GET",
            httpx.URL(found.get("realm", "")).copy_merge_params(
                {key: value for key, value in wanted.items() if value}
            ),
            headers={"Authorization": self.basic} if self.basic else {},
        )
        if ask.url.scheme != "https":  # the password goes nowhere without TLS
            return
        given = yield ask
        if given.status_code == 200:
            data = json.loads(given.read())
            self.tokens[scope] = "Bearer " + str(data.get("token") or data.get("access_token"))
            request.headers["Authorization"] = self.tokens[scope]
            yield request

    requires_response_body = False


@dataclass(frozen=True, kw_only=True)
class Registry:
    """One registry: `address` is its host and port, `prefix` the folder of ours in it (may be empty)."""

    address: str
    prefix: str
    login: Login
    client: httpx.Client = field(repr=False)

    def repository(self, image: str) -> str:
        """Where the image `image` of ours lies in the registry; with an empty name the folder, with its slash."""
        return "/".join((*([self.prefix] if self.prefix else []), PRODUCT, image))

    def reference(self, image: SealedImage) -> str:
        """The name by which the engine has `image` from there; the tag is the sealed one's."""
        return f"{self.address}/{self.repository(image.name)}:{image.reference.rpartition(':')[2]}"

    def rename(self, manifest: Manifest) -> Manifest:
        """`manifest` with the names that its images have here."""
        images = tuple(replace(one, reference=self.reference(one)) for one in manifest.images)
        return replace(manifest, images=images)

    @property
    def header(self) -> Secret:
        """What an engine must be told to pull from there as the same user."""
        login = {
            "username": self.login.user,
            "password": self.login.password.reveal(),
            "serveraddress": self.address,
        }
        known = login if self.login.user else {"serveraddress": self.address}
        text = json.dumps(known).encode()
        return Secret(base64.urlsafe_b64encode(text).decode())

    def ask(
        self,
        method: str,
        path: str,
        *,
        good: tuple[int, ...],
        content: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request; `good` are the answers that are expected.

        Raises PreconditionError when the registry cannot be used at all, CommandError when it refuses this.
        """
        try:
            answer = self.client.request(
                method, f"https://{self.address}{path}", content=content, headers=headers
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._unreachable(error) from error
        if answer.status_code not in good:
            raise self._refused(f"{method} {path.partition('?')[0]}", answer)
        return answer

    def check(self) -> None:
        """See that the registry is there, is the right one, and takes the login.

        Raises PreconditionError.
        """
        self.ask("GET", "/v2/", good=(200,))

    def has(self, image: str, digest: str) -> bool:
        """Whether the repository of `image` has the blob `digest`."""
        path = f"/v2/{self.repository(image)}/blobs/{digest}"
        return self.ask("HEAD", path, good=(200, 404)).status_code == 200

    def mount(self, image: str, digest: str, source: str) -> bool:
        """Give `image` the blob `digest` that another image of ours has there; False when the registry would not."""
        query = httpx.QueryParams({"mount": digest, "from": self.repository(source)})
        path = f"/v2/{self.repository(image)}/blobs/uploads/?{query}"
        answer = self.ask("POST", path, good=(201, 202))
        if answer.status_code == 202:  # it has begun an upload instead
            self.ask("DELETE", self._path(answer), good=(200, 202, 204, 404, 405))
        return answer.status_code == 201

    def send(self, image: str, digest: str, size: int, content: Iterable[bytes]) -> None:
        """Upload the blob `digest`, streamed; the registry compares the digest.

        Raises CommandError when it is not what it must be, or the registry refuses.
        """
        begun = self.ask("POST", f"/v2/{self.repository(image)}/blobs/uploads/", good=(202,))
        place = self._path(begun)
        path = f"{place}{'&' if '?' in place else '?'}{httpx.QueryParams({'digest': digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self.ask("PUT", path, good=(201,), content=content, headers=headers)

    def publish(self, image: SealedImage, document: bytes) -> None:
        """Put the manifest of `image` under its tag, when all of its blobs are there."""
        tag = image.reference.rpartition(":")[2]
        path = f"/v2/{self.repository(image.name)}/manifests/{tag}"
        answer = self.ask(
            "PUT", path, good=(201,), content=document, headers={"Content-Type": MANIFEST_TYPE}
        )
        found = answer.headers.get("Docker-Content-Digest", image.manifest)
        if found != image.manifest:
            raise CommandError(f"the registry keeps {image.name} as {found}", where=self.address)

    def _path(self, answer: httpx.Response) -> str:
        """Where an upload goes on; on this registry, whatever a proxy before it made of its name."""
        return httpx.URL(answer.headers["Location"]).raw_path.decode("ascii")

    def _unreachable(self, error: Exception) -> BundleError:
        causes: list[BaseException] = [error]
        while (inner := causes[-1].__cause__ or causes[-1].__context__) and inner not in causes:
            causes.append(inner)
        message, hint = (
            say(f"does not answer: {error}", f"응답하지 않습니다: {error}"),
            say("Start it, or mend registry.address.", "시작하거나 registry.address를 고치십시오."),
        )
        for cause in causes:
            if isinstance(cause, socket.gaierror):
                message = say("the name is not known", "이름을 찾을 수 없습니다")
                hint = say(
                    "Mend registry.address, or make the name known by DNS or /etc/hosts.",
                    "registry.address를 고치거나 DNS 또는 /etc/hosts에 이름을 등록하십시오.",
                )
            elif isinstance(cause, ssl.SSLCertVerificationError):
                why = cause.verify_message
                message = say(
                    f"its certificate is not trusted: {why}", f"인증서를 신뢰할 수 없습니다: {why}"
                )
                hint = say(
                    "Give the file of the CA that signed it as registry.ca.",
                    "서명한 CA의 파일을 registry.ca에 지정하십시오.",
                )
            elif isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in str(cause):
                message = say("does not speak TLS", "TLS를 사용하지 않습니다")
                hint = say("Give it a certificate.", "인증서를 설정하십시오.")
        return PreconditionError(message, where=self.address, hint=hint)

    def _refused(self, what: str, answer: httpx.Response) -> BundleError:
        user = self.login.user or say("nobody", "익명")
        if answer.status_code == 401:
            message = say(
                f"the login as {user} was refused", f"{user}(으)로 로그인이 거부되었습니다"
            )
            hint = say(
                "Mend registry.user, or what registry.password or registry.password_file leads to.",
                "registry.user, 또는 registry.password나 registry.password_file이 가리키는 내용을 고치십시오.",
            )
            return PreconditionError(message, where=self.address, hint=hint)
        if answer.status_code == 403:
            message = say(f"{user} may not: {what}", f"{user}의 권한이 없습니다: {what}")
            hint = say(
                "Give that user the right to push there, or another registry.address.",
                "그 사용자에게 푸시 권한을 주거나 registry.address를 바꾸십시오.",
            )
            return PreconditionError(message, where=self.address, hint=hint)
        text = answer.text[:300].strip()
        hint = say(
            "Look at the log of the registry and mend that, then run it again: it takes up where it was.",
            "레지스트리의 로그를 보고 고친 뒤 다시 실행하십시오. 하던 곳부터 이어 갑니다.",
        )
        return CommandError(f"{what}: {answer.status_code} {text}", where=self.address, hint=hint)


def open_registry(site: SiteConfig) -> Registry | None:
    """The registry that site.toml names, not asked for anything yet; None when it names none.

    Raises ConfigError when a file that it names cannot be used.
    """
    if not site.registry_address:
        return None
    context = ssl.create_default_context()
    if site.registry_ca:
        try:
            context = ssl.create_default_context(cafile=site.registry_ca)
        except (OSError, ssl.SSLError) as error:
            hint = say("Give a PEM file of certificates.", "PEM 인증서 파일을 지정하십시오.")
            message = f"{site.registry_ca}: {error}"
            raise ConfigError(message, where="site.toml: registry.ca", hint=hint) from error
    login = Login(site.registry_user, _password(site))
    address, _, prefix = site.registry_address.partition("/")
    client = httpx.Client(
        verify=context, timeout=TIMEOUT, trust_env=False, auth=login, follow_redirects=False
    )
    return Registry(address=address, prefix=prefix, login=login, client=client)


def _password(site: SiteConfig) -> Secret:
    if site.registry_password:
        return borrow(site.registry_password, "site.toml: registry.password")
    if site.registry_password_file:
        place = f"secret://file{site.registry_password_file}"
        return borrow(place, "site.toml: registry.password_file")
    return Secret("")
