"""The verdict: whether it names a bottleneck that was planted, and whether turning its knob does what it says."""

import asyncio
import random
import re
from dataclasses import dataclass
from urllib.request import urlopen

from asyncline.client import AsyncClient
from asyncline.errors import RequestError
from loadtest.child import Child
from loadtest.pairs import Spread
from loadtest.report import BenchmarkFailed, Budget, Report, Row

LOADS = {"light": 0.1, "full": 1.0, "over": 1.5}
"""Requests/s as a share of what the graph can do."""
WARM_UP_S = 1.0
SECONDS = 6
MOST_S = 5.0
"""How long a client waits for its answer."""
CONNECTIONS = 200
"""Fewer than a server takes from one address, so that the verdict can be asked for as well."""
BUDGET = Budget("≥", 0.9)
WHAT = "planted bottlenecks that the verdict names with class and knob"
WHAT_EFFECT = "requests/s after turning the knob, against those that the verdict promised"
_SETTING, _PROMISE = re.compile(r"set (\S+=\w+)"), re.compile(r"for up to ([\d,.]+) requests/s")


@dataclass(frozen=True)
class Plant:
    """A graph of `verdict_graph` in which one thing is made slow."""

    graph: str
    settings: tuple[str, ...]
    capacity: float
    """Requests/s that it can do, about."""
    names: str
    """What the sentence has to begin with, after `bottleneck: `: the Op and its hook, or the door."""
    kind: str
    knob: str
    """A pattern of what it has to advise."""
    light_knob: str = ""
    """A pattern of what is right at light load, too."""
    tries: bool = True
    """Whether its effect does not depend on how many cores are idle."""


PLANTS = {
    "slow preprocess": Plant(
        "slow_preprocess", ("dag.cpu_workers=1",), 45, "op 'prepare' preprocess", "CPU-bound",
        # The machine may have no core for another worker; then it has to say so.
        r"set dag.cpu_workers=2|cores are busy.*make preprocess cheaper", tries=False,
    ),
    "slow model": Plant("slow_model", (), 100, "op 'net' process", "device-bound", r"set op.net.batch_size=8"),
    "slow samples": Plant(
        "slow_samples", (), 100, "op 'net' process", "device-bound",
        r"set op.net.concurrency=2|cores are busy.*smaller model",
        # Who has seen only batches of one cannot know.
        light_knob="set op.net.batch_size=8",
    ),
    "slow download": Plant("slow_download", (), 160, "op 'get' preprocess", "I/O-bound", r"set op.get.concurrency=128"),
    "blocked loop": Plant("blocked_loop", (), 90, "op 'merge' preprocess", "loop-bound", r"set op.merge.cpu=thread"),
    "small queue": Plant(
        "plain", ("service.max_in_flight=4",), 350, "the door", "queue-bound", r"set service.max_in_flight=\d+",
    ),
    "two slow ops": Plant(
        "two_slow", ("op.get.concurrency=32",), 80, "op 'get' preprocess", "I/O-bound", r"set op.get.concurrency=64"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What became of a plant under a load."""

    plant: Plant
    load: str
    sentence: str
    answered_per_s: float

    @property
    def is_right(self) -> bool:
        """The sentence names the thing, its class and its knob.

        At light load nothing is a bottleneck, and it has to name what will be one first in the same words.
        """
        plant = self.plant
        knobs = [plant.knob, *([plant.light_knob] if self.load == "light" and plant.light_knob else [])]
        says = rf"^bottleneck: (none yet: )?{re.escape(plant.names)} (is|will be) {plant.kind}.*({'|'.join(knobs)})"
        return re.search(says, self.sentence) is not None

    @property
    def advice(self) -> tuple[str, float] | None:
        """The setting, and the requests/s that it promises."""
        setting, promise = _SETTING.search(self.sentence), _PROMISE.search(self.sentence)
        return None if setting is None or promise is None else (setting[1], float(promise[1].replace(",", "")))


def run(plant: Plant, load: str) -> Case:
    """Serve `plant` for some seconds under a load."""
    return Case(plant, load, *_serve(plant, LOADS[load] * plant.capacity))


def tried(plant: Plant, setting: str, promised: float) -> float:
    """Requests/s of `plant` with the setting, of a few more than were promised."""
    return _serve(plant, 1.1 * promised, setting)[1]


def _serve(plant: Plant, per_s: float, *settings: str) -> tuple[str, float]:
    """The verdict, and requests/s that were answered, where they come by chance, `per_s` on average."""
    changed = [f"--set={setting}" for setting in (*plant.settings, *settings)]
    app = f"loadtest.verdict_graph:{plant.graph}"
    with Child("asyncline", "serve", app, "--http-port", "0", *changed) as child:
        return asyncio.run(_load(child.address(), per_s))


async def _load(address: str, per_s: float) -> tuple[str, float]:
    chance = random.Random(7)
    loop = asyncio.get_running_loop()
    answered = 0

    async def ask(client: AsyncClient) -> None:
        nonlocal answered
        try:
            await client("planted", 1)
        except RequestError:
            return  # refused, or too late: what is over the capacity has to be
        answered += 1

    async with AsyncClient(address, retries=0, timeout=MOST_S, connections=CONNECTIONS) as client:
        due_at = began_at = loop.time()
        before = 0
        async with asyncio.TaskGroup() as asking:
            while due_at < began_at + WARM_UP_S + SECONDS:
                if due_at < began_at + WARM_UP_S:
                    before = answered
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                asking.create_task(ask(client))
                due_at += chance.expovariate(per_s)
            rate = (answered - before) / (loop.time() - began_at - WARM_UP_S)
            sentence = await asyncio.to_thread(_read, f"{address}/verdict?seconds={SECONDS - 1}")
    return sentence, rate


def _read(url: str) -> str:
    try:
        with urlopen(url, timeout=10) as answer:
            found: bytes = answer.read()
    except OSError as error:
        raise BenchmarkFailed(f"{url}: {error}") from error
    return found.decode().strip()


def measure() -> Report:
    """Each plant once under each load, then once with what the verdict advised."""
    right, notes, rows = [], [], []
    for name, plant in PLANTS.items():
        cases = {load: run(plant, load) for load in LOADS}
        right += [case.is_right for case in cases.values()]
        notes += [f"{name}, {load} load: {case.sentence}" for load, case in cases.items() if not case.is_right]
        advice = cases["over"].advice
        if plant.tries and advice is not None:
            setting, promised = advice
            got = tried(plant, setting, promised)
            what = f"{WHAT_EFFECT}: {name}, {setting}"
            rows.append(Row(what, "requests/s", Spread.of([got]), Spread.of([promised]), Spread.of([got / promised])))
    notes.insert(0, f"verdict: {len(PLANTS)} plants at {', '.join(LOADS)} load, {SECONDS} s each.")
    share = Spread.of([sum(right) / len(right)])
    return Report([Row(f"{WHAT}, of {len(right)}", ours=share, budget=BUDGET), *rows], notes)
