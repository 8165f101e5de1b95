"""A panel on stderr that is redrawn while a command runs."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from autotuner.cli import display

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live


class LivePanel(AbstractContextManager["LivePanel"]):
    """Draws what `render` returns several times a second, and is gone when its block ends."""

    refreshes_per_second = 4

    _live: Live | None = None

    @abstractmethod
    def render(self) -> RenderableType:
        """The panel as it is now."""

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            get_renderable=self.render,
            console=display.stderr_console(),
            refresh_per_second=self.refreshes_per_second,
            transient=True,
        )
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)
