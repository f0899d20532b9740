"""The module in which Django looks for `greenpg.django.postgis`; requires the GDAL library."""

from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper as PostGISWrapper

from greenpg.django.base import DatabaseWrapper as GreenWrapper

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(GreenWrapper, PostGISWrapper):  # type: ignore[misc]  # Django has no types
    """GeoDjango's PostGIS wrapper, with greenpg's connections and pool."""
