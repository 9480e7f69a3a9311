"""Rules in the store: versions, the history, what writers are told, and what those follow who route by them."""

from __future__ import annotations

import asyncio
import json

import pytest
from attrs import evolve
from traffic import SUBSETS, document, rules, splits
from worlds import World, until

from osdisco.backend import Delete, Put
from osdisco.errors import ConfigError, ConflictError, IndeterminateError, RulesError
from osdisco.mesh import CanaryController, CanaryPhase, CanaryPlan, RulesView, ServiceRules, TrafficRules
from osdisco.mesh.traffic_rules import HISTORY_MAX

PLAN = CanaryPlan("v1", "v2")


def put_raw(world: World, key: str, value: bytes) -> None:
    """Write as somebody else than osdisco."""
    world.store.commit([Put(f"ns/{key}", value)], {})


def followed(view: RulesView, service: str = "geo") -> str:
    return str(view.router.route(service, key="k").targets[0])


async def test_each_change_is_a_version_that_tells_who_and_why_and_what_was_before(world: World) -> None:
    them = TrafficRules(world.process("ann"))
    assert await them.get("geo") is None
    first = await them.set("geo", document())
    second = await them.set("geo", document(splits=splits(v1=90, v2=10)))
    assert (first.version, first.previous, first.by, first.why) == (1, 0, "ann", "set")
    assert (second.version, second.previous) == (2, 1)
    assert await them.get("geo") == second
    assert await them.history("geo") == [second, first]


async def test_a_change_costs_two_reads_and_a_commit_and_following_one_watch(world: World) -> None:
    writer, reader = world.process(), world.process()
    await TrafficRules(writer).set("geo", document())
    async with TrafficRules(reader).view() as view:
        writer.backend.calls.clear()
        await TrafficRules(writer).set("geo", document(timeout=1))
        assert dict(writer.backend.calls) == {"scan": 2, "commit": 1}
        await until(lambda: view["geo"].version == 2)
    assert {name: count for name, count in reader.backend.calls.items() if name != "frames"} == {"watch": 1}


async def test_the_history_is_bounded(world: World) -> None:
    them = TrafficRules(world.process())
    for number in range(HISTORY_MAX + 5):
        await them.set("geo", document(timeout=number + 1))
    kept = await them.history("geo")
    assert [one.version for one in kept] == list(range(HISTORY_MAX + 5, 5, -1))
    assert len(world.keys("routes-history/")) == HISTORY_MAX


async def test_bad_rules_are_refused_and_nothing_is_written(world: World) -> None:
    them = TrafficRules(world.process())
    with pytest.raises(RulesError, match=r"splits\[0\].weight"):
        await them.set("geo", document(splits=splits(v1=-5, v2=105)))
    subsets = {f"s{n}": {"metadata": {"a": "x" * 4000}} for n in range(20)}
    with pytest.raises(RulesError, match=r"takes .* bytes"):
        await them.set("geo", {"subsets": subsets})
    assert world.keys("routes") == []


async def test_of_two_who_expect_the_same_version_one_wins(world: World) -> None:
    ann, bob = TrafficRules(world.process()), TrafficRules(world.process())
    await ann.set("geo", document(), expect=0)
    with pytest.raises(ConflictError, match="version 1 stands, not 0"):
        await bob.set("geo", document(), expect=0)
    both = await asyncio.gather(
        ann.set("geo", document(timeout=1), expect=1),
        bob.set("geo", document(timeout=2), expect=1),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in both) == ["ConflictError", "RulesVersion"]


async def test_writers_that_expect_nothing_take_turns(world: World) -> None:
    them = [TrafficRules(world.process()) for _ in range(5)]
    written = await asyncio.gather(*(one.set("geo", document(timeout=n + 1)) for n, one in enumerate(them)))
    assert sorted(one.version for one in written) == [1, 2, 3, 4, 5]


