"""Being told when a package is imported, for what costs too much to do before.

A finder stands first on ``sys.meta_path`` while it waits for a package: it has the others find it, and
lends the module a loader that calls back when the module is complete. It stays there when it waits for
nothing any more: where a finder is taken off while another thread goes along the path, that one misses
the next finder, and what it imports may be found by none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["when_imported"]

Then = Callable[[], None]


def when_imported(package: str, then: Then) -> None:
    """Call ``then`` once: now if a package is imported, else when it is.

    Args:
        package: Its full name; of a package that is never imported nothing is called.
        then: What to do. It must not raise: it runs within the application's import. Of several that
            are given for one package the last is called.
    """
    if package in sys.modules:
        then()
        return
    watch = next((found for found in sys.meta_path if isinstance(found, _Watch)), None)
    if watch is None:
        watch = _Watch()
        sys.meta_path.insert(0, watch)
    watch.waiting[package] = then


class _Watch:
    """A finder that finds nothing itself."""

    def __init__(self) -> None:
        self.waiting: dict[str, Then] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        # Those behind: who stands before has been asked, and may be another of us, of a fallom that was
        # imported before this one or of a thread that began at the same time. It would ask us again.
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else finders:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self, name)  # type: ignore[assignment]
                return spec
        return None

    def take(self, name: str) -> Then | None:
        """Give what waits for a package, once."""
        return self.waiting.pop(name, None)


class _Loader:
    """Stands before a module's loader until the module is complete."""

    def __init__(self, loader: Any, watch: _Watch, name: str) -> None:
        self._loader = loader
        self._watch = watch
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)  # if it fails, the next try is watched as well
        then = self._watch.take(self._name)
        if then is not None:
            then()
