"""Services: each one runs, is the sealed one, and answers a real question."""

from __future__ import annotations

from collections.abc import Callable

from bundle import mlflow_account
from bundle.checks.extras import extra_images
from bundle.checks.model import Check, Red, Stage, settle
from bundle.checks.stage import OWN, inspected, look, part, secret
from bundle.gateway_client import clients_ca, door
from bundle.inside import execute
from bundle.services import s3

_VERSION = "psql --no-psqlrc -h /tmp -U postgres -d postgres -Atc 'show server_version'"


def healthy(stage: Stage, name: str) -> str:
    """That the container of a service runs and its own probe passes.

    Raises Red when not.
    """
    attributes = inspected(stage).get(name)
    if attributes is None:
        raise Red(f"{name}: no container")
    state = attributes["State"]
    health = state.get("Health", {}).get("Status", "not probed")
    if state["Status"] != "running" or health != "healthy":
        raise Red(f"{name}: {state['Status']}, {health}")
    return f"running and healthy since {state['StartedAt'][:19]}Z, {attributes['RestartCount']} restarts"


def svc_postgres(stage: Stage) -> list[str]:
    """Postgres answers a query."""
    line = healthy(stage, "postgres")
    version = execute(stage.plan, stage.host, "postgres", _VERSION, timeout=20).strip()
    return [line, f"answers a query: PostgreSQL {version}"]


def svc_minio(stage: Stage) -> list[str]:
    """MinIO says that it is ready; or the site's own S3 shakes hands by its name."""
    if stage.plan.site.s3_endpoint:
        found = part(look(stage)["hops"], s3.host_and_port(stage.plan.site)[0])
        where = f"{stage.plan.site.s3_endpoint} (s3.endpoint)"
        return [healthy(stage, "forward"), f"{where}: {found['protocol']}, until {found['until']}"]
    return [healthy(stage, "minio"), "its probe asks /minio/health/ready over verified TLS"]


def svc_mlflow(stage: Stage) -> list[str]:
    """MLflow answers through the gateway to somebody with a password."""
    if wrong := mlflow_account.look(stage.plan, stage.host):
        raise Red(f"{wrong}. {mlflow_account.remedy()}")
    line = healthy(stage, "mlflow")
    login = (OWN, secret(stage, "VERIFY_MLFLOW_PASSWORD").reveal())
    answer = door(stage.plan, stage.host, "mlflow").ask("GET", "/version", auth=login)
    if answer.status_code != 200:
        raise Red(f"/version through the gateway: status {answer.status_code}")
    return [line, f"answers through the gateway: MLflow {answer.text.strip()[:40]}"]


def svc_phoenix(stage: Stage) -> list[str]:
    """Phoenix answers through the gateway to somebody with a key; a wrong path would answer with a page."""
    line, key = healthy(stage, "phoenix"), secret(stage, "VERIFY_PHOENIX_API_KEY").reveal()
    phoenix = door(stage.plan, stage.host, "phoenix")
    answer = phoenix.ask("GET", "/v1/projects", bearer=key)
    if answer.status_code != 200 or "data" not in answer.text[:2000]:
        raise Red(f"/v1/projects through the gateway: status {answer.status_code}")
    version = phoenix.ask("GET", "/arize_phoenix_version").text.strip()[:40]
    return [line, f"answers through the gateway: Phoenix {version}"]


def svc_gateway(stage: Stage) -> list[str]:
    """The gateway serves the portal, and the CA that this installation uses."""
    line, portal = healthy(stage, "gateway"), door(stage.plan, stage.host, "portal")
    page, root = portal.ask("GET", "/"), portal.ask("GET", "/ca.crt")
    if page.status_code != 200 or "<html" not in page.text:
        raise Red(f"portal: status {page.status_code}")
    if root.content != clients_ca(stage.host).read_bytes():
        raise Red("/ca.crt is not what clients shall trust (pki/clients.crt)")
    return [line, "portal answers; /ca.crt is what clients shall trust"]


def svc_images(stage: Stage) -> list[str]:
    """Every container runs the image that was sealed, by digest."""
    sealed = {image.name: image for image in stage.release.manifest.images}
    wrong: list[str] = []
    evidence: list[str] = []
    for service in stage.plan.services:
        attributes = inspected(stage).get(service.name)
        found = attributes["Image"] if attributes else "no container"
        image = sealed.get(service.runs)
        # An engine with its own image store calls an image by its manifest, an older one by its configuration.
        if image is None or found not in (image.config, image.manifest):
            wanted = image.config if image else "in the release"
            wrong.append(f"{service.name}: {found} is not {wanted}")
        evidence.append(f"{service.name}: {found[:19]}… as sealed")
    more, seen = extra_images(stage)
    return settle([*wrong, *more], [*evidence, *seen])


def _one(name: str, korean: str, english: str, probe: Callable[[Stage], list[str]]) -> Check:
    return Check(
        id=f"svc-{name}",
        group="services",
        title={"ko": korean, "en": english},
        hint={
            "ko": f"invoke logs --service {name}의 내용을 보고 고친 뒤 invoke start를 실행하십시오.",
            "en": f"Look at invoke logs --service {name}, mend it, then run invoke start.",
        },
        probe=probe,
    )


CHECKS = (
    _one("mlflow", "MLflow 추적 서버", "MLflow tracking server", svc_mlflow),
    _one("phoenix", "Phoenix 서버", "Phoenix server", svc_phoenix),
    _one("postgres", "Postgres", "Postgres", svc_postgres),
    _one("minio", "오브젝트 저장소 MinIO", "Object store MinIO", svc_minio),
    _one("gateway", "게이트웨이와 포털", "Gateway and portal", svc_gateway),
    Check(
        id="svc-images",
        group="services",
        title={
            "ko": "실행 중인 이미지가 봉인된 이미지와 같음",
            "en": "What runs are the sealed images, by digest",
        },
        hint={
            "ko": "invoke install을 다시 실행하면 번들의 이미지로 되돌립니다.",
            "en": "Run invoke install again: it puts the bundle's images back.",
        },
        probe=svc_images,
    ),
)
