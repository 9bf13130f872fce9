"""What goes wrong while installing, on a closed host of its own: each with a clear error, and nothing half-done.

The host's circumstances are odd on purpose: a root with spaces and Korean letters, umask 077, a far time zone, a locale
with its own letters, and a proxy that leads nowhere. It boots by systemd; the rehearsal's host has cron only.
"""

from __future__ import annotations

import random
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundle import carry, closed, debs, seal
from bundle.closed import ClosedHost
from bundle.workflows.connected import read_inventory
from tests.bundles import unseal_arch
from tests.e2e.again import seal_again
from tests.e2e.stack import Sealed

TOP = Path(__file__).parents[2]
ROOT = "/srv/추적 스택 1"
NOWHERE = "http://127.0.0.1:9"
ODD = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "tr_TR.UTF-8",
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), NOWHERE
    ),
}
GREEN = "docker ps --format '{{.Names}} {{.Status}}' | grep -c '(healthy)'"
UNTIL_GREEN = (
    f'for i in $(seq 90); do [ "$({GREEN})" = 6 ] && break; sleep 1; done;'
    f' [ "$({GREEN})" = 6 ] || {{ docker ps -a; false; }}'
)
UNTIL_STARTED = (
    "for i in $(seq 60); do systemctl is-active tracking-bundle && break; sleep 1; done;"
    " systemctl is-active tracking-bundle || { journalctl --no-pager -u tracking-bundle; false; }"
)
OLD_ENGINE = """
for package in /mnt/*.deb; do dpkg-deb -x $package /mnt/old; done
export LD_LIBRARY_PATH=$(echo /mnt/old/*/*-linux-gnu | tr ' ' :)
mkdir -p /run/old
setsid /mnt/old/usr/sbin/dockerd --host unix:///run/old.sock --pidfile /run/old.pid --exec-root /run/old \\
  --data-root /mnt/old/data --storage-driver vfs --bridge none --iptables=false \\
  --containerd /run/containerd/containerd.sock --containerd-namespace old >/mnt/old/log 2>&1 </dev/null &
unset LD_LIBRARY_PATH
for i in $(seq 60); do docker -H unix:///run/old.sock version && break; sleep 1; done
"""
INSTALL_S = 60
"""Longer than an installation takes here, for a kill at any moment of it."""


@dataclass(frozen=True)
class Outcome:
    """How a command on the closed host ended, with both of its streams."""

    code: int
    text: str


@dataclass(frozen=True)
class Spare:
    """A closed host with a bootstrapped release, for installations that fail."""

    host: ClosedHost

    def sh(self, script: str, *, timeout: float = 120) -> Outcome:
        """Run a shell script there, oddly, and say how it ended."""
        whole = f'umask 077\n({script}\n) 2>&1; echo "exit=$?"'
        out = self.host.run(["bash", "-c", whole], timeout=timeout, env=ODD)
        text, _, code = out.rstrip().rpartition("exit=")
        return Outcome(code=int(code), text=text)

    def invoke(self, words: str, *, root: str = ROOT, timeout: float = 300) -> Outcome:
        """Run a task as an operator types it."""
        line = f"cd {shlex.quote(root)}/current && . .venv/bin/activate && invoke {words}"
        return self.sh(line, timeout=timeout)

    def untouched(self) -> bool:
        """Whether the engine has nothing of ours but images."""
        return (
            self.sh(
                "docker ps -aq; docker network ls -q --filter label=org.tracking-bundle.site"
            ).text
            == ""
        )


@pytest.fixture(scope="module")
def spare(
    sealed: Sealed, closed_hosts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Spare]:
    host = closed.create(closed_hosts / "faults", cache=sealed.cache, systemd=True)
    try:
        host.start()
        host.engine_up()
        made = Spare(host=host)
        place = host.put(sealed.path, "/media")
        script = (
            f"tar -xf {place} --occurrence=1 bootstrap.sh && sh bootstrap.sh {place}"
            f" --fingerprint {sealed.fingerprint} --root {shlex.quote(ROOT)}"
        )
        outcome = made.sh(script)
        assert outcome.code == 0, outcome.text
        yield made
    finally:
        host.remove()


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """See that a refusal has its exit code, its words and a hint, and no traceback."""
    assert outcome.code == code, outcome.text
    assert "Traceback" not in outcome.text
    assert "hint: " in outcome.text
    missing = [word for word in words if word not in outcome.text]
    assert not missing, f"{missing} not in:\n{outcome.text}"


