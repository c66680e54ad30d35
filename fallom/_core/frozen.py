"""``Frozen``: named fields with defaults that cannot be changed, as a frozen dataclass has them.

``dataclasses`` loads ``inspect`` and ``ast``, 4 ms and 1.1 MiB of a worker's start. And a named tuple will
not do for what may hold a secret: whoever writes down the variables of a traceback walks over tuples.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Decorate nothing: it is for type checkers."""
        return lambda kind: kind


__all__ = ["Frozen"]


@dataclass_transform(eq_default=True, frozen_default=True, kw_only_default=True)
class Frozen:
    """The base of such a class; its annotations are the fields, given to it by name.

    ``class Target(Frozen, hidden=("headers",))`` leaves a field out of the repr.
    """

    _names: ClassVar[frozenset[str]] = frozenset()
    _hidden: ClassVar[Collection[str]] = ()

    def __init_subclass__(cls, hidden: Collection[str] = ()) -> None:
        cls._names = frozenset(cls.__annotations__)
        cls._hidden = hidden

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)
        if given.keys() != self._names:
            for name in given.keys() ^ self._names:
                if name in given or not hasattr(type(self), name):
                    wrong = "has no" if name in given else "needs the"
                    raise TypeError(f"{type(self).__name__} {wrong} field {name!r}")

    def values(self) -> dict[str, Any]:
        """Give all fields by name."""
        return {name: getattr(self, name) for name in self.__annotations__}

    def replaced(self, **changes: Any) -> Self:
        """Give one with other values in some fields."""
        return type(self)(**{**vars(self), **changes})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.values() == self.values()

    def __hash__(self) -> int:
        return hash(tuple(self.values().values()))

    def __repr__(self) -> str:
        shown = (f"{n}={v!r}" for n, v in self.values().items() if n not in self._hidden)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} of {type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} of {type(self).__name__} cannot be deleted")
