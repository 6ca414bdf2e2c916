"""The settings of the application in Django."""

ALLOWED_HOSTS = ["127.0.0.1"]
MIDDLEWARE = ["token_guard_django.TokenGuardMiddleware"]
ROOT_URLCONF = "tests.end_to_end.served.in_django"
TOKEN_GUARD = {"RESOURCE_SERVER": "tests.end_to_end.served.organizer.organizer"}
