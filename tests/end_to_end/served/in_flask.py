"""The application in Flask."""

from flask import Flask

from tests.end_to_end.served.organizer import answer, organizer
from token_guard_flask import TokenGuard

app = Flask(__name__)
TokenGuard(app, organizer)
app.add_url_rule("/", view_func=answer)
