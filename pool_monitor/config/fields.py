"""The types of fields that several sections use, and the base struct that checks them."""

from __future__ import annotations

from typing import Annotated, get_origin

import msgspec
from msgspec import Meta, Struct

from pool_monitor.config.validation import FOREVER, hints, problem_with
from pool_monitor.errors import ConfigError

Seconds = Annotated[float, Meta(gt=0, le=FOREVER)]
Pause = Annotated[float, Meta(ge=0, le=FOREVER)]
Count = Annotated[int, Meta(ge=0)]
Pattern = Annotated[str, Meta(min_length=1)]
Variable = Annotated[
    str, Meta(pattern=r"^[^:\s]+:[^:\s]+$", description="'module:variable', such as 'my_service.log:request_id'")
]
_CHARACTERS = "1 to 40 letters, digits, dots, hyphens and underscores"
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,40}$", description=_CHARACTERS)]
Url = Annotated[str, Meta(pattern=r"^https?://", description="a URL, http://... or https://...")]
MIB = 1024 * 1024


class Validated(Struct, frozen=True, kw_only=True):
    """A struct whose constructor checks types and ranges. msgspec itself checks only when it decodes."""

    def __post_init__(self) -> None:
        problem = problem_with(type(self), msgspec.structs.asdict(self))
        if problem:
            raise ConfigError(f"{type(self).__name__}: {problem}")
        for name, hint in hints(type(self)).items():
            if get_origin(hint) is tuple:  # a list is accepted, and copied: its owner may change it
                msgspec.structs.force_setattr(self, name, tuple(getattr(self, name)))
