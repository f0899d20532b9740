"""Settings for running Django's own test suite on the server of GREENPG_DSN."""

from .settings import DATABASES as _DATABASES

DATABASES = {
    "default": _DATABASES["default"],
    "other": {**_DATABASES["default"], "TEST": {"NAME": "test_other"}},
}
SECRET_KEY = "a test's"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
