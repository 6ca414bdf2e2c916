"""The one address of the Django application."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.applications import BODY


def answer(_: HttpRequest) -> HttpResponse:
    """Answer every request alike."""
    return HttpResponse(BODY, content_type="text/plain")


urlpatterns = [path("", answer)]
