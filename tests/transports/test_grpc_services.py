"""Health and reflection, by the stubs of grpcio's packages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from asyncline import Graph, Request, op
from tests.serving import serving
from tests.transports import grpc_door

grpc = pytest.importorskip("grpc")
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")

SERVICES = {
    "test": "inference.GRPCInferenceService",
    "health": "grpc.health.v1.Health",
    "v1": "grpc.reflection.v1.ServerReflection",
    "v1alpha": "grpc.reflection.v1alpha.ServerReflection",
}


def echoes() -> Graph:
    return Graph("test", op(cpu="inline")(lambda value: value)(Request()))


def request(service: str = "") -> Any:
    return health_pb2.HealthCheckRequest(service=service)


# -- health ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "test", *SERVICES.values()])
async def test_the_server_its_graph_and_its_services_serve(service: str) -> None:
    async with grpc_door.serving(echoes()) as door, door.channel() as channel:
        assert (await health_pb2_grpc.HealthStub(channel).Check(request(service))).status == 1


async def test_a_service_that_is_not_there_is_not_found_and_watched_all_the_same() -> None:
    async with grpc_door.serving(echoes()) as door, door.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            await health.Check(request("nope"))
        assert caught.value.code().name == "NOT_FOUND"
        watch = health.Watch(request("nope"))
        assert (await watch.read()).status == 3
        watch.cancel()


async def test_who_watches_hears_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncline.transports.grpc import health as module

    monkeypatch.setattr(module, "WATCH_S", 0.01)
    async with grpc_door.serving(echoes()) as door, door.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(request())
        assert (await watch.read()).status == 1
        door.engine.state = "draining"
        assert (await watch.read()).status == 2
        assert (await health.Check(request())).status == 2
        door.engine.state = "ready"
        assert (await watch.read()).status == 1
        watch.cancel()


# -- reflection -----------------------------------------------------------------------------------------


async def test_services_and_their_files_are_told() -> None:
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    def ask(place: str) -> None:
        with grpc.insecure_channel(place) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert list(database.get_services()) == list(SERVICES.values())
            pool = DescriptorPool(database)
            infer = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ModelInfer")
            assert infer.input_type.fields_by_name["inputs"].message_type.name == "InferInputTensor"
            alpha = pool.FindServiceByName(SERVICES["v1alpha"])
            assert alpha.methods[0].input_type.full_name == "grpc.reflection.v1alpha.ServerReflectionRequest"
            assert pool.FindMessageTypeByName("inference.ModelInferRequest.InferInputTensor").fields
            assert pool.FindFileByName("health.proto").package == "grpc.health.v1"
            with pytest.raises(KeyError):
                pool.FindMessageTypeByName("inference.Nope")

    async with grpc_door.serving(echoes()) as door:
        await asyncio.to_thread(ask, door.place)


async def test_both_versions_answer_on_one_stream() -> None:
    from grpc_reflection.v1alpha import reflection_pb2

    async with grpc_door.serving(echoes()) as door, door.channel() as channel:
        for version in ("v1", "v1alpha"):
            ask = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                reflection_pb2.ServerReflectionRequest.SerializeToString,
                reflection_pb2.ServerReflectionResponse.FromString,
            )()
            await ask.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="nope"))
            assert (await ask.read()).error_response.error_code == 5
            await ask.write(reflection_pb2.ServerReflectionRequest())
            assert (await ask.read()).error_response.error_code == 3
            await ask.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
            assert len((await ask.read()).list_services_response.service) == 4
            await ask.done_writing()


# -- beside other libraries -----------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_client_library_may_be_imported_in_the_same_process(ours_first: bool) -> None:
    pytest.importorskip("tritonclient.grpc")
    ours = "import asyncline.transports.grpc.inference, asyncline.transports.grpc.transport"
    theirs = "import tritonclient.grpc, grpc_health.v1.health_pb2, grpc_reflection.v1alpha.reflection_pb2"
    code = "; ".join([ours, theirs] if ours_first else [theirs, ours])
    use = (
        "from asyncline.wire.oip.schema import message; from asyncline.wire.grpc import health; "
        "message('ModelInferRequest')(); health.encode_response(1)"
    )
    subprocess.run([sys.executable, "-c", f"{code}; {use}"], check=True, timeout=50)


# -- as served ------------------------------------------------------------------------------------------


def test_a_supervised_server_that_fails_refuses_no_grpc_client() -> None:
    with serving("good:mortal", "--supervise", "--grpc-port", "0", "--tcp-port", "0") as server:
        place = server.wait_for(r"and on grpc://(\S+)")[1]
        with pytest.raises(OSError):
            server.post("/mortal", 70)
        with grpc.insecure_channel(place) as channel:  # a new one: no server is there to answer it yet
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(request(), wait_for_ready=True, timeout=40).status in (1, 2)
        server.wait_for(rf"and on grpc://{place}$")


def test_a_token_guards_what_runs_the_graph() -> None:
    with serving("good:graph", "--grpc-port", "0", "--auth-token", "sesame") as server:
        place = server.wait_for(r"and on grpc://(\S+)")[1]
        with grpc.insecure_channel(place) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                infer(b"", timeout=20)
            assert caught.value.code().name == "UNAUTHENTICATED"
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=20) == b"\x08\x01"
