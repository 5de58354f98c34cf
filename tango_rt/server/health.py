"""Health of the server as grpc.health.v1 defines it.

Not the servicer that comes with gRPC: there, once one of several watchers of a service has gone, the others get no more
updates, and a watcher that stays delays the shutdown of the server for the whole grace period.
"""

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["Health"]

Check = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """One status for the server ("") and each of its services: NOT_SERVING until set otherwise."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(["", *services])
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, serving: bool) -> None:
        self._serving = serving
        self._wake()

    def close(self) -> None:
        """NOT_SERVING forever; watchers are notified and released."""
        self._closed = True
        self.set(False)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return Check(status=self._status(request.service))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> None:
        said = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != said:
                await context.write(Check(status=status))
                said = status
            if self._closed:
                return
            await changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return Check.SERVICE_UNKNOWN
        return Check.SERVING if self._serving else Check.NOT_SERVING

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
