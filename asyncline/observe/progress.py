"""The loading of models, as it goes on."""

from __future__ import annotations

from rich.console import Console

from asyncline.engine.hooks import Observer
from asyncline.graph.plan import Node, Plan


class Progress(Observer):
    """Shows which models are being loaded: live in a terminal, a line for each elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._left = {(node.name, i) for node in plan.nodes if node.op.hook("load_model") for i in range(_count(node))}
        self._total = len(self._left)
        self._console = console
        self._status = console.status("starting") if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def loading(self, node: Node, replica: int) -> None:
        if self._status is not None and (node.name, replica) in self._left:
            self._show()

    def loaded(self, node: Node, replica: int, seconds: float) -> None:
        if (node.name, replica) not in self._left:
            return
        self._left.discard((node.name, replica))
        which = f" {replica + 1} of {_count(node)}" if _count(node) > 1 else ""
        self._console.print(
            f"loaded [bold]{node.name}[/]{which} on {_device(node)} in {seconds:.2f} s", highlight=False
        )
        self._show()

    def _show(self) -> None:
        if self._status is not None:
            names = ", ".join(sorted({name for name, _ in self._left}))
            self._status.update(f"loading models, {self._total - len(self._left)} of {self._total}: {names}")

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()


def _count(node: Node) -> int:
    return node.settings.replicas


def _device(node: Node) -> str:
    return node.settings.device
