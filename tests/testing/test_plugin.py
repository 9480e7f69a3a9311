"""The pytest plugin, as users have it: alone, and beside the other plugins that run async tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest import Pytester, RunResult  # noqa: PT013

QUICK = ["-W", "error", "-p", "no:hypothesispytest"]
ASYNCIO = ["-o", "asyncio_default_fixture_loop_scope=function", "-o"]
NEIGHBOURS = {
    "alone": ["-p", "no:asyncio", "-p", "no:anyio"],
    "asyncio strict": ["-p", "no:anyio", *ASYNCIO, "asyncio_mode=strict"],
    "asyncio auto": ["-p", "no:anyio", *ASYNCIO, "asyncio_mode=auto"],
    "anyio": ["-p", "no:asyncio"],
    "anyio auto": ["-p", "no:asyncio", "-o", "anyio_mode=auto"],
    "all": [*ASYNCIO, "asyncio_mode=auto"],
}

OURS = """
    import asyncio
    import pytest

    def virtual():
        return type(asyncio.get_running_loop()).__name__ == "VirtualLoop"

    @pytest.fixture
    async def value(osdisco_client):
        await osdisco_client.put("key", b"1")
        return b"1"

    @pytest.fixture
    async def loop_of_fixture():
        async with asyncio.timeout(60):
            yield asyncio.get_running_loop()

    async def test_client(osdisco_client, value, loop_of_fixture):
        assert (await osdisco_client.get("key")).value == value
        assert loop_of_fixture is asyncio.get_running_loop()
        assert virtual()

    async def test_clock(osdisco_clock):
        start = osdisco_clock.now()
        await asyncio.sleep(3600)
        assert osdisco_clock.now() - start == 3600

    @pytest.mark.osdisco
    async def test_real_time():
        assert not virtual()
    """


def run(pytester: Pytester, *arguments: str, code: str = OURS) -> RunResult:
    """Run a file of tests in a process of its own, warnings being errors."""
    pytester.makepyfile(code)
    return pytester.runpytest_subprocess(*QUICK, *arguments)


def run_alone(pytester: Pytester, code: str, *arguments: str) -> RunResult:
    """Run a file of tests with our plugin only; here, because that is faster."""
    pytester.makepyfile(code)
    return pytester.runpytest_inprocess(*QUICK, *NEIGHBOURS["alone"], *arguments)


@pytest.mark.parametrize("neighbours", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_our_tests_run_in_their_loop_whoever_else_is_there(pytester: Pytester, neighbours: list[str]) -> None:
    run(pytester, *neighbours).assert_outcomes(passed=3)


def test_tests_of_pytest_asyncio_stay_its_own(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest, pytest_asyncio

        @pytest_asyncio.fixture
        async def theirs():
            return asyncio.get_running_loop()

        @pytest.mark.asyncio
        async def test_theirs(theirs, request):
            assert theirs is asyncio.get_running_loop()
            assert "_function_scoped_runner" in request.fixturenames

        @pytest.mark.asyncio
        async def test_taken(osdisco_client, theirs, request):
            assert theirs is asyncio.get_running_loop()
            assert type(theirs).__name__ == "VirtualLoop"
        """
    run(pytester, *NEIGHBOURS["asyncio strict"], code=code).assert_outcomes(passed=2)


