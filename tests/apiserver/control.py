"""The methods of `ApiServer` through HTTP, for a server in a separate process.

POST /_control/objects   {"apply": [...], "delete": [...]}: all in one burst; returns `revision` and `time`
POST /_control/fault     {"effect": {"type": "answer", "code": 500}, "verb": "list", "times": 3}; see `faults`
POST /_control/clear     remove all faults
POST /_control/watches   {"do": "reset", "resource": "services"}; see `Order`
POST /_control/server    {"do": "restart"}; see `ServerOrder`: done after the answer; ends this connection
POST /_control/streams   false: send no streamed lists from now on
POST /_control/tokens    ["one", "two"]: accept only these from now on
GET  /_control/sent      ?after=REVISION: events sent on watches, [revision, type, key, time]
GET  /_control/log       requests, as `server.LoggedRequest`
GET  /_control/state     `revision`, and the number of open watches of each resource

Times are of the monotonic clock, which is the same in all processes of a machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tests.apiserver.faults import Fault
from tests.apiserver.http import Connection, Request
from tests.apiserver.resources import BY_KIND, Manifest
from tests.apiserver.server import CONTROL, ApiServer
from tests.apiserver.status import ApiError, no_such_path


class Changes(Struct):
    """Objects to create or replace, and objects to delete (only kind and names matter)."""

    apply: list[Manifest] = []
    delete: list[Manifest] = []


class Order(Struct):
    """An action on open watches."""

    do: Literal["end", "reset", "hold", "release", "bookmark", "expire", "inject"]
    resource: str = ""
    data: str = ""
    """The bytes that `inject` sends."""


class ServerOrder(Struct):
    """An action on the server. It does not listen for `down` seconds."""

    do: Literal["restart", "compact", "lose"]
    down: float = 0


async def control(api: ApiServer, connection: Connection, request: Request) -> None:
    """Answer a request below /_control/."""
    try:
        answer = _do(api, request)
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        await connection.json(400, {"message": str(error)})
    except ApiError as error:
        await connection.json(error.code, error.status)
    else:
        await connection.json(200, answer)


def _do(api: ApiServer, request: Request) -> Any:
    body, decode = request.body, msgspec.json.decode
    match request.method, request.path[len(CONTROL) :]:
        case "POST", "objects":
            changes = decode(body, type=Changes)
            now = time.monotonic()
            with api.burst():
                api.apply(*changes.apply)
                api.delete(*changes.delete)
            return {"revision": api.store.revision, "time": now}
        case "POST", "fault":
            api.faults.append(decode(body, type=Fault))
        case "POST", "clear":
            api.faults.clear()
        case "POST", "watches":
            order = decode(body, type=Order)
            if order.do == "inject":
                api.watches.inject(order.data.encode(), order.resource)
            else:
                getattr(api.watches, order.do)(order.resource)
        case "POST", "server":
            asyncio.get_running_loop().call_later(0.05, _later, api, decode(body, type=ServerOrder))
        case "POST", "streams":
            api.streams = decode(body, type=bool)
        case "POST", "tokens":
            api.access.rotate(*decode(body, type=list[str]))
        case "GET", "sent":
            after = int(request.query.get("after", "0"))
            return [sent for sent in api.watches.sent if sent.revision > after]
        case "GET", "log":
            return [seen._asdict() for seen in api.log]
        case "GET", "state":
            watches = {resource.plural: len(api.watches.of(resource.plural)) for resource in BY_KIND.values()}
            return {"revision": api.store.revision, "watches": watches}
        case _:
            raise no_such_path()
    return {}


def _later(api: ApiServer, order: ServerOrder) -> None:
    """Act outside the event loop, because the methods of the server wait for the loop."""

    def work() -> None:
        if order.do == "compact":
            api.store.compact()
            return
        api.stop()
        time.sleep(order.down)
        if order.do == "restart":
            api.store.compact()
        else:
            api.store.restore(None)
        api.resume()

    asyncio.get_running_loop().run_in_executor(None, work)
