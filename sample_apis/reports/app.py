"""The reports service: what each route needs and answers, and the settings that Django runs with.

    GET    /reports/weekly    read:reports    the report of a week; ?from= is its first moment, by default this Monday
    GET    /healthz           public

A token for this service is good for no other, so what the report is made of is asked for with tokens that are exchanged
for it: see `weekly.py`, and `__main__.py` for who exchanges them.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import path
from django.views import View

from sample_apis.organizer import health_in_words
from sample_apis.problems import PROBLEM_JSON, InvalidFields, Problem
from sample_apis.reports.weekly import Source, weekly_report
from sample_apis.validation import Reader, moment, optional, read_fields
from token_guard import ResourceServer, public, requires_scope

AUDIENCE = "https://reports.example/"
REALM = "reports"
WEEK = timedelta(days=7)

QUERY: Mapping[str, Reader] = {"from": optional(moment)}

_log = logging.getLogger("sample_apis")


def django_settings(reports: ResourceServer, contacts: Source, calendars: Source) -> dict[str, Any]:
    """Return the settings of the service: every route needs a token, except those marked `@public`."""
    return {
        "ALLOWED_HOSTS": ["*"],  # nothing here is made of the host's name
        "INSTALLED_APPS": ["token_guard_django"],
        "LOGGING_CONFIG": None,  # the log is set up already
        "MIDDLEWARE": ["token_guard_django.TokenGuardMiddleware", f"{__name__}.ProblemMiddleware"],
        "ROOT_URLCONF": __name__,
        "TOKEN_GUARD": {"RESOURCE_SERVER": reports},
        "REPORTS_CONTACTS": contacts,
        "REPORTS_CALENDARS": calendars,
    }


class Weekly(View):
    @requires_scope("read:reports")
    def get(self, request: HttpRequest) -> HttpResponse:
        begin, end = sent_week(request)
        return JsonResponse(weekly_report(settings.REPORTS_CONTACTS, settings.REPORTS_CALENDARS, begin, end))

    def http_method_not_allowed(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        refused = super().http_method_not_allowed(request)
        detail = "The method is not allowed for this address."
        return answer_problem(Problem(refused.status_code, detail, headers={"Allow": refused["Allow"]}))


@public
def healthz(request: HttpRequest) -> HttpResponse:
    return JsonResponse(health_in_words(settings.TOKEN_GUARD["RESOURCE_SERVER"]))


def sent_week(request: HttpRequest) -> tuple[str, str]:
    """Return the first moment of the week that is asked for, and the first one after it."""
    sent = read_fields(request.GET.dict(), QUERY)["from"]
    begin = this_monday() if sent is None else datetime.fromisoformat(sent)
    try:
        return moment(begin.isoformat()), moment((begin + WEEK).isoformat())
    except OverflowError:
        raise InvalidFields({"from": "Send a moment at least a week before the end of the year 9999."}) from None


def this_monday() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday())


class ProblemMiddleware:
    """Answers the problem that a view raised, and logs its cause, which the answer does not tell."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, Problem):
            return None
        if error.__cause__ is not None:
            _log.warning("%a The cause: %r", str(error), error.__cause__)
        return answer_problem(error)


def answer_problem(problem: Problem) -> HttpResponse:
    return HttpResponse(problem.body(), PROBLEM_JSON, problem.status, headers=problem.headers)


def answer_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer_problem(Problem(HTTPStatus.NOT_FOUND, "There is nothing at this address."))


def answer_failure(request: HttpRequest) -> HttpResponse:
    """Answer a failure of our own without its cause, which Django has logged."""
    return answer_problem(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed. The cause is in its log."))


urlpatterns = [path("reports/weekly", Weekly.as_view()), path("healthz", healthz)]
handler404 = answer_not_found
handler500 = answer_failure
