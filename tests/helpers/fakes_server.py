"""A server that does what a test wants it to, right or wrong, behind a real socket."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tango_rt.v1 import media_pb2, service_pb2_grpc, session_pb2

Response = session_pb2.StreamGesturesResponse
Behaviour = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Response]]


class _Servicer(service_pb2_grpc.GestureServiceServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def StreamGestures(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        return self._behaviour(requests, context)


@contextmanager
def fake_server(behaviour: Behaviour | None) -> Iterator[str]:
    """Its address. None: a server that knows nothing of gestures."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    if behaviour is not None:
        service_pb2_grpc.add_GestureServiceServicer_to_server(_Servicer(behaviour), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def accept(request: session_pb2.StreamGesturesRequest) -> Response:
    fixed = {"frame_rate": 30, "frames_per_node": 4}
    return Response(accepted=session_pb2.Accepted(session_id="s", config=request.config, width=96, height=64, **fixed))


PICTURE = b"\0\0\0\1\x65 looks like H.264"


def frame(index: int, utterance: str = "", utterance_frame: int = 0, data: bytes = PICTURE, **fields: Any) -> Response:
    return Response(
        frame=media_pb2.VideoFrame(
            frame_index=index, utterance_id=utterance, utterance_frame=utterance_frame, pts=index, data=data, **fields
        )
    )


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, message: str, retry_s: int = 0) -> None:
    """Abort as the protocol says."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="tango-rt", metadata={"limit": "1"})]
    if retry_s:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_s)))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.abort_with_status(rpc_status.to_status(status))