@pytest.mark.timeout(300)
def test_nothing_is_changed_and_all_is_told_where_preconditions_fail(spare: Spare) -> None:
    site = 'bind = "203.0.113.9"\n[memory]\nmlflow_mb = 262144\n'
    spare.sh(f"cat > /root/site.toml <<'E'\n{site}E")
    refused(
        spare.invoke("install --yes --site /root/site.toml"),
        3,
        "203.0.113.9:8443 cannot be listened on",
        "203.0.113.9:8445 cannot be listened on",
        "but the limits of the services add up to",
    )
    assert spare.untouched()
    assert spare.sh(f"ls {shlex.quote(ROOT)}").text.split() == ["current", "releases", "wheels"]


@pytest.mark.timeout(120)
def test_wrong_site_file_is_refused_with_every_mistake(spare: Spare) -> None:
    spare.sh(
        'printf \'domian = "a.b"\\ndomain = "my_lab.Internal"\\nbind = 7\\n\' > /root/site.toml'
    )
    refused(
        spare.invoke("install --yes --site /root/site.toml"),
        2,
        "domian: unknown key",
        "Did you mean domain?",
        "upper case",
        "7 is not a text",
    )
    refused(
        spare.invoke("install --yes --site /root/none.toml"), 2, "/root/none.toml: cannot be read"
    )
    refused(spare.invoke("install --lang fr --yes"), 2, "--lang")


@pytest.mark.timeout(120)
def test_taken_port_names_itself(spare: Spare) -> None:
    listen = (
        "python3 -c 'import socket,time; s=socket.socket(); s.bind((\"127.0.0.1\",8444)); s.listen(); time.sleep(60)' &"
        " other=$!; sleep 1; "
    )
    line = f"cd {shlex.quote(ROOT)}/current && . .venv/bin/activate && invoke install --yes; c=$?; kill $other; exit $c"
    refused(spare.sh(listen + line), 3, "127.0.0.1:8444 cannot be listened on")


@pytest.mark.timeout(120)
def test_absent_engine_and_forbidden_engine_are_told_apart(spare: Spare) -> None:
    inside = f"cd {shlex.quote(ROOT)}/current && "
    outcome = spare.sh(f"{inside} DOCKER_HOST=unix:///run/none.sock .venv/bin/invoke install --yes")
    refused(outcome, 3, "no container engine answers at unix:///run/none.sock")
    user = "env HOME=/tmp setpriv --reuid 65534 --regid 65534 --clear-groups"
    outcome = spare.sh(f"{inside} {user} .venv/bin/invoke install --yes")
    refused(outcome, 3, "permission to talk to the container engine is denied")


@pytest.mark.timeout(300)
def test_engine_that_is_too_old_is_refused(spare: Spare, tmp_path: Path) -> None:
    """Debian 12's engine, beside the other one: it has no network and nothing to run, but it answers."""
    archive = debs.Archive(folder=tmp_path / "apt", suite="bookworm", arch="amd64")
    archive.update()
    names = ["docker.io", "libdevmapper1.02.1"]
    archive.apt("apt-get", ["download", "-qq", *names], timeout=300, cwd=tmp_path)
    for package in tmp_path.glob("*.deb"):
        spare.host.put(package, "/mnt")
    started = spare.sh(OLD_ENGINE)
    assert "20.10" in started.text, started.text
    inside = f"cd {shlex.quote(ROOT)}/current && "
    outcome = spare.sh(f"{inside} DOCKER_HOST=unix:///run/old.sock .venv/bin/invoke install --yes")
    spare.sh("kill $(cat /run/old.pid); sleep 1; rm -rf /mnt/*")
    refused(outcome, 3, "is older than 24.0", "20.10")
    assert spare.untouched()


