"""A page in a browser, with everything it asked for, said and threw."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class OpenedPage:
    """An opened page: `requests` are addresses, `complaints` console messages and errors, `dialogs` texts of alerts."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, context: Any, url: str, *, wait: bool = True) -> "OpenedPage":
        opened = cls(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", opened._dismiss)
        opened.page.goto(url)
        if wait:
            opened.page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
        return opened

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait_until(self, condition: str) -> None:
        """Wait until an expression is true; the policy of the page forbids the waiting that Playwright does in it."""
        for _ in range(1200):
            if self.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"after a minute this is not true: {condition}")

    @property
    def text(self) -> str:
        """The text of the body as it is shown."""
        return str(self.page.inner_text("body"))

    @property
    def is_wider_than_window(self) -> bool:
        return bool(self.evaluate("document.documentElement.scrollWidth > innerWidth"))
