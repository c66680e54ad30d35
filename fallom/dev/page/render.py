"""``Pages``: templates to answers, under the page's policy. The one door to the browser.

Every value is escaped (autoescape) and made inert (``finalize``); there is no ``|safe`` in a template, and
markup is only made where the drawings are (``plots``). The policy lets the browser load one
script and one style sheet, both named with this answer's nonce, and talk to this server alone.
"""

from __future__ import annotations

import json
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from fallom._version import __version__
from fallom.dev.page import shown
from fallom.dev.page.inert import inert

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["PAGE_HEADERS", "Pages"]

PAGE_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    # "no-referrer" would have the browser send its own forms with "Origin: null"
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Pages:
    """The templates."""

    @cached_property
    def _environment(self) -> Environment:
        # A cloud that serves tests never shows a page, and loading the engine takes 60 ms.
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("fallom.dev.page"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=inert,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name in shown.__all__:
            environment.filters[name.removeprefix("shown_")] = getattr(shown, name)
        environment.filters["path"] = lambda text: quote(text, safe="")
        environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False, indent=2)
        environment.globals["version"] = __version__
        return environment

    def answer(self, template: str, status: int = 200, **values: Any) -> Response:
        """Give a page."""
        nonce = secrets.token_urlsafe(16)
        body = self._environment.get_template(template).render(nonce=nonce, **values)
        headers = {**PAGE_HEADERS, "content-security-policy": _POLICY.format(nonce=nonce)}
        # a lone surrogate, which JSON may hold, has no UTF-8 form
        content = body.encode("utf-8", "replace")
        return HTMLResponse(content, status_code=status, headers=headers)
