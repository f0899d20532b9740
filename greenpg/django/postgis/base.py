"""Where Django looks for the backend `greenpg.django.postgis`; it wants the GDAL library."""

from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper as PostGISWrapper

from greenpg.django.base import DatabaseWrapper as GreenWrapper

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(GreenWrapper, PostGISWrapper):  # type: ignore[misc]  # Django has no types
    """GeoDjango's PostGIS wrapper, with greenpg's connections and pool."""
