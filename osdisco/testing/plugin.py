"""The pytest plugin: runs async tests that use osdisco, in virtual time where it can, and gives them their fixtures.

Every pytest run of whoever has osdisco loads it, so it imports nothing heavy. (That is also why `import osdisco` loads
its names late: it would bring asyncio and attrs along.)

It runs an `async def` test when the test uses one of its fixtures or the marker `osdisco`, or is part of a
`BackendSuite`; all other async tests are left to pytest-asyncio, anyio or whoever else is there. Async fixtures of
function scope run in the loop of the test; a wider scope needs a plain fixture.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from osdisco.client import Client
    from osdisco.testing._runner import TestRunner
    from osdisco.testing._seeds import Seeds
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.servers import Servers
    from osdisco.testing.simulation import Scenario

_VIRTUAL = {"osdisco_client", "osdisco_clock"}
_FIXTURES = _VIRTUAL | {"osdisco_url"}
_RUNNER = pytest.StashKey["TestRunner"]()
_SEED = pytest.StashKey[int | None]()
_SEEDS: pytest.StashKey[Seeds] = pytest.StashKey()
_SIMULATED = "osdisco simulated"
_MISSING = re.compile(r"Skipped: (no \w+ (?:server|cluster): .*)", re.DOTALL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    parser.addini("osdisco_run_all", "run all async tests with osdisco's plugin", type="bool", default=False)
    group = parser.getgroup("osdisco")
    group.addoption(
        "--osdisco-seed",
        type=_seed,
        metavar="N|random",
        help="run what is ready together in virtual time in another order, and simulations with this seed alone; "
        "`random` is another one for each test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "osdisco(*stores): run by osdisco's plugin; osdisco_url is given once for each store of "
        "memory, etcd, etcd+http, consul, etcds, etcd+https, consul+https",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `osdisco_url` the stores of the marker."""
    marker = metafunc.definition.get_closest_marker("osdisco")
    if marker and marker.args and "osdisco_url" in metafunc.fixturenames:
        metafunc.parametrize("osdisco_url", marker.args, indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take our tests back from plugins that run every async test by a class of their own (pytest-asyncio's auto)."""
    if isinstance(item, pytest.Function) and type(item) is not pytest.Function and _is_ours(item):
        item.setup = partial(pytest.Function.setup, item)  # type: ignore[method-assign]
        item.runtest = partial(pytest.Function.runtest, item)  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Make the event loop before the fixtures."""
    if isinstance(item, pytest.Function) and _is_ours(item):
        from osdisco.testing._runner import TestRunner

        item.stash[_SEED] = _seed_of(item)
        item.stash[_RUNNER] = TestRunner(virtual=_is_virtual(item), seed=item.stash[_SEED])
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Run async fixtures of our tests in the loop of the test."""
    runner = request.node.stash.get(_RUNNER, None)
    function = fixturedef.func
    if runner is None or not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixturedef, "func", _synchronous(_bound(function, request.instance), runner))
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Put a plain function in the place of the async one: other plugins then see nothing of theirs in it."""
    runner = pyfuncitem.stash.get(_RUNNER, None)
    if runner is None:
        return (yield)
    hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    owner, name = (hypothesis, "inner_test") if hypothesis else (pyfuncitem, "obj")
    test = getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, lambda *args, **kwargs: runner.run_body(test(*args, **kwargs)))
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Close the event loop after the fixtures; tasks that they left behind are an error."""
    runner = item.stash.get(_RUNNER, None)
    if runner is None:
        return (yield)
    try:
        result = yield
        runner.check_clean()
        return result
    finally:
        runner.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed with a failure, and forget the event loop after the last phase."""
    report = yield
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        report.sections.append(("osdisco", f"run again in the same order by --osdisco-seed={seed}"))
    if report.when == "teardown" and _RUNNER in item.stash:
        del item.stash[_RUNNER]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell which seeds were simulated, and name what was not tested for want of a server."""
    reports = chain.from_iterable(terminalreporter.stats.get(outcome, ()) for outcome in ("passed", "failed"))
    told = [told for report in reports for name, told in report.user_properties if name == _SIMULATED]
    if told:
        terminalreporter.section("simulated")
        for line in told:
            terminalreporter.line(line)
    _tell_missing(terminalreporter)


def _tell_missing(terminalreporter: pytest.TerminalReporter) -> None:
    missing: dict[str, Counter[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if match := _MISSING.match(said):
            missing.setdefault(match[1], Counter())[report.nodeid.partition("::")[0]] += 1
    if not missing:
        return
    terminalreporter.section("not tested, because there is no server")
    for said, files in missing.items():
        terminalreporter.line(said)
        for file, count in sorted(files.items()):
            terminalreporter.line(f"    {file}: {count} test{'s' if count > 1 else ''}")
    terminalreporter.line(
        "Start Docker, or put etcd and consul on PATH or into a folder that OSDISCO_TEST_SERVERS names, "
        "or set OSDISCO_TEST_ETCD_URL and the others that osdisco.testing.servers lists."
    )


@pytest.fixture
def osdisco_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """Return the clock of the test's virtual time; timers and deadlines of the test run on it."""
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.loop import VirtualLoop

    loop = _runner_of(request).loop
    assert isinstance(loop, VirtualLoop), "osdisco_clock must stand among the arguments: it decides on the event loop"
    return VirtualClock(loop)


@pytest.fixture
def osdisco_client(request: pytest.FixtureRequest, osdisco_clock: VirtualClock) -> Iterator[Client]:
    """Yield a client on a memory store of its own, in virtual time."""
    # not an async fixture itself: pytest-asyncio warns of those that are not its own
    yield from _runner_of(request).hold(_memory_client(osdisco_clock))


@pytest.fixture
def osdisco_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a store with a namespace that nothing else uses: memory, or what the marker names."""
    store = getattr(request, "param", "memory")
    if store == "memory":
        yield _memory_url()
        return
    if not _VIRTUAL.isdisjoint(request.fixturenames):
        pytest.fail(f"{store} is a real server and osdisco_clock is virtual time: use one of them", pytrace=False)
    servers: Servers = request.getfixturevalue("osdisco_servers")
    url = servers.url(store)
    yield url
    if servers.foreign(store):
        from osdisco.testing.servers import clear

        _runner_of(request).run(clear(url))


@pytest.fixture
def osdisco_simulate(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[Scenario], None]:
    """Return a function that runs a scenario by many seeds, other ones in each run, on all cores.

    `OSDISCO_TEST_SEEDS` says how many (200); `--osdisco-seed=N` runs that one alone, in this process.
    """
    from osdisco.testing._seeds import Seeds

    seeds = request.config.stash.setdefault(_SEEDS, Seeds())
    only = request.config.getoption("--osdisco-seed")
    # a property of the test, so that it arrives wherever the test runs (pytest-xdist)
    return partial(seeds.run, node=request.node.nodeid, only=only, tell=partial(record_property, _SIMULATED))


@pytest.fixture(scope="session")
def osdisco_servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Yield the real servers, each started at its first use and shared until the end of the run."""
    from osdisco.testing.servers import Servers

    with Servers() as servers:
        yield servers


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)


def _seed_of(item: pytest.Item) -> int | None:
    seed: int | str | None = item.config.getoption("--osdisco-seed")
    if seed == "random":
        from secrets import randbits

        return randbits(32)
    return seed if isinstance(seed, int) else None


def _memory_url() -> str:
    from uuid import uuid4

    return f"memory://test-{uuid4().hex}"


async def _memory_client(clock: VirtualClock) -> AsyncGenerator[Client, None]:
    import osdisco

    async with osdisco.connect(_memory_url(), clock=clock) as client:
        yield client


def _runner_of(request: pytest.FixtureRequest) -> TestRunner:
    runner: TestRunner | None = request.node.stash.get(_RUNNER, None)
    if runner is None:
        pytest.fail(f"{request.fixturename} works in `async def` tests only", pytrace=False)
    return runner


def _is_ours(item: pytest.Function) -> bool:
    hypothesis = getattr(item.obj, "hypothesis", None)
    if not inspect.iscoroutinefunction(hypothesis.inner_test if hypothesis else item.obj):
        return False
    return bool(
        not _FIXTURES.isdisjoint(item.fixturenames)
        or item.get_closest_marker("osdisco")
        or item.config.getini("osdisco_run_all")
        or _is_suite(item.cls)
    )


def _is_suite(cls: type | None) -> bool:
    conformance = sys.modules.get("osdisco.testing.conformance")  # who subclasses it has imported it
    return cls is not None and conformance is not None and issubclass(cls, conformance.BackendSuite)


def _is_virtual(item: pytest.Function) -> bool:
    callspec = getattr(item, "callspec", None)
    store = callspec.params.get("osdisco_url", "memory") if callspec else "memory"
    in_memory = "osdisco_url" in item.fixturenames and store == "memory"
    return in_memory or not _VIRTUAL.isdisjoint(item.fixturenames)


def _bound(function: Callable[..., Any], instance: object) -> Callable[..., Any]:
    """Bind a fixture that is a method to the instance that the test runs on: pytest makes a new one for each test."""
    if instance is not None and inspect.ismethod(function) and isinstance(instance, type(function.__self__)):
        return function.__func__.__get__(instance)  # type: ignore[no-any-return]
    return function


def _synchronous(function: Callable[..., Any], runner: TestRunner) -> Callable[..., Any]:
    """Return a plain fixture function that does what the async one does, in the runner's loop."""
    if inspect.iscoroutinefunction(function):
        return lambda **kwargs: runner.run(function(**kwargs))

    def generator(**kwargs: Any) -> Iterator[Any]:
        yield from runner.hold(function(**kwargs))

    return generator
