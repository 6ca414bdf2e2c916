"""Addresses: which URLs Token Guard may be told to ask, and which machines it may connect to for somebody else.

Pure: judges texts and resolves no name. RFC 8414 2 (https), RFC 8252 7.3 (loopback), RFC 6890 (addresses that are not
public).
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from .errors import ConfigurationError

# RFC 3986 3.2. urlsplit takes only what is in brackets for the host, and overlooks what stands around them.
_AUTHORITY = re.compile(r"(?:\[[^\[\]@]+\]|[^\[\]:@]+)(?::[0-9]*)?")
MAX_URL_CHARACTERS = 2048  # our own bound: addresses come from metadata, and go into the log
_PUBLIC_IPV6 = IPv6Network("2000::/3")  # RFC 4291 2.4: all that is given out
_CLOUD = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16/32"))  # RFC 6890; Azure's own services
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 2.1: an IPv4 address in its last 32 bits


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
    if len(url) > MAX_URL_CHARACTERS or not host or port == 0 or not url.isprintable() or " " in url or "\\" in url:
        return False
    if _AUTHORITY.fullmatch(parts.netloc) is None:  # user information, or a host that others read differently
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Tell whether `host` is the name localhost or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_public_address(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, also where IPv6 wraps an IPv4 address in it."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        wrapped = IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else wrapped
        if wrapped is None:
            return ip.is_global and ip in _PUBLIC_IPV6
        ip = wrapped
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in each for each in _CLOUD)