async def test_splits_in_a_circle_are_refused_when_they_are_written(world: World) -> None:
    them = TrafficRules(world.process())

    def to(*services: str) -> ServiceRules:
        return ServiceRules(splits=[{"weight": 100, "service": service} for service in services])

    await them.set("a", to("b"))
    await them.set("b", to("c"))
    with pytest.raises(RulesError, match=r"splits\[0\].service leads back to where it was: c → a → b → c"):
        await them.set("c", to("a"))
    with pytest.raises(RulesError, match="leads back"):
        await them.set("c", to("c"))
    with pytest.raises(RulesError, match=r"match\[0\].service leads back"):
        await them.set("c", ServiceRules(match=[{"method": "m", "service": "b"}]))
    await them.set("c", ServiceRules(match=[{"method": "m", "service": "d"}]))


async def test_splits_through_more_than_eight_services_are_refused(world: World) -> None:
    them = TrafficRules(world.process())
    for number in range(8, 1, -1):
        await them.set(f"s{number}", ServiceRules(splits=[{"weight": 100, "service": f"s{number + 1}"}]))
    with pytest.raises(RulesError, match="through more than 8 services"):
        await them.set("s1", ServiceRules(splits=[{"weight": 100, "service": "s2"}]))


async def test_a_subset_of_another_service_must_be_there(world: World) -> None:
    them = TrafficRules(world.process())
    over = ServiceRules(failover={"*": [{"service": "maps", "subset": "v2"}]})
    with pytest.raises(
        RulesError, match=r"failover\['\*'\]\[0\].subset is 'v2', which the rules of 'maps' do not have"
    ):
        await them.set("geo", over)
    await them.set("maps", document())
    await them.set("geo", over)


