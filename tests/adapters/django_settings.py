"""The Django settings of the test process. Importing this module configures Django, once and for all tests.

Tests say what they need with `override_settings`: ROOT_URLCONF, MIDDLEWARE and TOKEN_GUARD above all.
"""

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "drf_spectacular",
        "token_guard_django",
    ],
    MIDDLEWARE=["token_guard_django.TokenGuardMiddleware"],
    REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"},
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

urlpatterns: list[object] = []
