"""GeoDjango's PostGIS backend on green connections: `"ENGINE": "greenpg.django.postgis"`."""