@pytest.mark.timeout(120)
def test_bundle_for_another_machine_is_refused(
    spare: Spare, sealed: Sealed, tmp_path: Path
) -> None:
    tool = carry.collect(TOP / "requirements/tool.lock", sealed.cache, "amd64")
    key = seal.load_key(tmp_path / "sign.key", make=True)
    foreign = seal.write_bundle(
        out=tmp_path,
        top=TOP,
        version="0.1.0",
        arch="arm64",
        created=int(time.time()) // 86400 * 86400,
        images=(),
        wheels=tool,
        key=key,
    )
    place = spare.host.put(foreign.path, "/mnt")
    outcome = spare.sh(
        f"cd /mnt && tar -xf {place} --occurrence=1 bootstrap.sh && sh bootstrap.sh {place}"
        f" --fingerprint {foreign.fingerprint} --root /srv/foreign"
    )
    refused(outcome, 3, "the bundle is for arm64, this host is amd64")
    assert "current" not in spare.sh("ls -R /srv/foreign").text
    spare.sh("rm -rf /srv/foreign /mnt/*")


@pytest.mark.timeout(120)
def test_project_of_the_same_name_is_refused_and_left_alone(spare: Spare) -> None:
    spare.sh(
        "tar -C /bin -c true | docker import - stranger:1 &&"
        " docker create --name their-web --label com.docker.compose.project=tracking stranger:1 /true"
    )
    refused(spare.invoke("install --yes"), 3, "another project called 'tracking'", "their-web")
    assert spare.sh("docker rm their-web && docker rmi stranger:1").code == 0


@pytest.mark.timeout(120)
def test_volume_of_an_earlier_installation_is_refused(spare: Spare) -> None:
    spare.sh("docker volume create --label org.tracking-bundle.site=ffffffff tracking_minio")
    refused(spare.invoke("install --yes"), 3, "tracking_minio", "docker volume rm tracking_minio")
    assert spare.sh("docker volume rm tracking_minio").code == 0


@pytest.mark.timeout(120)
def test_root_without_room_is_told_in_numbers(spare: Spare, sealed: Sealed) -> None:
    place = f"/media/{sealed.path.name}"
    script = (
        "mkdir -p /mnt/small && mount -t tmpfs -o size=200m tmpfs /mnt/small &&"
        f" sh bootstrap.sh {place} --fingerprint {sealed.fingerprint} --root /mnt/small/root"
    )
    assert spare.sh(script).code == 0
    refused(spare.invoke("install --yes", root="/mnt/small/root"), 3, "GiB free of 0.5", "Free 0.")
    assert spare.untouched()
    spare.sh("umount /mnt/small")


@pytest.mark.timeout(60)
def test_tasks_before_the_installation_say_so(spare: Spare) -> None:
    for words in ("status", "stop", "verify", "users.list"):
        refused(spare.invoke(words), 2, "nothing is installed here", "invoke install")


@pytest.mark.timeout(1800)
def test_install_killed_at_any_moment_is_finished_by_the_next(
    spare: Spare, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    """Each round begins on an engine without images and without a trace of the round before."""
    inside = f"cd {shlex.quote(ROOT)}/current && "
    moments = [
        rng.uniform(0.5, INSTALL_S * 0.75)
        for _ in range(10 if request.config.option.nightly else 2)
    ]
    for moment in moments:
        assert spare.invoke("uninstall --purge --yes").code == 0
        killed = f"{inside} timeout --signal=KILL {moment:.1f} setsid --wait .venv/bin/invoke install --yes"
        spare.sh(killed, timeout=INSTALL_S * 3)
        time.sleep(1)
        spare.host.engine_up()  # a pull that is broken off can end the engine too; systemd starts it again
        outcome = spare.invoke("install --yes")
        assert outcome.code == 0, f"killed after {moment:.1f} s:\n{outcome.text}"
        assert spare.sh(GREEN).text.strip() == "6", f"killed after {moment:.1f} s"


@pytest.mark.timeout(300)
def test_second_install_changes_nothing(spare: Spare) -> None:
    list_all = "docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.CreatedAt}}' | sort"
    secrets = f"cd {shlex.quote(ROOT)} && find secrets pki rendered site.toml -type f -exec sha256sum {{}} + | sort"
    assert spare.invoke("install --yes").code == 0
    before = spare.sh(list_all).text, spare.sh(secrets).text
    assert spare.invoke("install --yes").code == 0
    assert (spare.sh(list_all).text, spare.sh(secrets).text) == before


def cross(spare: Spare, sealed: Sealed) -> Outcome:
    """Bring a bundle file in, check and unpack it."""
    place = spare.host.put(sealed.path, "/media")
    return spare.sh(
        f"tar -xf {place} --occurrence=1 bootstrap.sh && sh bootstrap.sh {place}"
        f" --fingerprint {sealed.fingerprint} --root {shlex.quote(ROOT)}"
    )


def take_inventory(spare: Spare, folder: Path) -> Path:
    """The inventory of the spare host, carried out."""
    assert spare.invoke("inventory --out /root/inventory.json").code == 0
    return Path(shutil.copy(spare.host.root / "root/inventory.json", folder))


@pytest.mark.timeout(120)
def test_inventory_gives_nothing_away(spare: Spare, tmp_path: Path) -> None:
    """But for digests it names the product's own files and wheels."""
    lines = take_inventory(spare, tmp_path).read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if '"path": "small/' not in line)
    assert text.count('"diff_id"') > 10
    assert text.count('"sha256"') > 10
    words = spare.sh("hostname; hostname -I; cat /etc/machine-id; ls /").text.split()
    site = spare.sh(
        f"cd {shlex.quote(ROOT)} && cat site-id; cat site.toml | sed -n 's/^domain = //p'"
    )
    secret = spare.sh(
        f"cd {shlex.quote(ROOT)}/secrets && find . -type f -exec cat {{}} + | tr -d '\\0'"
    )
    assert len(secret.text) > 1000
    for word in {*words, *site.text.replace('"', " ").split(), *secret.text.split(), ROOT}:
        if len(word) > 3:
            assert word not in text, word
    assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", text)


