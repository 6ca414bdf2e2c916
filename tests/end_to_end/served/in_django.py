"""The application in Django."""

import os

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.end_to_end.served.organizer import answer


def tell(_: HttpRequest) -> JsonResponse:
    return JsonResponse(answer())


urlpatterns = [path("", tell)]
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.end_to_end.served.django_settings"
app = get_wsgi_application()
