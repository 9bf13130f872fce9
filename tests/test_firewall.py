"""The rule of the host's firewall as text: every network of ours is in it, the forwarder's is not."""

from __future__ import annotations

from bundle import firewall
from bundle.plan import EXTRAS, bridge
from bundle.templates import render
from tests.checks.stages import make_test_plan


def test_every_network_of_the_stack_is_in_the_rule() -> None:
    text = firewall.rules()
    compose = render(make_test_plan())[-1].text
    networks = [*compose.partition("\nnetworks:\n")[2].partition("\nvolumes:\n")[0].split("\n")]
    names = [line.strip(" :") for line in networks if line.startswith("  ") and line[2].isalpha()]
    assert set(names) == {"data", "app", "edge"}
    assert all(text.count(f'"{bridge(name)}"') == 3 for name in (*names, EXTRAS))


def test_loading_twice_is_loading_once() -> None:
    lines = firewall.rules().splitlines()
    assert lines[1:3] == ["table inet tracking_bundle", "delete table inet tracking_bundle"]


def test_states_are_told_apart() -> None:
    assert firewall.State(wanted=False, loaded=False).good("dev")
    assert firewall.State(wanted=True, loaded=True).good("dev")
    assert not firewall.State(wanted=True, loaded=False).good("dev")
    assert "NOT in force" in firewall.State(wanted=True, loaded=False).told()
    assert "refused 7" in firewall.State(wanted=True, loaded=True, refused=7).told()


def test_production_has_one_whichever_it_is() -> None:
    assert not firewall.State(wanted=False, loaded=False).good("prod")
    assert firewall.State(wanted=True, loaded=True).good("prod")
    by_hand = firewall.State(wanted=False, loaded=False, by_engine=True)
    assert by_hand.good("prod")
    assert "by hand" in by_hand.told()
