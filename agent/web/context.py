"""What every handler of the face can reach, and through which door a request came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from agent.config import Settings
from agent.domain.control import Control
from agent.kit.tasks import Owned
from agent.status.board import Board
from agent.status.metrics import Metrics


class Door(StrEnum):
    """A listener. Each has an application of its own, so that no request can claim another door."""

    ADMIN = "admin"  # TCP: reads are open, wishes need the token
    SOCKET = "socket"  # Unix socket: whoever may open the file may do all
    WEBHOOK = "webhook"  # TCP, for the internet: deliveries and nothing else


@dataclass(slots=True)
class Context:
    """Shared by all doors. `tasks` carries out wishes that a vanished client must not cut short."""

    settings: Settings
    board: Board
    metrics: Metrics
    control: Control
    tasks: Owned
    shutting_down: bool = False
    closing: bool = False  # streams end
    followers: int = 0  # streams of logs


CONTEXT = web.AppKey("context", Context)
DOOR = web.AppKey("door", Door)