@pytest.mark.timeout(200)
def test_delta_with_nothing_changed_is_small_and_changes_nothing(
    spare: Spare, sealed: Sealed, tmp_path: Path
) -> None:
    same = seal_again(sealed, tmp_path, take_inventory(spare, tmp_path))
    assert same.path.stat().st_size <= 1_000_000
    before = spare.sh("docker ps --no-trunc --format '{{.ID}} {{.Image}}' | sort").text
    outcome = cross(spare, same)
    assert outcome.code == 0, outcome.text
    outcome = spare.invoke("install --yes")
    assert outcome.code == 0, outcome.text
    assert spare.sh("docker ps --no-trunc --format '{{.ID}} {{.Image}}' | sort").text == before
    assert spare.invoke("verify --only svc-images").code == 0


@pytest.mark.timeout(60)
def test_delta_without_its_wheels_is_refused_by_bootstrap(
    spare: Spare, sealed: Sealed, tmp_path: Path
) -> None:
    same = seal_again(sealed, tmp_path, take_inventory(spare, tmp_path))
    wheels = f"{shlex.quote(ROOT)}/wheels"
    spare.sh(f"cd {wheels} && mv $(ls | head -1) /root/wheel")
    refused(cross(spare, same), 3, "1 wheels and files of that are not in", "request.json")
    spare.sh(f"mv /root/wheel {wheels}/$(sha256sum /root/wheel | cut -d ' ' -f 1)")
    assert cross(spare, same).code == 0


@pytest.mark.timeout(300)
def test_renewed_certificate_reaches_its_service_without_a_new_container(spare: Spare) -> None:
    ids = "docker ps --no-trunc --format '{{.Names}} {{.ID}}' | sort"
    before = spare.sh(ids).text.splitlines()
    spare.sh(f"rm {shlex.quote(ROOT)}/secrets/minio/tls.crt")
    assert spare.invoke("install --yes").code == 0
    changed = set(spare.sh(ids).text.splitlines()) - set(before)
    assert changed == set(), "it reloads"
    assert spare.invoke("verify --only tls-hops").code == 0


@pytest.mark.timeout(300)
def test_new_bind_and_name_reach_certificate_and_door(spare: Spare) -> None:
    spare.sh(
        f"cat > {shlex.quote(ROOT)}/site.toml <<'E'\ndomain = \"other.internal\"\n[ports]\nmlflow = 9444\nE"
    )
    assert spare.invoke("install --yes").code == 0
    probe = (
        f"echo | openssl s_client -connect 127.0.0.1:9444 -servername other.internal"
        f" -CAfile {shlex.quote(ROOT)}/pki/root.crt -verify_hostname other.internal -verify_return_error 2>&1"
    )
    assert "Verify return code: 0 (ok)" in spare.sh(probe).text
    assert spare.invoke("verify --only svc-mlflow").code == 0


