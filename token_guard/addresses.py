"""Addresses: which URLs Token Guard may be told to ask. RFC 8414 2 (https), RFC 8252 7.3 (loopback).

Pure: judges the text of a URL and resolves no name.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from .errors import ConfigurationError


def check_https(name: str, url: object) -> None:
    """Refuse an address that is not https; http is for loopback alone.

    Raises:
        ConfigurationError: not an absolute https URL, or one with user information in it.
    """
    if not isinstance(url, str) or not is_safe_address(url):
        shown = "one with user information" if isinstance(url, str) and "@" in url else repr(url)
        raise ConfigurationError(
            f"{name} must be an absolute https URL without spaces or user information, not {shown}"
            " (http is accepted for localhost, 127.0.0.0/8 and ::1)"
        )


def is_safe_address(url: str) -> bool:
    """Tell whether `url` is https, or http on the loopback interface. Does NOT resolve the host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc or not url.isprintable() or " " in url or "\\" in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Tell whether `host` is the name localhost or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
