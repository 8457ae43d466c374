import pytest
from tests.integration.test_cli_kit import run

from canister.cli.sizing import LONGEST_JOIN, MEASURED, MOST_BUSY, Site, advise, plan_mesh, plan_redis

pytestmark = pytest.mark.integration

SMALL = Site(nodes=3, sessions=10_000, writes_per_second=20, value_size=500)


def words(site: Site) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in site._asdict().items()]


def test_the_table_has_both_engines_and_a_choice() -> None:
    text = run("plan", *words(SMALL)).out
    assert "mesh           each of 3 nodes" in text
    assert "Redis Cluster  each of 6 servers" in text
    assert "choose      the mesh" in text


def test_json_has_what_the_model_says() -> None:
    found = run("plan", *words(SMALL), "--json").json
    mesh, redis = plan_mesh(SMALL), plan_redis(SMALL)
    assert found["mesh"] == {"node": mesh.node._asdict(), "join": mesh.join}
    assert found["redis"]["masters"] == 3
    assert found["redis"]["server"] == redis.server._asdict()
    assert (found["choice"], found["reasons"]) == ("mesh", advise(SMALL).reasons)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nodes": 31}, "31 nodes are more than 30"),
        ({"nodes": 400}, "300 members at most"),
        ({"writes_per_second": 50_000}, "of a core"),
        ({"sessions": 100_000_000}, "minutes to join"),
        ({"sessions": 20_000_000, "value_size": 2_000}, "page cache"),
        ({"nodes": 30, "writes_per_second": 2_000, "value_size": 10_000}, "MB/s"),
    ],
)
def test_each_limit_is_a_reason_to_leave_the_mesh(change: dict[str, int], reason: str) -> None:
    advice = advise(SMALL._replace(**change))
    assert advice.choice == "redis"
    assert any(reason in said for said in advice.reasons), advice.reasons
    assert advice.reasons[0] in run("plan", *words(SMALL._replace(**change))).out


def test_limits_are_crossed_where_they_are() -> None:
    """Just within a limit the mesh is chosen, just beyond it is not."""
    rate = next(
        n for n in range(10, 10**6, 10) if plan_mesh(SMALL._replace(writes_per_second=n)).agent > MOST_BUSY
    )
    assert advise(SMALL._replace(writes_per_second=rate - 10)).choice == "mesh"
    assert advise(SMALL._replace(writes_per_second=rate)).choice == "redis"
    most = int(LONGEST_JOIN / MEASURED["mesh.join.session"].value * 1e6)
    assert not any("join" in reason for reason in advise(SMALL._replace(sessions=most)).reasons)
    assert any("join" in reason for reason in advise(SMALL._replace(sessions=most + 10_000)).reasons)


def test_more_of_anything_takes_more() -> None:
    """Every share grows with what it is said to grow with, and a node alone has no traffic."""
    for change in ({"sessions": 20_000}, {"writes_per_second": 40}, {"value_size": 1000}, {"nodes": 6}):
        more, less = plan_mesh(SMALL._replace(**change)).node, plan_mesh(SMALL).node
        assert more != less
        assert more.memory >= less.memory
        assert more.disk >= less.disk
        assert more.network >= less.network
    assert plan_mesh(SMALL._replace(nodes=1)).node.network == 0


def test_a_redis_cluster_grows_by_masters() -> None:
    large = SMALL._replace(sessions=200_000_000)
    assert plan_redis(large).masters > 3
    assert plan_redis(large).server.memory < 17e9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nodes": 0}, "--nodes: a number from 1 to"),
        ({"nodes": "two"}, "--nodes: a whole number is needed, not 'two'"),
        ({"sessions": -1}, "--sessions: a number from 0 to"),
        ({"writes_per_second": "nan"}, "--writes-per-second: a number from 0 to"),
        ({"writes_per_second": "often"}, "--writes-per-second: a number is needed, not 'often'"),
        ({"value_size": 2 * 1024 * 1024}, "--value-size: a number from 0 to 1048576 is needed"),
    ],
)
def test_wrong_numbers_are_said(wrong: dict[str, object], said: str) -> None:
    given = {**SMALL._asdict(), **wrong}
    assert said in run("plan", *[f"--{n.replace('_', '-')}={v}" for n, v in given.items()], code=2).err


def test_all_four_numbers_are_needed() -> None:
    assert "--value-size" in run("plan", *words(SMALL)[:-1], code=2).err
