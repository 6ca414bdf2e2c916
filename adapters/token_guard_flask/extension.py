"""TokenGuard: the extension that puts a guard around a Flask application.

Its job is to read the settings and to extend the application. It must not know what happens to a request.
"""

import os
from collections.abc import Collection
from functools import partial
from typing import Any

from flask import Flask

from token_guard import ConfigurationError, ResourceServer
from token_guard.guard import Guard

from .request import extensions

_PREFIX = "TOKEN_GUARD_"
_OPTIONS_OF_GUARD = {"PUBLIC_PATHS", "ALLOW_ANONYMOUS"}


class TokenGuard:
    """Let only requests with a valid access token reach the views of `app`, or of each application given to `init_app`.

    Open are views marked `@public` and `public_paths`: exact paths or prefixes such as `/static/*`, compared with
    `request.path`. With `allow_anonymous` a request without credentials gets in; a token that is sent is checked. What
    is not said here comes from `app.config`: TOKEN_GUARD_ISSUER, TOKEN_GUARD_AUDIENCE and so on as in
    `ResourceServer.from_env`, or TOKEN_GUARD_RESOURCE_SERVER; TOKEN_GUARD_PUBLIC_PATHS and TOKEN_GUARD_ALLOW_ANONYMOUS.

    In a view `g.access_token` is the access token, or None where the request is public or anonymous. The guard of an
    application is its `extensions["token_guard"]`.

    Does NOT check scopes: that is what `requires_scope` and `AccessToken.require` are for.

    Raises:
        ConfigurationError: a setting is missing or wrong, two contradict each other, or `app` has a guard already.
    """

    def __init__(
        self,
        app: Flask | None = None,
        resource_server: ResourceServer | None = None,
        *,
        public_paths: Collection[str] | None = None,
        allow_anonymous: bool | None = None,
    ) -> None:
        arguments = {
            "RESOURCE_SERVER": resource_server,
            "PUBLIC_PATHS": public_paths,
            "ALLOW_ANONYMOUS": allow_anonymous,
        }
        self._arguments = {name: value for name, value in arguments.items() if value is not None}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Guard `app`, whose configuration is complete.

        Raises:
            ConfigurationError: as the class.
        """
        if not isinstance(app, Flask):
            raise ConfigurationError(f"TokenGuard guards a Flask application, not a {type(app).__name__}")
        if "token_guard" in app.extensions:
            raise ConfigurationError(f"the application {app.name!r} has a guard already: make one TokenGuard for it")
        settings = self._settings(app)
        if settings.keys().isdisjoint(("ISSUER", "RESOURCE_SERVER")) and f"{_PREFIX}ISSUER" in os.environ:
            raise ConfigurationError(
                f"{_PREFIX}ISSUER is in the environment and not in app.config, where TokenGuard(app) looks: say"
                " TokenGuard(app, ResourceServer.from_env())"
            )
        guard = Guard.from_settings(settings, _PREFIX)
        app.extensions["token_guard"] = guard
        for name, extension in extensions(app, guard).items():
            setattr(app, name, partial(extension, getattr(app, name)))

    def _settings(self, app: Flask) -> dict[str, Any]:
        configured = {
            name.removeprefix(_PREFIX): value for name, value in app.config.items() if name.startswith(_PREFIX)
        }
        for name in sorted(configured):
            rival = name if name in _OPTIONS_OF_GUARD else "RESOURCE_SERVER"
            if rival in self._arguments:
                argument = rival.lower()
                raise ConfigurationError(f"{_PREFIX}{name} and the argument {argument} contradict each other; keep one")
        return configured | self._arguments