def test_tests_of_anyio_stay_its_own(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def theirs(anyio_backend):
            return asyncio.get_running_loop()

        @pytest.mark.anyio
        async def test_theirs(theirs):
            assert theirs is asyncio.get_running_loop()

        async def test_ours(osdisco_client):
            await osdisco_client.put("key", b"1")
        """
    run(pytester, "-p", "no:asyncio", code=code).assert_outcomes(passed=2)


def test_other_async_tests_are_left_alone(pytester: Pytester) -> None:
    result = run_alone(pytester, "async def test_other(): pass")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_the_setting_takes_all_async_tests(pytester: Pytester) -> None:
    result = run_alone(pytester, "async def test_other(): pass", "-o", "osdisco_run_all=true")
    result.assert_outcomes(passed=1)


def test_a_conformance_suite_needs_no_marker(pytester: Pytester) -> None:
    code = """
        import pytest
        from osdisco.testing import BackendSuite, UrlHarness

        class TestMine(BackendSuite):
            @pytest.fixture
            def harness(self, osdisco_url, osdisco_clock): return UrlHarness(osdisco_url, clock=osdisco_clock)
        """
    outcomes = run_alone(pytester, code).parseoutcomes()
    assert outcomes.keys() == {"passed"}
    assert outcomes["passed"] > 30


def test_methods_hypothesis_and_class_fixtures_run(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest
        from hypothesis import given, strategies

        class TestClass:
            @pytest.fixture
            async def own(self):
                self.mark = 1
                yield self

            async def test_method(self, own, osdisco_clock):
                assert own is self and self.mark == 1

        @pytest.mark.osdisco
        @given(strategies.integers())
        async def test_property(number):
            await asyncio.sleep(0)
            assert isinstance(number, int)
        """
    run_alone(pytester, code).assert_outcomes(passed=2)


def test_a_task_left_behind_fails_the_test_and_is_named(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest

        @pytest.mark.osdisco
        async def test_leaves_one():
            asyncio.create_task(asyncio.sleep(60), name="forgotten")

        @pytest.mark.osdisco
        async def test_ends_its_own():
            asyncio.create_task(asyncio.sleep(0.01))
        """
    result = run_alone(pytester, code)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*1 task(s) or connection(s) left behind*", "*forgotten: sleep at *"])


@pytest.mark.parametrize("fixture", ["osdisco_clock", "osdisco_client"])
def test_a_test_that_spins_ends_with_its_time(pytester: Pytester, fixture: str) -> None:
    code = f"""
        import asyncio

        async def spin():
            while True:
                try:
                    await asyncio.sleep(0)
                except GeneratorExit:
                    raise
                except BaseException:
                    pass

        async def test_spins({fixture}):
            async with asyncio.TaskGroup() as group:
                group.create_task(spin())

        async def test_next({fixture}): pass
        """
    result = run(pytester, *NEIGHBOURS["alone"], "-o", "timeout=3", code=code)
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["passed"]) == (1, 1)
    result.stdout.fnmatch_lines(["*Timeout (>3.0s) from pytest-timeout*"])


def test_a_connection_left_open_fails_the_test_and_one_that_is_closing_does_not(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest

        @pytest.fixture
        async def address():
            async def echo(reader, writer):
                await reader.read()
                writer.close()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            yield server.sockets[0].getsockname()
            server.close()  # from Python 3.12 on its `async with` would wait for the connection that is forgotten

        @pytest.mark.osdisco
        async def test_closes(address):
            _, writer = await asyncio.open_connection(*address)
            asyncio.get_running_loop().call_later(0.1, writer.close)

        @pytest.mark.osdisco
        async def test_forgets(address):
            global writer
            _, writer = await asyncio.open_connection(*address)
        """
    result = run(pytester, *NEIGHBOURS["alone"], "-W", "ignore::ResourceWarning", code=code)  # its warning comes late
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_forgets*", "*connection ('127.0.0.1', *) to ('127.0.0.1'*"]
    )


def test_a_task_left_behind_by_a_fixture_is_an_error_after_the_fixture(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest

        @pytest.fixture
        async def owner():
            task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
            yield
            await asyncio.sleep(0)

        async def test_leaves_one(owner, osdisco_clock): pass
        """
    result = run_alone(pytester, code)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*forgotten*"])


def test_a_failure_is_told_once_though_its_tasks_are_left(pytester: Pytester) -> None:
    code = """
        import asyncio, pytest

        @pytest.mark.osdisco
        async def test_fails():
            asyncio.create_task(asyncio.sleep(60))
            assert False
        """
    result = run_alone(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*left behind*")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("yield 1; yield 2", "yields more than once"),
        ("if False: yield", "does not yield"),
        ("yield 1; raise ValueError('at its end')", "at its end"),
    ],
)
def test_a_broken_fixture_is_an_error_in_words(pytester: Pytester, body: str, said: str) -> None:
    code = f"""
        import pytest

        @pytest.fixture
        async def broken():
            {body}

        async def test_uses_it(broken, osdisco_clock): pass
        """
    result = run_alone(pytester, code)
    assert result.parseoutcomes()["errors"] == 1
    result.stdout.fnmatch_lines([f"*{said}*"])


def test_a_plain_test_is_told_that_the_client_needs_an_async_one(pytester: Pytester) -> None:
    result = run_alone(pytester, "def test_plain(osdisco_client): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*works in `async def` tests*"])


def test_the_marker_gives_each_store_and_knows_no_others(pytester: Pytester) -> None:
    code = """
        import pytest

        @pytest.mark.osdisco("memory", "zookeeper")
        async def test_url(osdisco_url):
            assert osdisco_url.startswith("memory://test-")
        """
    result = run_alone(pytester, code)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*'zookeeper' is no store to test on; known are memory, etcd,*"])


def test_virtual_time_and_a_real_server_exclude_each_other(pytester: Pytester) -> None:
    code = """
        import pytest

        @pytest.mark.osdisco("etcd")
        async def test_mixed(osdisco_url, osdisco_clock): pass
        """
    result = run_alone(pytester, code)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*etcd is a real server and osdisco_clock is virtual time*"])


def test_a_failure_under_a_seed_prints_it_and_it_gives_the_same_order_again(pytester: Pytester) -> None:
    code = """
        import asyncio

        async def test_order(osdisco_clock):
            order = []
            async def step(number): order.append(number)
            async with asyncio.TaskGroup() as group:
                for number in range(20): group.create_task(step(number))
            print("ORDER", order)
            assert order == sorted(order)
        """
    run_alone(pytester, code).assert_outcomes(passed=1)
    first = run_alone(pytester, code, "--osdisco-seed=random")
    first.assert_outcomes(failed=1)
    option = next(line for line in first.outlines if "--osdisco-seed=" in line).rpartition(" ")[2]
    again = run_alone(pytester, code, option)
    assert order(again) == order(first)


def order(result: RunResult) -> str:
    """Return the printed order of steps."""
    return next(line for line in result.outlines if line.startswith("ORDER"))


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    code = """if True:
        import sys, pytest
        before = set(sys.modules)
        import osdisco.testing.plugin
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
        """
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["osdisco"]