async def test_a_subset_that_another_service_leads_to_is_not_taken_away(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("maps", {"subsets": {"v1": {}}})
    await them.set("maps", document())
    await them.set("geo", ServiceRules(splits=[{"weight": 100, "service": "maps", "subset": "v2"}]))
    told = r"subsets lack 'v2', to which the rules of 'geo' lead in splits\[0\].subset; change those first"
    for change in (them.set("maps", {"subsets": {"v1": {}}}), them.rollback("maps"), them.remove("maps")):
        with pytest.raises(RulesError, match=told):
            await change
    await them.set("geo", {})
    assert await them.remove("maps")


async def test_what_is_amiss_already_keeps_nobody_from_other_changes(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("maps", document())
    await them.set("geo", ServiceRules(splits=[{"weight": 100, "service": "maps", "subset": "v2"}]))
    world.store.commit([Delete("ns/routes/maps")], {})
    await them.set("maps", {"subsets": {"v1": {}}})
    assert await them.remove("maps")


async def test_a_rollback_leads_into_no_circle(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("a", ServiceRules(splits=[{"weight": 100, "service": "b"}]))
    await them.set("a", {})
    await them.set("b", ServiceRules(splits=[{"weight": 100, "service": "a"}]))
    with pytest.raises(RulesError, match="leads back"):
        await them.rollback("a")
    await them.set("b", {})
    assert (await them.rollback("a")).rules.splits[0].service == "b"


async def test_a_canary_is_rolled_back_whatever_others_lead_to_meanwhile(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("maps", document())
    await them.set("geo", document(match=[{"method": "m", "service": "maps", "subset": "v2"}]))
    await them.canary("geo", PLAN)
    world.store.commit([Delete("ns/routes/maps")], {})
    assert (await them.rollback("geo")).rules.default_subset == "v1"


@pytest.mark.parametrize("target", [{"service": "geo"}, {"service": "geo", "subset": "v2"}])
async def test_a_service_does_not_fail_over_to_itself(world: World, target: dict[str, str]) -> None:
    with pytest.raises(RulesError, match=r"failover\['v2'\]\[0\] goes where the calls come from"):
        await TrafficRules(world.process()).set("geo", document(failover={"v2": [target]}))


async def test_a_name_that_is_too_long_for_a_key_is_refused_where_it_stands(world: World) -> None:
    with pytest.raises(RulesError, match=r"splits\[0\].service is no name of a service"):
        await TrafficRules(world.process()).set("geo", {"splits": [{"weight": 100, "service": "ж" * 127}]})


async def test_a_rollback_goes_one_version_back_and_twice_two(world: World) -> None:
    them = TrafficRules(world.process())
    for seconds in (1, 2, 3):
        await them.set("geo", document(timeout=seconds))
    back = await them.rollback("geo")
    assert (back.rules.timeout, back.version, back.why) == (2, 4, "back to version 2")
    assert (await them.rollback("geo")).rules.timeout == 1
    with pytest.raises(ConflictError, match="an earlier version of the rules of 'geo' is not kept"):
        await them.rollback("geo")
    assert (await them.rollback("geo", to=3)).rules.timeout == 3
    with pytest.raises(ConflictError, match="version 99 of the rules of 'geo' is not kept; kept are 6, 5, 4"):
        await them.rollback("geo", to=99)


async def test_blue_and_green_are_flipped_in_one_step_and_back(world: World) -> None:
    them = TrafficRules(world.process())
    with pytest.raises(ConflictError, match="'geo' has no rules"):
        await them.blue_green("geo", "v2")
    await them.set("geo", document(splits=splits(v1=90, v2=10)))
    green = await them.blue_green("geo", "v2")
    assert (green.rules.default_subset, green.rules.splits) == ("v2", ())
    with pytest.raises(RulesError, match="default_subset is 'v9'"):
        await them.blue_green("geo", "v9")
    assert (await them.rollback("geo")).rules == rules(splits=splits(v1=90, v2=10))


async def test_removed_rules_come_back_by_a_rollback_with_a_higher_version(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document())
    assert await them.remove("geo")
    assert not await them.remove("geo")
    assert await them.get("geo") is None
    back = await them.rollback("geo")
    assert (back.version, back.rules) == (2, rules())


# Canaries as they are written; who moves them is in test_canary_controller


async def test_a_canary_begins_and_is_promoted_or_rolled_back_by_hand(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document())
    begun = await them.canary("geo", PLAN)
    assert begun.rules.document()["splits"] == splits(v1=95, v2=5)
    with pytest.raises(ConflictError, match="the canary 'v2' of 'geo' is under way"):
        await them.canary("geo", PLAN)
    with pytest.raises(ConflictError, match="is under way"):
        await them.blue_green("geo", "v2")
    back = await them.rollback("geo")
    assert back.canary is not None
    assert back.canary.phase is CanaryPhase.ROLLED_BACK
    assert back.rules == rules()
    with pytest.raises(ConflictError, match="no canary of 'geo' is under way"):
        await them.promote("geo")
    await them.canary("geo", PLAN)
    done = await them.promote("geo")
    assert (done.rules.default_subset, done.rules.splits) == ("v2", ())
    again = await them.rollback("geo")
    assert again.rules == rules()
    assert again.canary is None or not again.canary.running


async def test_rules_that_are_set_end_a_canary_and_its_beginning_is_never_taken_up_again(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document())
    await them.canary("geo", PLAN)
    last = await them.set("geo", document(timeout=1))
    assert (last.canary, last.previous) == (None, 1)
    back = await them.rollback("geo", to=2)
    assert back.canary is None


@pytest.mark.parametrize(
    ("fields", "plan", "field"),
    [
        ({}, evolve(PLAN, canary="v9"), "canary"),
        ({}, evolve(PLAN, stable="v9"), "stable"),
        ({"splits": splits(v1=50, v2=50)}, PLAN, "splits"),
        ({"default_subset": "v2"}, PLAN, "default_subset"),
    ],
)
async def test_a_canary_that_cannot_begin_is_refused(
    world: World, fields: dict[str, object], plan: CanaryPlan, field: str
) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document(**fields))
    with pytest.raises(RulesError) as told:
        await them.canary("geo", plan)
    assert told.value.field == field


# Following


async def test_a_document_leaves_room_for_the_steps_of_a_canary(world: World) -> None:
    """Else its rollback could not be written."""
    them = TrafficRules(world.process())
    large = {f"s{n}": {"metadata": {f"k{k:02}": "v" * 255 for k in range(32 if n else 10)}} for n in range(8)}
    await them.set("geo", rules(subsets={**SUBSETS, **large}))
    with pytest.raises(RulesError, match="4096 more are for the steps of the canary"):
        await them.canary("geo", PLAN)


async def test_arguments_that_cannot_be_are_refused_by_what_is_allowed(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document())
    for version in ("1", True, -1, 1.0):
        with pytest.raises(ConfigError, match="expect is the number of a version, 0 or more"):
            await them.set("geo", document(), expect=version)  # type: ignore[arg-type]
    for version in ("1", True, 0):
        with pytest.raises(ConfigError, match="to is the number of a version, 1 or more"):
            await them.rollback("geo", to=version)  # type: ignore[arg-type]
    with pytest.raises(RulesError, match="plan must be an object, not text"):
        await them.canary("geo", "v2")  # type: ignore[arg-type]
    with pytest.raises(RulesError, match=r"plan\.cannary is no field here; did you mean 'canary'"):
        await them.canary("geo", {"stable": "v1", "cannary": "v2"})
    with pytest.raises(ConfigError, match="metrics is a CanaryMetrics, with a method `sample`, not str"):
        CanaryController(world.process(), "http://prometheus:9090")  # type: ignore[arg-type]
    begun = await them.canary("geo", {"stable": "v1", "canary": "v2", "step": 10})
    assert begun.rules.document()["splits"] == splits(v1=90, v2=10)


async def test_those_who_route_follow_what_is_written(world: World) -> None:
    them = TrafficRules(world.process())
    async with TrafficRules(world.process()).view() as view:
        assert followed(view) == "geo"
        await them.set("geo", document())
        await view.until(lambda all_: "geo" in all_)
        assert followed(view) == "geo/v1"
        await them.blue_green("geo", "v2")
        await until(lambda: followed(view) == "geo/v2")
        assert view["geo"].version == 2
        assert list(view) == ["geo"]
        await them.remove("geo")
        await until(lambda: followed(view) == "geo")


BROKEN = [
    b"{",
    b"[]",
    b"\xff",
    b'{"version":1}',
    b'{"version":9,"rules":{"splits":[{"weight":7}]}}',
    b'{"version":1,"rules":{"x":1}}',
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_was_good_last_stays_when_a_bad_document_appears_with_the_reason(
    world: World, broken: bytes
) -> None:
    client = world.process()
    them = TrafficRules(client)
    await them.set("geo", document())
    other = world.process()
    async with TrafficRules(other).view() as view:
        other.backend.faults.outage("scan")  # the history cannot help
        put_raw(world, "routes/geo", broken)
        await until(lambda: view.problems)
        assert followed(view) == "geo/v1"
        with pytest.raises(RulesError) as told:
            await them.get("geo")
        assert view.problems == {"geo": str(told.value).removeprefix("geo: ")}
        async with TrafficRules(world.process()).view() as late:  # began while it stood: by the history
            await until(lambda: "geo" in late)
            assert followed(late) == "geo/v1"
        assert (await them.set("geo", document(default_subset="v2"))).version == 2
        await until(lambda: not view.problems)
        assert followed(view) == "geo/v2"


async def test_a_bad_document_of_one_service_harms_no_other(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("maps", document())
    put_raw(world, "routes/geo", b"{")
    put_raw(world, "routes/a/b", json.dumps({"version": 1, "rules": {}}).encode())
    async with them.view() as view:
        assert followed(view, "maps") == "geo/v1".replace("geo", "maps")
        assert followed(view) == "geo"
        assert list(view.problems) == ["geo"]


async def test_a_newer_writer_may_add_fields_beside_the_rules_but_not_in_them(world: World) -> None:
    record = {"version": 3, "rules": document(), "colour": "red"}
    put_raw(world, "routes/geo", json.dumps(record).encode())
    version = await TrafficRules(world.process()).get("geo")
    assert version is not None
    assert version.version == 3


async def test_the_last_rules_are_followed_while_the_store_is_away(world: World) -> None:
    client = world.process()
    await TrafficRules(world.process()).set("geo", document())
    async with TrafficRules(client).view() as view:
        world.kill(client)
        await until(lambda: view.stale, 60)
        assert followed(view) == "geo/v1"


async def test_an_unknown_outcome_is_told_as_that(world: World) -> None:
    client = world.process()
    them = TrafficRules(client)
    await them.set("geo", document())
    client.backend.faults.drop_answer("commit")
    with pytest.raises(IndeterminateError):
        await them.set("geo", document(timeout=1))


async def test_hostile_names_are_just_names(world: World) -> None:
    them = TrafficRules(world.process())
    for name in ["..", "a//b", "a b", "é", "%2F", "geo/../x"]:
        await them.set(name, document())
        assert [one.version for one in await them.history(name)] == [1]
    async with them.view() as view:
        assert len(view) == 6
