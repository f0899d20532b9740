"""The pools of this process, one per alias and settings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from greenpg.pool import ConnectionPool

from ._driver import DRIVER, leave_json

DECISIVE: Final = ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "CONN_HEALTH_CHECKS")
OURS: Final = ("backend", "conninfo", "configure", "driver", "kwargs", "open")
_pools: Final[dict[tuple[str, Hashable], ConnectionPool]] = {}


def pool_of(wrapper: Any) -> ConnectionPool:
    """Return the pool for a wrapper's alias and settings; make it on first use."""
    decisive = [wrapper.settings_dict.get(name) for name in DECISIVE]
    key = (wrapper.alias, repr((decisive, wrapper.timezone_name)))
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, _made(wrapper))
        # pools with former settings would go on connecting, perhaps with an old password
        close_all(wrapper.alias, patient=False, spared=key)
    return pool


def close_all(alias: str, *, patient: bool, spared: object = None) -> None:
    """Close an alias's pools, except that of the key `spared`; the next use makes new ones.

    If `patient`, wait up to 5 seconds for lent connections and then close them too; otherwise
    lent connections are closed when they are returned.
    """
    for key in [key for key in list(_pools) if key[0] == alias and key != spared]:
        pool = _pools.pop(key, None)
        if pool is not None and patient:
            pool.close()
        elif pool is not None:
            pool.resize(0, pool.max_size)
            pool._wind_down()


def without_pool(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a database's settings without OPTIONS["pool"]; OPTIONS is a copy."""
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    return {**settings, "OPTIONS": options}


class _Source:
    """Makes a pool's connections from the settings that a wrapper had when the pool was made."""

    def __init__(self, wrapper: Any) -> None:
        self._kind = type(wrapper)
        self._alias = wrapper.alias
        self._settings = without_pool(wrapper.settings_dict)
        self._timezone_name = wrapper.timezone_name

    def parameters(self) -> Any:
        """Return the connection parameters; called for each connection: passwords may change."""
        parameters = self._wrapper().get_connection_params()
        parameters.pop("backend", None)
        return parameters

    def configure(self, connection: Any) -> None:
        """Configure a new connection as Django configures its own."""
        wrapper = self._wrapper()
        connection.autocommit = True
        wrapper.connection = connection
        wrapper._configure_connection(connection)
        if (level := wrapper.chosen_isolation_level()) is not None:
            connection.isolation_level = level
        leave_json(connection)

    def _wrapper(self) -> Any:
        wrapper = self._kind(self._settings, self._alias)
        wrapper.timezone_name = self._timezone_name
        return wrapper


def _made(wrapper: Any) -> ConnectionPool:
    if wrapper.settings_dict.get("CONN_MAX_AGE", 0) != 0:
        raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
    source = _Source(wrapper)
    options = {"driver": DRIVER, "configure": source.configure, **_options(wrapper)}
    try:
        return ConnectionPool(kwargs=source.parameters, **options)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{_place(wrapper)}: {error}") from error


def _options(wrapper: Any) -> dict[str, Any]:
    settings = wrapper.settings_dict["OPTIONS"]
    given = {} if settings["pool"] is True else settings["pool"]
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{_place(wrapper)} is {given!r}; give True or a dict")
    if reserved := sorted(given.keys() & {*OURS}):
        raise ImproperlyConfigured(f"{_place(wrapper)}: Django sets {', '.join(reserved)}")
    checks = wrapper.settings_dict["CONN_HEALTH_CHECKS"]
    check = ConnectionPool.check_connection if checks else None
    return {"name": wrapper.alias, "backend": settings.get("backend"), "check": check, **given}


def _place(wrapper: Any) -> str:
    return f"DATABASES[{wrapper.alias!r}]['OPTIONS']['pool']"