@pytest.mark.timeout(120)
def test_second_task_at_once_is_busy(spare: Spare) -> None:
    inside = f"cd {shlex.quote(ROOT)}/current && "
    outcome = spare.sh(f"{inside} flock ../../.lock -c '. .venv/bin/activate; invoke stop'")
    refused(outcome, 7, "another task is running")


@pytest.mark.timeout(120)
def test_interrupt_ends_with_its_own_code(spare: Spare) -> None:
    inside = f"cd {shlex.quote(ROOT)}/current && "
    outcome = spare.sh(
        f"{inside} timeout --preserve-status --signal=INT 4 .venv/bin/invoke install --yes"
    )
    assert outcome.code == 130, outcome.text
    assert "interrupted" in outcome.text
    assert spare.invoke("install --yes").code == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "fault",
    ["kill -9 $(pidof dockerd)", "kill -9 $(pidof dockerd containerd)", "systemctl restart docker"],
)
def test_stack_comes_back_after_its_engine_was_killed(spare: Spare, fault: str) -> None:
    """Without live-restore the engine gives the containers up: the boot unit follows it and brings them back."""
    spare.sh("systemctl reset-failed docker")  # three starts a minute are systemd's limit for it
    assert spare.sh(f"{fault}; sleep 3").code == 0
    outcome = spare.sh(f"{UNTIL_GREEN}; {UNTIL_STARTED}", timeout=200)
    assert outcome.code == 0, outcome.text


@pytest.mark.timeout(400)
@pytest.mark.parametrize("live_restore", [False, True])
def test_stack_is_green_by_itself_after_a_power_cut(spare: Spare, live_restore: bool) -> None:
    flag = "true" if live_restore else "false"
    spare.sh(f"mkdir -p /etc/docker; echo '{{\"live-restore\": {flag}}}' > /etc/docker/daemon.json")
    for _ in range(2):  # the first cut makes the setting take effect
        spare.host.power_cut()
        spare.host.start()
        spare.host.engine_up()
        outcome = spare.sh(UNTIL_GREEN, timeout=150)
        assert outcome.code == 0, outcome.text


@pytest.mark.timeout(400)
def test_service_that_never_gets_healthy_shows_its_last_words(spare: Spare) -> None:
    folder = "$(docker volume inspect -f '{{.Mountpoint}}' tracking_postgres)/pgdata"
    spare.sh(
        f"cd {shlex.quote(ROOT)}/current && .venv/bin/invoke stop && echo 12 > {folder}/PG_VERSION"
    )
    refused(
        spare.invoke("install --yes"),
        4,
        "postgres: is",
        "database files are incompatible with server",
        "invoke logs --service postgres",
    )
    spare.sh(f"echo 17 > {folder}/PG_VERSION")
    assert spare.invoke("install --yes").code == 0


@pytest.mark.timeout(200)
def test_uninstall_leaves_data_and_purge_leaves_nothing(spare: Spare) -> None:
    refused(spare.invoke("uninstall </dev/null"), 2, "--yes")
    assert spare.invoke("uninstall --yes").code == 0
    assert "tracking_postgres" in spare.sh("docker volume ls -q").text
    assert spare.invoke("install --yes").code == 0
    assert spare.invoke("uninstall --purge --yes").code == 0
    assert spare.untouched()
    left = "docker volume ls -q; docker images; ls /etc/cron.d /etc/systemd/system/*"
    assert "tracking" not in spare.sh(left).text
    assert spare.sh(f"ls {shlex.quote(ROOT)}").text.split() == ["current", "releases", "wheels"]


@pytest.mark.timeout(120)
def test_delta_without_its_base_is_refused_before_anything_is_changed(
    spare: Spare, tmp_path: Path
) -> None:
    """The last test has emptied the engine, and the release here came as a delta."""
    outcome = spare.invoke("install --yes")
    refused(outcome, 3, "the bundle is a delta on", "blobs/sha256/", "request.json")
    assert spare.untouched()
    assert spare.sh("docker images -q").text == ""
    request = Path(shutil.copy(spare.host.root / ROOT.lstrip("/") / "request.json", tmp_path))
    asked = read_inventory(request, unseal_arch())
    assert asked.images == ()
    assert len(asked.wheels) > 10
