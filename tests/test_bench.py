"""The frame of the benchmarks: pairs, goals, the table and the file; the runs themselves are real and not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bundle.bench import delta, memory, peers, tls
from bundle.bench.context import Bench, Group, last_path, measure_group, reason
from bundle.bench.figures import Figure, Wanted, as_table, interleave, write_report
from bundle.bench.usage import Usage, Watch, parent_of
from bundle.errors import CommandError, ConfigError
from bundle.words import choose
from bundle.workflows import bench as workflow

SPEED = Wanted(name="speed", unit="×", goal=0.5, against="the other way")
ROOM = Wanted(name="room", unit="MB")


def status(name: str, peak: int, now: int) -> str:
    return f"Name:\t{name}\nVmPeak:\t 999999 kB\nVmHWM:\t{peak:8} kB\nVmRSS:\t{now:8} kB\n"


def used(seconds: float = 1.0, *, together: int = 0, largest: int = 0, text: str = "") -> Usage:
    return Usage(
        seconds=seconds, largest=largest, largest_name="tool", together=together, text=text
    )


def test_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians() -> None:
    figure = SPEED.ratio([1, 9, 4], [10, 10, 40])
    assert figure.value == pytest.approx(0.1)
    assert figure.samples == pytest.approx((0.1, 0.9, 0.1))
    assert figure.pairs == ((1, 10), (9, 10), (4, 40))


def test_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        SPEED.ratio([1, 2], [1])


def test_goal_is_met_by_what_it_allows_and_missed_by_more() -> None:
    assert SPEED.measured([0.5]).met
    assert not SPEED.measured([0.51]).met
    assert ROOM.measured([1e9]).met  # nothing was demanded


def test_what_was_not_measured_meets_no_goal_and_has_no_number() -> None:
    figure = SPEED.missing("no tool")
    assert not figure.met
    found = figure.as_json()
    assert (found["value"], found["met"], found["samples"]) == (None, False, [])
    assert found["note"] == "not measured: no tool"


def test_missed_goal_prints_as_missed() -> None:
    choose("en")
    lines = as_table([SPEED.measured([0.4]), SPEED.measured([0.6])]).splitlines()
    assert "✓ met" in lines[2]
    assert "MISSED" not in lines[2]
    assert "✗ MISSED" in lines[3]
    assert "≤ 0.5" in lines[3]


def test_table_shows_spread_notes_and_footnotes() -> None:
    choose("en")
    rows = [SPEED.ratio([1, 2, 3], [10, 10, 10], note="why"), ROOM.missing("?"), SPEED.missing("!")]
    text = as_table(rows, ["end"])
    assert "✗ not measured" in text.splitlines()[4]
    assert "0.2 ×" in text
    assert "0.1–0.3 (n=3)" in text
    assert "  speed: why" in text
    assert "  room: not measured: ?" in text
    assert text.endswith("\n\nend")


def test_arms_take_turns_in_both_orders() -> None:
    log: list[str] = []

    def arm(name: str) -> float:
        log.append(name)
        return float(len(log))

    found = interleave({"a": lambda: arm("a"), "b": lambda: arm("b")}, 3)
    assert "".join(log) == "abbaab"
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_report_has_the_form_of_the_interface(tmp_path: Path) -> None:
    path = write_report("demo", [SPEED.ratio([1], [4])], tmp_path / "reports", rounds=1)
    report = json.loads(path.read_text("utf-8"))
    assert path.name == "bench-demo.json"
    assert {"date", "machine", "figures", "rounds"} == set(report)
    wanted = {"name", "value", "unit", "against", "goal", "met", "samples", "pairs_seconds"}
    assert set(report["figures"][0]) == wanted
    assert report["figures"][0]["met"] is True


def test_group_that_fails_leaves_each_of_its_rows_with_the_reason() -> None:
    def act(_: Bench) -> list[Figure]:
        raise CommandError("skopeo: failed with exit code 1\n  | no such thing")

    figures = measure_group(Group(name="g", wanted=(SPEED, ROOM), act=act), bench())
    assert [figure.wanted for figure in figures] == [SPEED, ROOM]
    assert all("exit code 1: no such thing" in figure.note for figure in figures)


def test_group_keeps_its_rows_in_order_and_names_one_that_did_not_come() -> None:
    other = Wanted(name="other", unit="s")
    act = lambda _: [other.measured([1]), ROOM.measured([2])]  # noqa: E731
    figures = measure_group(Group(name="g", wanted=(SPEED, ROOM), act=act), bench())
    assert [figure.wanted for figure in figures] == [SPEED, ROOM, other]
    assert figures[0].value is None
    assert figures[1].value == 2


def bench() -> Bench:
    """What a group gets; the groups here look at nothing of it."""
    return object.__new__(Bench)


def test_unexpected_error_is_not_hidden_in_a_row() -> None:
    def act(_: Bench) -> list[Figure]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure_group(Group(name="g", wanted=(SPEED,), act=act), bench())


def test_reason_is_one_short_line() -> None:
    error = CommandError("x" * 500 + "\n  | first\n  | " + "y" * 500)
    assert "\n" not in reason(error)
    assert len(reason(error)) < 250
    assert reason(OSError(28, "No space left on device")).endswith("No space left on device")


def test_last_line_of_the_bundle_task_names_the_file() -> None:
    text = f"✓ seal\n{'0' * 64}  dist/tracking-bundle.tar\n"
    assert last_path(text, Path("/here")) == Path("/here/dist/tracking-bundle.tar")
    assert last_path(f"{'0' * 64}  /out/x.tar", Path("/here")) == Path("/out/x.tar")
    with pytest.raises(CommandError, match="no file"):
        last_path("✓ seal\n", Path("/here"))


def test_memory_counts_the_family_and_not_the_engines_clients() -> None:
    watch = Watch()
    watch.note({1: status("python", 100, 80), 2: status("zstd", 50, 50)})
    watch.note({1: status("python", 100, 10), 2: status("zstd", 70, 70)})
    watch.note({1: status("python", 101, 20), 3: status("docker-compose", 9000, 9000)})
    assert watch.together == 130 * 1024
    assert max(watch.peaks.values()) == (101 * 1024, "python")


def test_what_becomes_a_client_of_the_engine_is_forgotten() -> None:
    watch = Watch()
    watch.note({7: status("python", 500, 500)})
    watch.note({7: status("docker", 9000, 9000)})
    assert not watch.peaks


def test_kernel_thread_has_no_memory_and_the_gone_have_no_parent() -> None:
    watch = Watch()
    watch.note({2: "Name:\tkthreadd\n"})
    assert watch.together == 0
    assert parent_of(2**22 + 1) == 0


def test_peak_is_the_highest_of_all_runs() -> None:
    figure = memory.peak(
        memory.WANTED["check"],
        [used(together=10_000_000), used(together=160_000_000, largest=90_000_000)],
    )
    assert figure.value == 160
    assert not figure.met
    assert figure.note.endswith("tool 90 MB")


def test_memory_without_runs_is_not_measured() -> None:
    empty = bench()
    empty.usages = {"check": [used(together=1)]}
    figures = {figure.wanted.name: figure for figure in memory.memory(empty)}
    assert figures["peak memory, check"].value is not None
    assert figures["peak memory, install"].value is None
    assert len(figures) == len(memory.GROUPS[0].wanted)


def test_groups_have_every_row_of_the_issue_once() -> None:
    rows = [wanted for group in workflow.GROUPS for wanted in group.wanted]
    names = [wanted.name for wanted in rows]
    assert len(names) == len(set(names))
    goals = sorted(wanted.goal for wanted in rows if wanted.goal is not None)
    assert goals == sorted([0.75, 0.5, 500, 8, 1, 1.15, 1.3, 1.5, 0.1, 150, 150, 150, 150])


def test_groups_are_chosen_by_name_in_their_own_order() -> None:
    assert [group.name for group in workflow.chosen(["seal", "size"])] == ["size", "seal"]
    assert workflow.chosen([]) == list(workflow.GROUPS)
    with pytest.raises(ConfigError, match="sizes"):
        workflow.chosen(["sizes"])


def test_nothing_claims_to_beat_what_was_not_measured() -> None:
    assert "Hauler and Zarf could not be had" in peers.FOOTNOTE[-1]
    rows = [wanted for group in workflow.GROUPS for wanted in group.wanted]
    assert not any("auler" in row.name + row.against or "arf" in row.against for row in rows)


@pytest.mark.parametrize("tool", peers.TOOLS)
def test_every_peer_gets_the_same_images(tool: str) -> None:
    peer = peers.Peer(command=("/bench/tool",), version="1")
    names = {"tracking-bundle/a:1": Path("/w/0.tar"), "tracking-bundle/b:1": Path("/w/1.tar")}
    for commands in (peers.pack_commands, peers.push_commands):
        lines = commands(tool, peer, "127.0.0.1:5000", names)
        assert [line[0] for line in lines] == ["/bench/tool"] * 2
        for (name, file), line in zip(names.items(), lines, strict=True):
            words = " ".join(line)
            assert "127.0.0.1:5000/" in words
            assert name in words
            assert str(file) in words


def test_peers_are_pinned() -> None:
    assert all("@v" in module for module in peers.GO_MODULES.values())


def test_older_lock_is_of_a_package_that_is_pinned(tmp_path: Path) -> None:
    top = Path(__file__).parents[1]
    text = (top / "images/phoenix/requirements.in").read_text("utf-8")
    assert delta.older_pin(text).startswith(f"{delta.PACKAGE}[pg]=={delta.BEFORE}")
    with pytest.raises(CommandError, match="not pinned"):
        delta.older_pin("something==1\n")


def test_every_word_of_the_plain_stack_is_in_the_rendered_tree(tmp_path: Path) -> None:
    """And afterwards no hop of a run has a word of TLS."""
    golden = Path(__file__).parent / "golden/default/rendered"
    for name in tls.PLAIN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((golden / name).read_text("utf-8"), "utf-8")
    tls.make_plain(tmp_path)
    compose = (tmp_path / "compose.yaml").read_text("utf-8")
    services = yaml.safe_load(compose)["services"]
    told = json.dumps(
        {n: [services[n].get("environment"), services[n].get("command")] for n in tls.ON_THE_WAY}
    )
    assert not [
        word
        for word in ("verify-full", "ssl-certfile", "https://minio", "https://mlflow")
        if word in told
    ]
    conf = (tmp_path / "gateway/nginx.conf").read_text("utf-8")
    assert " ssl;" not in conf
    assert "proxy_ssl on;" not in conf
    with pytest.raises(CommandError, match="has no"):
        tls.make_plain(tmp_path)
